"""Video frames through decord."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from video_mirai.data.video_protocol import (
    Change,
    OpenVideo,
    UnreadableVideo,
    VideoInfo,
    check_indices,
    first_line,
    unchanged,
)

# decord gives a neighbour for a frame that it cannot decode; this share of the frames is less than one.
NO_REPEATS = 1e-9


@contextmanager
def open_decord(path: Path) -> Iterator[OpenVideo]:
    """The video, open until the context ends; UnreadableVideo where it cannot be opened.

    Its reader is freed there and then. One that stays in a reference cycle, as errors with their tracebacks make them,
    may be collected in a forked process, which crashes it.
    """
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # what it would print is raised as well
    video = _DecordVideo(path)
    try:
        video.open()
        yield video
    finally:
        video.close()


class _DecordVideo:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: Any = None
        self.timestamps = np.zeros(0)

    def open(self) -> None:
        import decord

        path = self._path
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, fault_tol=NO_REPEATS)
            num_frames = len(self._reader)
            if num_frames == 0:
                raise UnreadableVideo(path, "has no frames")
            starts = self._reader.get_frame_timestamp(range(num_frames))[:, 0].astype(np.float64)  # (num_frames,)
        except (RuntimeError, decord.DECORDError) as error:
            if "cannot find video stream" in str(error):
                raise UnreadableVideo(path, "has no video stream") from error.with_traceback(None)
            reason = f"not a readable video ({first_line(error)})"
            raise UnreadableVideo(path, reason) from error.with_traceback(None)
        self.timestamps = starts - starts[0]

    def close(self) -> None:
        self._reader = None

    @property
    def key_frames(self) -> np.ndarray:
        return np.array(self._reader.get_key_indices())

    @property
    def info(self) -> VideoInfo:
        height, width = self._decode([0]).shape[1:3]
        return VideoInfo(len(self.timestamps), float(self._reader.get_avg_fps()), height, width)

    def read(self, frame_indices: Sequence[int], *, reads_on: bool = False, change: Change = unchanged) -> np.ndarray:
        check_indices(self._path, frame_indices, len(self.timestamps))
        return change(self._decode(frame_indices))

    def _decode(self, frame_indices: Sequence[int]) -> np.ndarray:
        import decord
        from decord._ffi.base import DECORDLimitReachedError

        try:
            return self._reader.get_batch(list(frame_indices)).asnumpy()
        except (RuntimeError, decord.DECORDError, DECORDLimitReachedError) as error:
            reason = f"decoding failed ({first_line(error)})"
            raise UnreadableVideo(self._path, reason) from error.with_traceback(None)  # whose frames hold the reader
