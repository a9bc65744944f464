"""Which writer a file's name asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from video_mirai.media.frame_writer import FrameWriter
from video_mirai.media.plain_writers import NumpyWriter, PngFolderWriter
from video_mirai.media.video_writer import VideoWriter

WRITERS: dict[str, Callable[[str | Path, float], FrameWriter]] = {
    ".gif": VideoWriter,
    ".mp4": VideoWriter,
    ".npy": NumpyWriter,
    ".png": PngFolderWriter,
}


def check_video_suffix(path: str | Path) -> str:
    """The file's suffix when it names a known format; ValueError listing the known ones otherwise."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise ValueError(f"cannot write '{path}': unknown video suffix '{suffix}'; known: {', '.join(WRITERS)}.")
    return suffix


def open_writer(path: str | Path, fps: float) -> FrameWriter:
    """The writer for the path's suffix; nothing is made before the first frame."""
    return WRITERS[check_video_suffix(path)](path, fps)


def write_video(path: str | Path, frames: np.ndarray | Tensor, fps: float) -> None:
    """Writes a whole video; the suffix chooses the format."""
    with open_writer(path, fps) as writer:
        writer.append(frames)


def write_gif(path: str | Path, frames: np.ndarray | Tensor, fps: float) -> None:
    """Writes an endlessly looping gif."""
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"write_gif got '{path}'; the name must end in .gif.")
    write_video(path, frames, fps)
