"""Bytes of frames, and how far two pictures are apart."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def to_uint8(video: Tensor) -> np.ndarray:
    """Bytes of a video: (..., T, C, H, W) in [-1, 1] becomes (..., T, H, W, C) uint8; values outside are clamped."""
    scaled = video.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.movedim(-3, -1).cpu().numpy().astype(np.uint8)


def as_rgb(frames: np.ndarray | Tensor) -> np.ndarray:
    """(T, H, W, 3) uint8 of what this package takes; ValueError for anything else."""
    if isinstance(frames, Tensor):
        frames = to_uint8(frames) if frames.is_floating_point() else frames.cpu().numpy()
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[-1] not in (1, 3):
        raise ValueError(
            f"expected frames (T, H, W, 3 or 1) uint8, or a float tensor (T, 3 or 1, H, W) in [-1, 1]; "
            f"got {frames.shape} {frames.dtype}."
        )
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def psnr(error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of the difference (B, ...) of two pictures in [-1, 1], so of range 2."""
    return -10 * (error.flatten(1).square().mean(1).clamp_min(1e-10) / 4).log10()
