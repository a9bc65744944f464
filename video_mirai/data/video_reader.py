"""Frames of one video file, through decord or PyAV.

Open a video where it is read and close it there: a decord reader that is carried across a fork hangs.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.nn.functional import interpolate

from video_mirai.data.decord_video import open_decord
from video_mirai.data.pyav_video import claimed_frames, open_pyav
from video_mirai.data.video_protocol import Change, OpenVideo, UnreadableVideo, VideoInfo, check_indices, unchanged

__all__ = [
    "READERS",
    "OpenVideo",
    "UnreadableVideo",
    "VideoInfo",
    "available_backend",
    "fit_frames",
    "open_video",
    "probe",
    "read_clip",
]

logger = logging.getLogger(__name__)

SAME_TIME = 1e-3  # seconds, between two backends

Result = TypeVar("Result")
_only_pyav: set[str] = set()  # files that decord has failed on in this process, and PyAV has not


def probe(path: str | Path, backend: str = "decord") -> VideoInfo:
    """What the container says about its video; UnreadableVideo where it cannot be opened."""
    with open_video(path, backend) as video:
        return video.info


def read_clip(
    path: str | Path, frame_indices: Sequence[int], height: int, width: int, backend: str = "decord"
) -> np.ndarray:
    """Frames (T, height, width, 3) uint8 RGB, resized and cropped by `fit_frames`; UnreadableVideo on failure."""
    with open_video(path, backend) as video:
        return video.read(frame_indices, change=partial(fit_frames, height=height, width=width))


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

    Raises UnreadableVideo where it cannot be opened, ValueError for an unknown backend.
    """
    reader = READERS[available_backend(backend)]
    return reader(_existing_file(path))


@lru_cache
def available_backend(backend: str) -> str:
    """The backend that serves a request for `backend`: PyAV where decord is missing, which is logged once."""
    if backend not in READERS:
        raise ValueError(f"unknown video backend {backend!r}; known: {', '.join(READERS)}.")
    if backend == "decord" and find_spec("decord") is None:
        logger.warning("decord is not installed; videos are read through PyAV.")
        return "pyav"
    return backend


def _existing_file(path: str | Path) -> Path:
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise UnreadableVideo(file, "no such file") from error
    except (OSError, ValueError) as error:
        raise UnreadableVideo(file, f"cannot be opened ({error})") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideo(file, "is a folder" if stat.S_ISDIR(status.st_mode) else "is not an ordinary file")
    if status.st_size == 0:
        raise UnreadableVideo(file, "empty file (0 bytes)")
    return file


@contextmanager
def _open_decord_or_pyav(path: Path) -> Iterator[OpenVideo]:
    with ExitStack() as stack:
        yield _DecordOrPyav(path, stack)


class _DecordOrPyav:
    """decord's frames; PyAV's where decord fails on a file that PyAV reads without an error.

    Damage stays an error: PyAV, which stops at the first damaged packet, has to decode the very frames asked for.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack
        self._is_decord = str(path) not in _only_pyav
        self._failure: UnreadableVideo | None = None  # decord's
        try:
            if self._is_decord:
                _check_claims(path, path.stat().st_size)
            self._video = stack.enter_context(open_decord(path) if self._is_decord else open_pyav(path))
        except UnreadableVideo as failure:
            self._video = self._pyav_instead(failure)
        self.timestamps = self._video.timestamps

    @property
    def key_frames(self) -> np.ndarray:
        return self._video.key_frames

    @property
    def info(self) -> VideoInfo:
        return self._ask(lambda video: video.info)

    def read(self, frame_indices: Sequence[int], *, reads_on: bool = False, change: Change = unchanged) -> np.ndarray:
        check_indices(self._path, frame_indices, len(self.timestamps))
        return self._ask(lambda video: video.read(frame_indices, reads_on=reads_on, change=change))

    def _ask(self, question: Callable[[OpenVideo], Result]) -> Result:
        try:
            answer = question(self._video)
        except UnreadableVideo as failure:
            video = self._pyav_instead(failure)
            # A frame number that was chosen by decord's time stamps must mean the same frame.
            times = self.timestamps
            if len(times) != len(video.timestamps) or not np.allclose(times, video.timestamps, rtol=0, atol=SAME_TIME):
                raise
            try:
                answer = question(video)
            except UnreadableVideo:
                raise failure from None
            self._video = video
        if self._failure is not None and str(self._path) not in _only_pyav:
            _only_pyav.add(str(self._path))
            logger.warning("decord cannot read %s; it is read through PyAV", self._failure)
        return answer

    def _pyav_instead(self, failure: UnreadableVideo) -> OpenVideo:
        """The file through PyAV; raises decord's failure where PyAV cannot open the file either."""
        if not self._is_decord:
            raise failure
        self._is_decord = False
        self._failure = failure
        try:
            return self._stack.enter_context(open_pyav(self._path))
        except UnreadableVideo:
            raise failure from None


@lru_cache(maxsize=100_000)
def _check_claims(path: Path, num_bytes: int) -> None:
    """Raises UnreadableVideo where the header claims more frames than the file has bytes.

    decord reserves memory for as many as are claimed, and ends the process when it gets none.
    """
    claimed = claimed_frames(path)
    if claimed > num_bytes:
        raise UnreadableVideo(path, f"claims {claimed:.3g} frames in {num_bytes} bytes")


READERS: dict[str, Callable[[Path], AbstractContextManager[OpenVideo]]] = {
    "decord": _open_decord_or_pyav,
    "pyav": open_pyav,
}
