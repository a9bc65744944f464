"""The frames of a video one after the other, made small, a block at a time: memory does not grow with the video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from video_mirai.data.video_protocol import OpenVideo, UnreadableVideo

BLOCK_BYTES = 64 << 20  # of frames in their full size, at a time
BLOCK_FRAMES = 256  # at most


def stream_frames(video: OpenVideo, frames: range, height: int, width: int) -> Iterator[np.ndarray]:
    """Blocks (T, height, width, 3) uint8 RGB of these frames, resized with antialiasing; the aspect ratio is not kept.

    Raises UnreadableVideo where decoding fails.
    """
    info = video.info
    block_frames = min(BLOCK_FRAMES, max(1, BLOCK_BYTES // (3 * info.height * info.width)))
    for start in range(0, len(frames), block_frames):
        pixels = torch.from_numpy(video.read(frames[start : start + block_frames])).permute(0, 3, 1, 2)
        small = interpolate(pixels, (height, width), mode="bilinear", antialias=True)
        yield small.permute(0, 2, 3, 1).contiguous().numpy()


def piece_frames(path: Path, num_frames: int, first_frame: int, end_frame: int | None) -> range:
    """The frames of a piece, to the file's end where none is given; UnreadableVideo where it has not as many."""
    end = num_frames if end_frame is None else end_frame
    if not first_frame < end <= num_frames:
        raise UnreadableVideo(path, f"frames {first_frame} to {end} were asked for; it has {num_frames} frames")
    return range(first_frame, end)


def piece_seconds(timestamps: np.ndarray, frames: range) -> float:
    """How long frames are shown; the last frame of a file as long as its frames are in the median."""
    if frames.stop < len(timestamps):
        return float(timestamps[frames.stop] - timestamps[frames.start])
    last = float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else 0.0
    return float(timestamps[-1] - timestamps[frames.start]) + last
