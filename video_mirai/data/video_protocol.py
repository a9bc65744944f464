"""What every video backend gives, and the errors it raises."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from video_mirai.data.clip_dataset import BadItem


class UnreadableVideo(BadItem):
    """A file that cannot give the frames asked for; the message names the path and the reason."""


class VideoInfo(NamedTuple):
    """num_frames; fps: the average frame rate; height, width: pixels."""

    num_frames: int
    fps: float
    height: int
    width: int


Change = Callable[[np.ndarray], np.ndarray]  # of some frames (T, H, W, 3) to as many


def unchanged(frames: np.ndarray) -> np.ndarray:
    return frames


class OpenVideo(Protocol):
    """A video that is open for reading.

    timestamps: (num_frames,) seconds since the first frame, ascending.
    key_frames: numbers of the frames that decoding can start at, ascending.
    """

    timestamps: np.ndarray

    @property
    def key_frames(self) -> np.ndarray: ...

    @property
    def info(self) -> VideoInfo:
        """What the container says, and the size of a frame, which is decoded for it."""
        ...

    def read(self, frame_indices: Sequence[int], *, reads_on: bool = False, change: Change = unchanged) -> np.ndarray:
        """Frames (T, H, W, 3) uint8 RGB, in the order asked for; UnreadableVideo where decoding fails.

        reads_on: the frames that follow these are read next, which then costs no more than decoding them.
        change: what becomes of the frames, some at a time, so that PyAV need not keep all large ones.
        """
        ...


def check_indices(path: Path, frame_indices: Sequence[int], num_frames: int) -> None:
    """Raises ValueError for no frames at all, UnreadableVideo for one that the file doesn't have."""
    if not len(frame_indices):
        raise ValueError(f"{path}: no frames were asked for.")
    if min(frame_indices) < 0 or max(frame_indices) >= num_frames:
        outside = min(frame_indices) if min(frame_indices) < 0 else max(frame_indices)
        raise UnreadableVideo(path, f"frame {outside} was asked for; it has {num_frames} frames")


def first_line(error: BaseException) -> str:
    """The line of an error that says something; decord's have a place in its source before and a stack trace after."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = lines[0].rsplit("Check failed: ", 1)[-1].removesuffix("...")
    return re.sub(r"^\[\d\d:\d\d:\d\d\] \S+: (\[.*?\])?\s*", "", said) or said
