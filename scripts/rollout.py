"""Continue videos, pictures or nothing with a trained model, for any number of frames."""

import argparse
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _cli import INTERRUPTED, log_to_stderr, make_parser, parse_device, run_script
from _histories import DATA_SET, NOTHING, History, Request, list_sources, read_history
from _outputs import COMPARE, GRID, SINGLE, STDOUT, Job, Layout, own_stdout, plan_jobs
from _steering import ACTIONS, ContextKind, Steering, check_steering, context_kind, steer
from _texts import TextContexts, encode_schedule, parse_schedule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from video_mirai.build import LoadedRun
    from video_mirai.sampling.rollout import RolloutSettings
    from video_mirai.sampling.state import SavedRollout
    from video_mirai.sampling.stream import ContextFn
    from video_mirai.training.signals import StopSignals

DESCRIPTION = """Continue videos, pictures or nothing with a trained model, for any number of frames.

A file holds the history, as the codec gives it back, and then the generated frames; it is written while they are made,
so that memory doesn't depend on how many there are, and plays even when the run is interrupted. With accelerate launch
histories and seeds are shared out over the processes. Formats, names and exit codes: docs/rollout.md."""
EXAMPLE = """python scripts/rollout.py --checkpoint runs/doom --history clip.mp4 --frames 600 --out long.mp4
  python scripts/rollout.py --checkpoint runs/doom --history clips/ --seeds 0 1 2 --frames 600 --out rollouts/
  python scripts/rollout.py --checkpoint runs/doom --history none --frames 600 --out - | ffmpeg ..."""


class Session(NamedTuple):
    """What is the same for all files.

    texts: (first frame, embedding (1, L, D)); is_main: whether this process shows its progress.
    """

    run: "LoadedRun"
    settings: "RolloutSettings"
    options: argparse.Namespace
    request: Request
    kind: ContextKind
    steering: Steering
    texts: "list[tuple[int, Tensor]]"
    stdout: FileIO | None
    is_main: bool


def main() -> None:
    """Parse, load, generate."""
    options = build_parser().parse_args()
    check_options(options)
    with ExitStack() as stack:
        stdout = stack.enter_context(own_stdout()) if options.out == STDOUT else None
        try:
            generate_all(options, stdout)
        except BrokenPipeError:
            if stdout is None:
                raise


def build_parser() -> argparse.ArgumentParser:
    """Every option."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder, its export folder, or asset:NAME")
    add(
        "--history",
        required=True,
        nargs="+",
        help=f"video files, whose last frames are continued, pictures, folders of videos, '{DATA_SET}' (the run's own) "
        f"or '{NOTHING}'",
    )
    add("--index", type=int, nargs="+", default=[0], help="clips of the data set (default: %(default)s)")
    add("--split", default="val", help="split of the data set (default: %(default)s)")
    add("--frames", type=int, required=True, help="frames to generate")
    add("--out", required=True, help="file (.mp4, .gif, .npy, or NAME.png: the folder NAME), folder, or - for a pipe")
    add("--format", default="mp4", help="of the files in a folder: mp4, gif, npy or png (default: %(default)s)")
    add("--seed", "--seeds", dest="seeds", type=int, nargs="+", default=[0], help="(default: %(default)s)")
    together = parser.add_mutually_exclusive_group()
    together.add_argument(
        "--grid", dest="layout", action="store_const", const=GRID, default=SINGLE, help="all seeds in one video"
    )
    together.add_argument(
        "--compare",
        dest="layout",
        action="store_const",
        const=COMPARE,
        help="the truth and all seeds side by side; files are then continued from their first frames",
    )
    add("--scale", type=int, default=1, help="whole-number enlargement (default: %(default)s)")
    add("--history-frames", type=int, help="frames of history (default: as in the run's validation; 1 for a picture)")
    add("--class", dest="label", metavar="NAME", help="class of all frames")
    add("--actions", type=Path, metavar="FILE", help=".jsonl with a class or actions for every generated frame")
    add(
        "--text",
        nargs="+",
        metavar="[FRAME:]TEXT",
        help="what to show, from the first generated frame on or from FRAME; needs --text-encoder",
    )
    add("--text-encoder", type=Path, metavar="DIR", help="the encoder that embedded the captions in training")
    add("--save-state", type=Path, metavar="FILE", help="where the stream stands at the end (.safetensors)")
    add("--load-state", type=Path, metavar="FILE", help="go on from there, bit for bit; with --history none")
    add("--settings", help="YAML of rollout settings that replace the run's own")
    add("--steps", type=int, help="denoising steps per chunk")
    add("--window", type=int, help="latent frames attended to, besides the sink")
    add("--fps", type=float, help="frame rate of the file (default: the model's)")
    add("--device", default="auto", help="auto (this process's GPU, else the CPU) or a torch device (default: auto)")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """ValueError for the first option that cannot be."""
    for option in ("frames", "scale"):
        if vars(options)[option] < 1:
            raise ValueError(f"--{option} {vars(options)[option]} must be at least 1.")
    if min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds {' '.join(map(str, options.seeds))}: numbers from 0, each once.")
    if options.load_state is not None and options.history != [NOTHING]:
        raise ValueError(f"--load-state goes on from its own history: say --history {NOTHING}.")
    if options.save_state is not None and not options.save_state.parent.is_dir():
        raise ValueError(f"--save-state {options.save_state}: the folder {options.save_state.parent} does not exist.")
    if options.fps is not None and not 0 < options.fps < float("inf"):
        raise ValueError(f"--fps {options.fps} must be positive.")


def generate_all(options: argparse.Namespace, stdout: FileIO | None) -> None:
    """This process's share of the files."""
    # Here, because these imports take seconds and --help needs none.
    from accelerate import PartialState

    from video_mirai.build import check_generation, load_run
    from video_mirai.training.signals import StopSignals

    log_to_stderr()
    sources = list_sources(options.history, options.index, options.split)
    jobs = plan_jobs(sources, options.seeds, options.out, options.layout, f".{options.format.lstrip('.')}")
    if len(jobs) > 1 and (options.save_state or options.load_state):
        raise ValueError(f"a state is that of one video (or one --grid), and these are {len(jobs)}.")
    state = PartialState(cpu=options.device == "cpu")
    device = state.device if options.device == "auto" else parse_device(options.device)
    run = load_run(options.checkpoint, device)
    settings = rollout_settings(run, options)
    check_memory(run, settings, batch_size=len(jobs[0].seeds))
    check_generation(run, settings)
    kind = context_kind(run, options.split)
    texts = parse_schedule(options.text) if options.text else []
    steering = Steering(options.label, options.actions, texts, options.text_encoder)
    check_steering(kind, steering, options.frames)
    embedded = []
    if kind.text is not None and steering.text_encoder is not None:
        embedded = encode_schedule(texts, steering.text_encoder, kind.text, device)
    names = kind.names if kind.kind == ACTIONS else ()
    compared = options.layout == COMPARE
    request = Request(options.history_frames, compared, options.frames if compared else 0, options.split, device, names)
    session = Session(run, settings, options, request, kind, steering, embedded, stdout, state.is_main_process)
    mine = jobs[state.process_index :: state.num_processes]
    with StopSignals() as signals:
        for number, job in enumerate(mine, 1):
            generate_one(session, job, signals)
            if signals.received is not None:
                print(f"{len(mine) - number} of {len(mine)} videos were not begun.", file=sys.stderr)
                raise SystemExit(INTERRUPTED)
    state.destroy_process_group()


def rollout_settings(run: "LoadedRun", options: argparse.Namespace) -> "RolloutSettings":
    """The run's settings, replaced by those of --settings, and these by --steps and --window."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    changes = {"num_steps": options.steps, "window_frames": options.window}
    merged = OmegaConf.structured(run.rollout)
    try:
        if options.settings is not None:
            merged = OmegaConf.merge(merged, OmegaConf.load(options.settings))
        merged = OmegaConf.merge(merged, {name: value for name, value in changes.items() if value is not None})
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"--settings {options.settings}: {str(error).splitlines()[0]}") from error
    settings: RolloutSettings = OmegaConf.to_object(merged)  # type: ignore[assignment]
    for option, value in (("--steps", settings.num_steps), ("--window", settings.window_frames)):
        if value < 1:
            raise ValueError(f"{option} {value} must be at least 1.")
    return settings


def check_memory(run: "LoadedRun", settings: "RolloutSettings", batch_size: int) -> None:
    """ValueError, with the number of bytes, for a window whose cache memory has no room for."""
    from video_mirai.models.cache_size import check_cache_fits
    from video_mirai.sampling.rollout import cache_sizes

    factor = run.codec.spatial_factor
    tokens = run.model.tokens_per_frame(run.clips.height // factor, run.clips.width // factor)
    check_cache_fits(run.model, cache_sizes(settings, batch_size, tokens))


def generate_one(session: Session, job: Job, signals: "StopSignals") -> None:
    """Continues one history with the seeds of one file, and writes it until it is whole or a signal comes.

    Raises:
        SystemExit: exit code 1, one line and a file that holds all before: latents that are no numbers, or a full disk.
    """
    from tqdm import tqdm

    from video_mirai.media import RawWriter, WriteError, open_writer
    from video_mirai.sampling.state import save_state
    from video_mirai.sampling.stream import NonFiniteLatents

    options = session.options
    history = read_history(session.run, job.source, session.request)
    stream = open_stream(session, job)
    fps = options.fps if options.fps is not None else history.fps
    writer = RawWriter(session.stdout, fps) if session.stdout is not None else open_writer(job.out, fps)
    bar = tqdm(total=options.frames, unit="frame", desc=job.out.name, disable=not session.is_main)
    try:
        with closing(arranged(session, job, history, stream)) as pictures, writer, bar:
            writer.append(next(pictures))
            given = writer.num_frames
            while writer.num_frames < given + options.frames and signals.received is None:
                frames = next(pictures)[: given + options.frames - writer.num_frames]
                writer.append(frames)
                bar.update(len(frames))
    except NonFiniteLatents as error:
        raise SystemExit(
            f"error: frame {writer.num_frames} of {job.out}: the latents are NaN or infinite; the {writer.num_frames} "
            f"frames before it are kept. Another seed, precision fp32 or other weights may help."
        ) from error
    except WriteError as error:
        raise SystemExit(f"error: {error}") from error
    if options.save_state is not None:
        save_state(options.save_state, stream.state, stream.generator, stream.decoder)
    generated = writer.num_frames - given
    if generated < options.frames:
        print(
            f"stopped by {signals.received}: {job.out} is finished and holds {given} frames of history and {generated} "
            f"of {options.frames} generated.",
            file=sys.stderr,
        )
    else:
        print(f"{job.out}: {given} frames of history, {generated} generated, {fps:g} fps", flush=True)


def open_stream(session: Session, job: Job) -> "SavedRollout":
    """Where the rollout of a file begins: as --load-state left it, or anew."""
    from video_mirai.evaluation.generation import clip_generator
    from video_mirai.models.decoder_memory import DecoderMemory
    from video_mirai.sampling.state import RolloutState, SavedRollout, load_state

    if session.options.load_state is not None:
        return load_state(session.options.load_state, session.run.model)
    generators = [clip_generator(seed, job.source.number, session.request.device) for seed in job.seeds]
    return SavedRollout(RolloutState(), generators, DecoderMemory())


def arranged(
    session: Session, job: Job, history: History, stream: "SavedRollout"
) -> "Generator[np.ndarray, None, None]":
    """Pictures (T, H', W', 3) uint8 of the file: those of the history, then those of one chunk after another."""
    import numpy as np

    from video_mirai.media import to_uint8
    from video_mirai.sampling.rollout import rollout

    options, device = session.options, session.request.device
    latents = history.latents.expand(len(job.seeds), -1, -1, -1, -1)
    context: Tensor | ContextFn | None
    if session.texts:
        texts = [(frame, embedding.expand(len(job.seeds), -1, -1)) for frame, embedding in session.texts]
        context = TextContexts(texts, latents.shape[1], session.run.codec.num_pixel_frames)
    else:
        context = steer(
            session.kind, session.steering, history.context, latents.shape[1], options.frames, len(job.seeds), device
        )
    chunks = rollout(
        session.run.model, latents, session.settings, stream.generator, context=context, state=stream.state
    )
    layout = Layout(options.layout, job.seeds, options.scale)
    with ExitStack() as stack:
        read_truth = None
        if options.layout == COMPARE:
            if history.open_truth is None:
                raise ValueError(f"--compare: no truth is known of {job.source.path or job.source.name}.")
            read_truth = stack.enter_context(history.open_truth())
        position = 0
        for part in session.run.codec.decode_stream(chain([latents], chunks), stream.decoder):
            videos = to_uint8(part)
            num_frames = videos.shape[1]
            truth = None if read_truth is None else dark_after(read_truth(position, num_frames), num_frames)
            position += num_frames
            yield layout(videos, truth) if num_frames else np.zeros((0, *videos.shape[2:]), np.uint8)


def dark_after(frames: "np.ndarray", num_frames: int) -> "np.ndarray":
    """(num_frames, H, W, 3): dark where there is no truth any more."""
    import numpy as np

    return np.pad(frames, ((0, num_frames - len(frames)), (0, 0), (0, 0), (0, 0)))


if __name__ == "__main__":
    run_script(main)
