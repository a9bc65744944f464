"""What every writer of frames does: take them as they come, in memory that does not depend on how many there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from av.error import FFmpegError
from torch import Tensor
from typing_extensions import Buffer, Self

from video_mirai.media.pixels import as_rgb


class WriteError(OSError):
    """A disk that takes no more. What is on it already stays as it is, and can be read."""

    def __init__(self, path: Path, num_frames: int, reason: Exception) -> None:
        known = reason.strerror if isinstance(reason, OSError) else None
        said = (known or str(reason) or type(reason).__name__).rstrip(".")
        super().__init__(f"cannot go on writing {path}: {said}; {num_frames} frames were written before.")


class FrameWriter(ABC):
    """Writes frames of one size to one place. A context manager.

    Attributes:
        path: where to; parent folders are made with the first frame.
        num_frames: frames taken so far.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        if not 0 < fps < float("inf"):
            raise ValueError(f"fps={fps} must be positive.")
        self.path = Path(path)
        self.fps = float(fps)
        self.num_frames = 0
        self._frame_shape: tuple[int, ...] | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, frames: np.ndarray | Tensor) -> None:
        """Adds (T, H, W, C) uint8 or (T, C, H, W) float frames in [-1, 1]; C is 3 or 1, sizes equal throughout.

        Raises:
            ValueError: frames of another kind or size.
            OSError: the place cannot be written at all. WriteError, later: it takes no more.
        """
        assert not self._is_closed, "append after close"
        frames = as_rgb(frames)
        if not len(frames):
            return
        if self._frame_shape is None:
            self._open(*frames.shape[1:3])
            self._frame_shape = frames.shape[1:]
        if frames.shape[1:] != self._frame_shape:
            raise ValueError(f"'{self.path}' holds frames of {self._frame_shape} (H, W, C); got {frames.shape[1:]}.")
        try:
            for frame in np.ascontiguousarray(frames):
                self._write(frame)
                self.num_frames += 1
        except BrokenPipeError:
            self._is_closed = True
            raise
        except (OSError, FFmpegError) as error:
            self._is_closed = True
            self._abandon()
            raise WriteError(self.path, self.num_frames, error) from error

    def close(self) -> None:
        """Finishes the file; without a single frame none is made. WriteError where that fails."""
        if self._is_closed or self._frame_shape is None:
            return
        self._is_closed = True
        try:
            self._finish()
        except (OSError, FFmpegError) as error:
            self._abandon()
            raise WriteError(self.path, self.num_frames, error) from error

    @abstractmethod
    def _open(self, height: int, width: int) -> None:
        """Makes the place ready for frames of this size."""

    @abstractmethod
    def _write(self, frame: np.ndarray) -> None:
        """Takes one contiguous frame (H, W, 3) uint8."""

    @abstractmethod
    def _finish(self) -> None:
        """After the last frame."""

    @abstractmethod
    def _abandon(self) -> None:
        """After a failure: lets go of what is open; raises nothing."""


def write_all(write: Callable[[memoryview], int | None], content: Buffer) -> None:
    """To an unbuffered stream, of which a pipe or a disk may take a part at a time."""
    left = memoryview(content)
    while left:
        left = left[write(left) or 0 :]
