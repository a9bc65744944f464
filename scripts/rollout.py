"""Continue a video with a trained model, for any number of frames."""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _cli import log_to_stderr, make_parser, parse_device, run_script

if TYPE_CHECKING:
    from torch import Tensor

    from video_mirai.build import LoadedRun
    from video_mirai.sampling.rollout import RolloutSettings

DESCRIPTION = """Continue a video with a trained model, for any number of frames.

The file holds the history, as the codec gives it back, and then the generated frames; it is written while they are
made, so that memory doesn't depend on how many there are, and plays even when the run is interrupted."""
EXAMPLE = "python scripts/rollout.py --checkpoint runs/doom --history clip.mp4 --frames 600 --out long.mp4"
DATA_SET = "dataset"


class History(NamedTuple):
    """latents (1, F, C, h, w); context as the model takes it, or None; fps of the video."""

    latents: "Tensor"
    context: "Tensor | None"
    fps: float


def main() -> None:
    """Parse, load, generate."""
    arguments = build_parser().parse_args()

    # Below, because these imports take seconds and --help needs none.
    import torch

    from video_mirai.build import load_run
    from video_mirai.media import check_video_suffix
    from video_mirai.sampling.rollout import rollout

    check_video_suffix(arguments.out)
    if arguments.frames < 1:
        raise ValueError(f"--frames {arguments.frames} must be at least 1.")
    if arguments.history != DATA_SET and Path(arguments.history).resolve() == Path(arguments.out).resolve():
        raise ValueError(f"--out {arguments.out} is the history's own file; name another.")
    log_to_stderr()
    arguments.device = parse_device(arguments.device)
    run = load_run(arguments.checkpoint, arguments.device)
    settings = rollout_settings(run, arguments)
    history = read_history(run, arguments)
    generator = torch.Generator(arguments.device).manual_seed(arguments.seed)
    chunks = rollout(run.model, history.latents, settings, generator, context=history.context)
    fps = arguments.fps if arguments.fps is not None else history.fps
    write_stream(run.codec.decode_stream(chain([history.latents], chunks)), history, arguments, run, fps)


def build_parser() -> argparse.ArgumentParser:
    """Every option."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    parser.add_argument("--checkpoint", required=True, help="run folder, its export folder, or asset:NAME")
    parser.add_argument(
        "--history", required=True, help=f"video file, whose last frames are continued, or '{DATA_SET}': the run's own"
    )
    parser.add_argument("--index", type=int, default=0, help="clip of the data set (default: %(default)s)")
    parser.add_argument("--split", default="val", help="split of the data set (default: %(default)s)")
    parser.add_argument("--frames", type=int, required=True, help="frames to generate")
    parser.add_argument("--out", required=True, help="video to write: .mp4 or .gif")
    parser.add_argument("--history-frames", type=int, help="frames of history (default: as in the run's validation)")
    parser.add_argument("--settings", help="YAML of rollout settings that replace the run's own")
    parser.add_argument("--steps", type=int, help="denoising steps per chunk")
    parser.add_argument("--window", type=int, help="latent frames attended to, besides the sink")
    parser.add_argument("--fps", type=float, help="frame rate of the file (default: the history's)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    return parser


def rollout_settings(run: "LoadedRun", arguments: argparse.Namespace) -> "RolloutSettings":
    """The run's settings, replaced by those of --settings, and these by --steps and --window."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    changes = {"num_steps": arguments.steps, "window_frames": arguments.window}
    merged = OmegaConf.structured(run.rollout)
    try:
        if arguments.settings is not None:
            merged = OmegaConf.merge(merged, OmegaConf.load(arguments.settings))
        merged = OmegaConf.merge(merged, {name: value for name, value in changes.items() if value is not None})
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"--settings {arguments.settings}: {str(error).splitlines()[0]}") from error
    settings: RolloutSettings = OmegaConf.to_object(merged)  # type: ignore[assignment]
    for option, value in (("--steps", settings.num_steps), ("--window", settings.window_frames)):
        if value < 1:
            raise ValueError(f"{option} {value} must be at least 1.")
    return settings


def read_history(run: "LoadedRun", arguments: argparse.Namespace) -> History:
    """From the data set's clip, or the last frames of the file; ValueError for one that is missing or too short."""
    num_frames = arguments.history_frames
    if num_frames is None:
        num_frames = run.codec.num_pixel_frames(run.config.validation.history_frames)
    if num_frames < 1:
        raise ValueError(f"--history-frames {num_frames} must be at least 1.")
    num_latent_frames = run.codec.num_latent_frames(num_frames)
    if arguments.history == DATA_SET:
        return history_of_data_set(run, arguments, num_frames, num_latent_frames)
    return history_of_file(run, arguments, num_frames)


def history_of_data_set(
    run: "LoadedRun", arguments: argparse.Namespace, num_frames: int, num_latent_frames: int
) -> History:
    """The beginning of clip --index."""
    from video_mirai.build import build_data_set

    is_encoded = run.config.data.kind == "latent_shards"
    data = build_data_set(
        run.config.data, split=arguments.split, num_frames=num_latent_frames if is_encoded else num_frames
    )
    if not 0 <= arguments.index < len(data):
        raise ValueError(f"--index {arguments.index} is not in 0..{len(data) - 1} (split {arguments.split}).")
    sample = data[arguments.index]
    if is_encoded:
        latents = sample["latents"][None].to(arguments.device)
    else:
        latents = run.codec.encode(sample["video"][None].to(arguments.device))
    context = sample["context"][None].to(arguments.device) if "context" in sample else None
    return History(latents, context, data.fps)


def history_of_file(run: "LoadedRun", arguments: argparse.Namespace, num_frames: int) -> History:
    """The last frames of a video file, at the size and frame rate that the model was trained on."""
    import torch

    from video_mirai.data.video_folder import VideoFolderConfig, clip_indices, count_starts
    from video_mirai.data.video_reader import UnreadableVideo, fit_frames, open_video

    height, width, fps = run.clips
    folder = run.config.data.video_folder
    with open_video(arguments.history, VideoFolderConfig.backend if folder is None else folder.backend) as video:
        num_starts = count_starts(video.timestamps, num_frames, fps)
        if num_starts == 0:
            rate = "" if fps is None else f" at {fps:g} fps"
            raise UnreadableVideo(
                arguments.history, f"too short: {len(video.timestamps)} frames, history needs {num_frames}{rate}"
            )
        indices = clip_indices(video.timestamps, num_starts - 1, num_frames, fps)
        frames = fit_frames(video.read(indices), height, width)
        rate_of_file = video.info.fps
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    latents = run.codec.encode(pixels[None].to(arguments.device))
    return History(latents, None, fps if fps is not None else rate_of_file)


def write_stream(
    parts: "Iterator[Tensor]", history: History, arguments: argparse.Namespace, run: "LoadedRun", fps: float
) -> None:
    """Writes decoded parts (1, T, C, H, W), the history first, until --frames have been generated."""
    from tqdm import tqdm

    from video_mirai.media import VideoWriter

    left = arguments.frames
    with VideoWriter(arguments.out, fps) as writer, tqdm(total=left, unit="frame", desc="rollout") as progress:
        writer.append(next(parts)[0])
        given = writer.num_frames
        for part in parts:
            frames = part[0, :left]
            writer.append(frames)
            left -= len(frames)
            progress.update(len(frames))
            if left == 0:
                break
    print(f"{arguments.out}: {given} frames of history, {arguments.frames} generated, {fps:g} fps")


if __name__ == "__main__":
    run_script(main)
