"""Frames of one video file through decord, or through PyAV where decord has no wheel.

Open a video where it is read and close it there: a decord reader that is carried across a fork hangs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.nn.functional import interpolate

logger = logging.getLogger(__name__)

MODULES = {"decord": "decord", "pyav": "av"}


class WorkerError(ValueError):
    """A ValueError that stays one line on its way out of a DataLoader worker.

    The DataLoader rebuilds a worker's exception from the text of its traceback; only the message is wanted.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit(f".{type(self).__name__}: ", 1)[-1].strip())


class UnreadableVideo(WorkerError):
    """A file that cannot give the frames asked for; the message names the path and the reason.

    path, reason: apart; empty and the whole message in an exception that a DataLoader worker has passed on.
    """

    def __init__(self, path: str | Path, reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else str(path))
        self.path = str(path) if reason else ""
        self.reason = reason or str(self)


class VideoInfo(NamedTuple):
    """num_frames; fps: the average frame rate; height, width: pixels."""

    num_frames: int
    fps: float
    height: int
    width: int


class OpenVideo(Protocol):
    """A video that is open for reading.

    timestamps: (num_frames,) seconds since the first frame, ascending.
    """

    timestamps: np.ndarray

    @property
    def info(self) -> VideoInfo:
        """What the container says; decord has to decode a frame for it."""
        ...

    def read(self, frame_indices: Sequence[int]) -> np.ndarray:
        """Frames (T, H, W, 3) uint8 RGB, in the order asked for; UnreadableVideo where decoding fails."""
        ...


def probe(path: str | Path, backend: str = "decord") -> VideoInfo:
    """What the container says about its video; UnreadableVideo where it cannot be opened."""
    with open_video(path, backend) as video:
        return video.info


def read_clip(
    path: str | Path, frame_indices: Sequence[int], height: int, width: int, backend: str = "decord"
) -> np.ndarray:
    """Frames (T, height, width, 3) uint8 RGB, resized and cropped by `fit_frames`; UnreadableVideo on failure."""
    with open_video(path, backend) as video:
        return fit_frames(video.read(frame_indices), height, width)


def fit_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (T, H, W, 3) uint8 with antialiasing until it just covers (height, width), then crop the centre."""
    source_height, source_width = frames.shape[1:3]
    if (source_height, source_width) == (height, width):
        return frames
    scale = max(height / source_height, width / source_width)
    scaled_height, scaled_width = max(height, round(source_height * scale)), max(width, round(source_width * scale))
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, 3, H, W)
    pixels = interpolate(pixels, (scaled_height, scaled_width), mode="bilinear", antialias=True)
    top, left = (scaled_height - height) // 2, (scaled_width - width) // 2
    return pixels[:, :, top : top + height, left : left + width].permute(0, 2, 3, 1).contiguous().numpy()


def open_video(path: str | Path, backend: str = "decord") -> AbstractContextManager[OpenVideo]:
    """The video, open until the context ends.

    Raises UnreadableVideo where it cannot be opened, ValueError for a backend that is unknown or not installed.
    """
    reader = READERS[available_backend(backend)]
    return reader(_existing_file(path))


@lru_cache
def available_backend(backend: str) -> str:
    """The backend that serves a request for `backend`: PyAV where decord is missing, which is logged once."""
    if backend not in MODULES:
        raise ValueError(f"unknown video backend {backend!r}; known: {', '.join(MODULES)}.")
    if find_spec(MODULES[backend]) is not None:
        return backend
    if backend == "decord" and find_spec(MODULES["pyav"]) is not None:
        logger.warning("decord is not installed; videos are read through PyAV.")
        return "pyav"
    raise ValueError(f"video backend {backend!r} needs the package {MODULES[backend]!r}, which is not installed.")


def _existing_file(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise UnreadableVideo(file, "is a folder" if file.is_dir() else "no such file")
    if file.stat().st_size == 0:
        raise UnreadableVideo(file, "empty file (0 bytes)")
    return file


@contextmanager
def _open_decord(path: Path) -> Iterator[OpenVideo]:
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # what it would print is raised as well
    try:
        yield _DecordVideo(path)
    except decord.DECORDError as error:
        raise UnreadableVideo(path, f"decoding failed ({_first_line(error)})") from error


class _DecordVideo:
    def __init__(self, path: Path) -> None:
        import decord

        self._path = path
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        except (RuntimeError, decord.DECORDError) as error:
            raise UnreadableVideo(path, f"not a readable video ({_first_line(error)})") from error
        num_frames = len(self._reader)
        if num_frames == 0:
            raise UnreadableVideo(path, "has no frames")
        starts = self._reader.get_frame_timestamp(range(num_frames))[:, 0].astype(np.float64)  # (num_frames,)
        self.timestamps = starts - starts[0]

    @property
    def info(self) -> VideoInfo:
        height, width = self._reader[0].shape[:2]
        return VideoInfo(len(self.timestamps), float(self._reader.get_avg_fps()), height, width)

    def read(self, frame_indices: Sequence[int]) -> np.ndarray:
        _check_indices(self._path, frame_indices, len(self.timestamps))
        return self._reader.get_batch(list(frame_indices)).asnumpy()


@contextmanager
def _open_pyav(path: Path) -> Iterator[OpenVideo]:
    import av

    try:
        with av.open(str(path)) as container:
            yield _PyavVideo(path, container)
    except (av.FFmpegError, EOFError) as error:
        raise UnreadableVideo(path, f"not a readable video, or decoding failed ({_first_line(error)})") from error


class _PyavVideo:
    def __init__(self, path: Path, container: Any) -> None:
        if not container.streams.video:
            raise UnreadableVideo(path, "has no video stream")
        self._path = path
        self._container = container
        self._stream = container.streams.video[0]
        self._stream.codec_context.options = {"err_detect": "explode"}  # else damage is painted over
        # Packets come in decoding order; nothing is decoded here.
        shown = (packet.pts for packet in container.demux(self._stream) if not packet.is_discard)
        self._pts = sorted(pts for pts in shown if pts is not None)
        if not self._pts:
            raise UnreadableVideo(path, "has no frames")
        self.timestamps = (np.array(self._pts, dtype=np.float64) - self._pts[0]) * float(self._stream.time_base)

    @property
    def info(self) -> VideoInfo:
        rate = self._stream.average_rate or self._stream.guessed_rate
        if not rate:
            raise UnreadableVideo(self._path, "does not say its frame rate")
        context = self._stream.codec_context
        return VideoInfo(len(self._pts), float(rate), context.height, context.width)

    def read(self, frame_indices: Sequence[int]) -> np.ndarray:
        _check_indices(self._path, frame_indices, len(self._pts))
        wanted = {self._pts[index] for index in frame_indices}
        last = max(wanted)
        self._container.seek(min(wanted), stream=self._stream)  # to the key frame at or before it
        found: dict[int, np.ndarray] = {}
        for frame in self._container.decode(self._stream):
            if frame.pts in wanted:
                found[frame.pts] = frame.to_ndarray(format="rgb24")
            if frame.pts is not None and frame.pts >= last:
                break
        missing = len(wanted) - len(found)
        if missing:
            raise UnreadableVideo(self._path, f"decoding failed ({missing} of {len(wanted)} frames are missing)")
        return np.stack([found[self._pts[index]] for index in frame_indices])


READERS: dict[str, Callable[[Path], AbstractContextManager[OpenVideo]]] = {
    "decord": _open_decord,
    "pyav": _open_pyav,
}


def _check_indices(path: Path, frame_indices: Sequence[int], num_frames: int) -> None:
    if not len(frame_indices):
        raise ValueError(f"{path}: no frames were asked for.")
    if min(frame_indices) < 0 or max(frame_indices) >= num_frames:
        outside = min(frame_indices) if min(frame_indices) < 0 else max(frame_indices)
        raise UnreadableVideo(path, f"frame {outside} was asked for; it has {num_frames} frames")


def _first_line(error: BaseException) -> str:
    """The line of an error that says something; decord's go on with a native stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[0].rsplit("Check failed: ", 1)[-1].removesuffix("...")
