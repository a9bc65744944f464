"""Where a rollout begins: video files, pictures, clips of the run's data set, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _steering import known_actions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from video_mirai.build import LoadedRun
    from video_mirai.data.video_protocol import OpenVideo

logger = logging.getLogger(__name__)

DATA_SET, NOTHING = "dataset", "none"
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SAME_RATE = 1e-3
ReadTruth = Callable[[int, int], "np.ndarray"]


class Source(NamedTuple):
    """number: with a seed it fixes the noise; name: in file names; path: of a file, None for anything else."""

    number: int
    name: str
    path: Path | None


class Request(NamedTuple):
    """What is asked of every history.

    num_frames: pixel frames; None = as in the run's validation, and 1 for a picture.
    from_start: the first frames of a file, so that the frames after them are known, instead of the last ones.
    truth_frames: pixel frames after them that are shown beside the rollout; 0 = none.
    actions: names of those that are looked for beside a file.
    """

    num_frames: int | None
    from_start: bool
    truth_frames: int
    split: str
    device: torch.device
    actions: tuple[str, ...]


class History(NamedTuple):
    """latents (1, F, C, h, w), F may be 0.

    context: what is known of it: (1, L, D), or (1, frames known, L, D) with the history's frames first; None = nothing.
    open_truth: opens a function that gives frames first..first+count of the true video, the history's first frame being
        0: (count, H, W, 3) uint8, fewer where it ends. None = no truth is known.
    """

    latents: Tensor
    fps: float
    context: Tensor | None
    open_truth: Callable[[], AbstractContextManager[ReadTruth]] | None


def list_sources(words: Sequence[str], indices: Sequence[int], split: str) -> list[Source]:
    """What --history and --index name, in order; files of a folder sorted by path.

    Raises:
        FileNotFoundError, ValueError: a folder without videos, or a word that stands alone among others.
    """
    from video_mirai.data.video_list import list_videos

    if DATA_SET in words or NOTHING in words:
        if len(words) > 1:
            raise ValueError(f"--history {' '.join(words)}: '{DATA_SET}' and '{NOTHING}' go alone.")
        if words[0] == NOTHING:
            return [Source(0, NOTHING, None)]
        if len(set(indices)) < len(indices):
            raise ValueError(f"--index {' '.join(map(str, indices))}: every clip once.")
        return [Source(index, split, None) for index in indices]
    paths: list[Path] = []
    for word in words:
        path = Path(word)
        paths += [video.path for video in list_videos(path)] if path.is_dir() else [path]
    return [Source(number, path.stem, path) for number, path in enumerate(paths)]


def read_history(run: LoadedRun, source: Source, request: Request) -> History:
    """The history that a source gives, at the size and frame rate that the model was trained on.

    Raises:
        ValueError: missing, unreadable, too short, or a number of frames that it cannot have.
    """
    num_frames = _num_frames(run, source, request)
    if source.path is None and source.name == NOTHING:
        return History(_no_latents(run, request.device), run.clips.fps, None, None)
    if source.path is None:
        return _of_data_set(run, source, request, num_frames)
    if is_picture(source.path):
        return _of_picture(run, source.path, request, num_frames)
    return _of_video(run, source.path, request, num_frames)


def is_picture(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in PICTURES


def _num_frames(run: LoadedRun, source: Source, request: Request) -> int:
    """Pixel frames of the history; ValueError where the source cannot give so many."""
    asked = request.num_frames
    if asked is not None and asked < 0:
        raise ValueError(f"--history-frames {asked} must be at least 0.")
    most = None
    if source.path is None and source.name == NOTHING:
        most = 0
    elif source.path is not None and is_picture(source.path):
        most = 1
    if most is not None:
        if asked is not None and asked > most:
            raise ValueError(f"--history-frames {asked}: {source.path or source.name} is {most} frames of history.")
        return most if asked is None else asked
    return run.codec.num_pixel_frames(run.config.validation.history_frames) if asked is None else asked


def _no_latents(run: LoadedRun, device: torch.device) -> Tensor:
    import torch

    factor = run.codec.spatial_factor
    height, width = run.clips.height // factor, run.clips.width // factor
    return torch.zeros(1, 0, run.codec.latent_channels, height, width, device=device)


def _of_data_set(run: LoadedRun, source: Source, request: Request, num_frames: int) -> History:
    """The beginning of a clip as long as those that the model was trained on; a scene goes on for as long as asked."""
    from video_mirai.build import build_data_set
    from video_mirai.media import to_uint8

    codec, config = run.codec, run.config.data
    is_encoded = config.kind == "latent_shards"
    wanted = codec.num_latent_frames(num_frames) if is_encoded else num_frames
    trained_on = {"video_folder": config.video_folder, "scenes": config.scenes, "latent_shards": config.latent_shards}
    settings = trained_on[config.kind]
    assert settings is not None, "the run was trained on it"
    known = wanted + request.truth_frames if config.kind == "scenes" else wanted
    data = build_data_set(config, split=request.split, num_frames=max(settings.num_frames, known))
    if not 0 <= source.number < len(data):
        raise ValueError(f"--index {source.number} is not in 0..{len(data) - 1} (split {request.split}).")
    sample = data[source.number]
    context = sample["context"][None] if "context" in sample else None
    if is_encoded:
        clip = sample["latents"][None].to(request.device)
        latents, true_video = clip[:, :wanted], codec.decode(clip)
    else:
        true_video = sample["video"][None]
        latents = _encode(run, to_uint8(true_video)[0, :num_frames], request.device)
    frames = to_uint8(true_video)[0]
    return History(
        latents,
        data.fps,
        context,
        lambda: nullcontext(lambda first, count: frames[first : first + count]),
    )


def _of_picture(run: LoadedRun, path: Path, request: Request, num_frames: int) -> History:
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    from video_mirai.data.video_reader import UnreadableVideo, fit_frames

    if not path.is_file():
        raise UnreadableVideo(path, "no such file")
    try:
        with Image.open(path) as opened:
            picture = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UnreadableVideo(path, f"no picture that can be read ({error})") from error
    height, width, fps = run.clips
    _say_resizing(path, picture.shape[0], picture.shape[1], height, width)
    latents = _encode(run, fit_frames(picture[None], height, width)[:num_frames], request.device)
    return History(latents, fps, None, None)


def _of_video(run: LoadedRun, path: Path, request: Request, num_frames: int) -> History:
    """The last frames of a video file, or its first."""
    from video_mirai.data.video_folder import clip_indices, count_starts
    from video_mirai.data.video_reader import UnreadableVideo, fit_frames, open_video

    height, width, fps = run.clips
    with open_video(path, _backend(run)) as video:
        times = video.timestamps
        num_starts = count_starts(times, max(1, num_frames), fps)
        if num_starts == 0:
            raise UnreadableVideo(
                path, f"too short: {len(times)} frames, history needs {num_frames} at {fps:g} fps; try --history-frames"
            )
        info = video.info
        start = 0 if request.from_start else num_starts - 1
        indices = clip_indices(times, start, num_frames, fps)
        latents = _no_latents(run, request.device)
        if num_frames:
            _say_resizing(path, info.height, info.width, height, width)
            latents = _encode(run, fit_frames(video.read(indices), height, width), request.device)
        if abs(info.fps / fps - 1) > SAME_RATE:
            logger.info("%s: %g frames a second taken as %g (the nearest frames in time)", path, info.fps, fps)
        context = known_actions(request.actions, path, times, fps, start, num_frames, to_the_end=request.from_start)
    return History(latents, fps, context, (lambda: _video_truth(run, path)) if request.from_start else None)


@contextmanager
def _video_truth(run: LoadedRun, path: Path) -> Iterator[ReadTruth]:
    """The file from its first frame on, read piece by piece."""
    import numpy as np

    from video_mirai.data.video_reader import fit_frames, open_video

    height, width, fps = run.clips
    with open_video(path, _backend(run)) as video:

        def read(first: int, count: int) -> np.ndarray:
            indices = _frames_at(video, first, count, fps)
            if not indices:
                return np.zeros((0, height, width, 3), np.uint8)
            return fit_frames(video.read(indices), height, width)

        yield read


def _frames_at(video: OpenVideo, first: int, count: int, fps: float) -> list[int]:
    """Frames of the file nearest to first / fps, ..., (first + count - 1) / fps seconds; fewer where it ends."""
    import numpy as np

    from video_mirai.data.video_folder import nearest

    times = (first + np.arange(count)) / fps
    half_frame = 0.5 * video.timestamps[-1] / max(1, len(video.timestamps) - 1)
    return nearest(video.timestamps, times[times <= video.timestamps[-1] + half_frame]).tolist()


def _encode(run: LoadedRun, frames: np.ndarray, device: torch.device) -> Tensor:
    """(T, H, W, 3) uint8 -> latents (1, F, C, h, w)."""
    import torch

    if not len(frames):
        return _no_latents(run, device)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return run.codec.encode(pixels[None].to(device))


def _backend(run: LoadedRun) -> str:
    from video_mirai.data.video_folder import VideoFolderConfig

    folder = run.config.data.video_folder
    return VideoFolderConfig.backend if folder is None else folder.backend


def _say_resizing(path: Path, height: int, width: int, new_height: int, new_width: int) -> None:
    if (height, width) != (new_height, new_width):
        logger.info("%s: %dx%d resized to %dx%d (the shorter side is fitted, the centre kept)",
                    path, width, height, new_width, new_height)  # fmt: skip
