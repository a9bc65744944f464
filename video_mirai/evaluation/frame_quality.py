"""What single frames and neighbouring frames of a video look like: against a reference, or on their own.

Frames are (T, H, W, 3) floats in [0, 1] everywhere here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

# Rec. 601 luma.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
# Two frames closer than half a grey level on average count as the same frame.
FREEZE_THRESHOLD = 0.5 / 255
# PSNR of equal frames is infinite; this keeps means and plots finite (the error of 8-bit rounding is 59 dB).
PSNR_CEILING = 100.0
# Wang et al. 2004, with the Gaussian window that torchmetrics and most others use; values range over 1.
SSIM_RADIUS, SSIM_SIGMA = 5, 1.5
SSIM_MIN_SIZE = 2 * SSIM_RADIUS + 1
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


class FrameStatistic(NamedTuple):
    """Mean and standard deviation over the pixels of each frame, both (T,)."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def psnr(reference: NDArray[np.floating], frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each frame in dB, (T,), peak 1, over all pixels and channels; at most 100 dB.

    Mean over frames of the frames' dB, not the dB of the mean error, is what reports should average.
    """
    reference, frames = check_frames(reference, "reference"), check_frames(frames, "frames")
    _check_same_shape(reference, frames)
    error = np.square(frames - reference).mean(axis=(1, 2, 3))
    return -10 * np.log10(np.maximum(error, 10 ** (-PSNR_CEILING / 10)))


def ssim(reference: NDArray[np.floating], frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """Structural similarity of each frame, (T,), as torchmetrics does by default: Gaussian 11 x 11, sigma 1.5, range 1.

    Raises:
        ValueError: shapes that differ, or frames smaller than the window.
    """
    reference, frames = check_frames(reference, "reference"), check_frames(frames, "frames")
    _check_same_shape(reference, frames)
    if min(frames.shape[1:3]) < SSIM_MIN_SIZE:
        raise ValueError(
            f"SSIM needs frames of at least {SSIM_MIN_SIZE} x {SSIM_MIN_SIZE} px, got {frames.shape[1:3]}."
        )
    x, y = reference.astype(np.float64), frames.astype(np.float64)
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    variance_x, variance_y = _gaussian(x * x) - mean_x**2, _gaussian(y * y) - mean_y**2
    covariance = _gaussian(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    contrast_structure = (2 * covariance + SSIM_C2) / (variance_x + variance_y + SSIM_C2)
    return (luminance * contrast_structure).mean(axis=(1, 2, 3))


def _gaussian(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean over rows and columns, one axis after the other, frames mirrored at their edges.

    11 + 11 taps instead of torchmetrics' 11 x 11 convolution, which takes some seventy times as long in float64.
    """
    return gaussian_filter(
        frames, (0, SSIM_SIGMA, SSIM_SIGMA, 0), radius=(0, SSIM_RADIUS, SSIM_RADIUS, 0), mode="mirror"
    )


def flicker(frames: NDArray[np.floating]) -> float:
    """Temporal flicker score (255 - mean |difference| in grey levels) / 255: 1 for a frozen video."""
    return 1 - float(frame_differences(frames).mean())


def frame_differences(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean absolute difference of each frame to the one before it, (T - 1,), in [0, 1]."""
    frames = check_frames(frames, "frames", min_frames=2)
    return np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))


def freeze_fraction(frames: NDArray[np.floating], threshold: float = FREEZE_THRESHOLD) -> float:
    """Share of frames whose mean absolute difference to the frame before is below `threshold`."""
    return float((frame_differences(frames) < threshold).mean())


def exposure(frames: NDArray[np.floating]) -> FrameStatistic:
    """Luma (Rec. 601) of each frame: mean is its brightness, deviation its contrast."""
    return _over_pixels(_luma(check_frames(frames, "frames")))


def saturation(frames: NDArray[np.floating]) -> FrameStatistic:
    """Saturation (max - min) / max over the channels, 0 for black, as in HSV."""
    frames = check_frames(frames, "frames")
    high, low = frames.max(axis=-1), frames.min(axis=-1)
    return _over_pixels((high - low) / np.maximum(high, 1e-12))


def sharpness(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """Variance of the Laplacian of the luma of each frame, (T,), in squared grey levels (0 to 255)."""
    luma = 255 * _luma(check_frames(frames, "frames"))
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)
    padded = F.pad(torch.from_numpy(luma)[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel[None, None]).var(dim=(1, 2, 3), correction=0).numpy()


def check_frames(frames: NDArray[np.floating], name: str, min_frames: int = 1) -> NDArray[np.float64]:
    """The frames as float64 (T, H, W, 3) in [0, 1], or one clear ValueError."""
    frames = as_array(frames, name)
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
        raise ValueError(f"{name} has shape {frames.shape}; expected (frames, height, width, 3).")
    if frames.dtype == np.uint8:
        raise ValueError(f"{name} holds uint8; divide by 255 first: values in [0, 1] are expected.")
    if len(frames) < min_frames:
        raise ValueError(f"{name} holds {len(frames)} frame(s); at least {min_frames} are needed.")
    values = np.ascontiguousarray(frames, dtype=np.float64)  # torch takes no negative strides
    # Written so that NaN fails too; a little slack for float32 rounding.
    if not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):
        raise ValueError(f"{name} ranges over [{values.min():.3g}, {values.max():.3g}]; values in [0, 1] are expected.")
    return values


def as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """The values as an array; one clear ValueError for a list of frames or rows whose sizes differ."""
    if isinstance(values, Sequence) and len({np.shape(value) for value in values}) > 1:
        shapes = sorted({np.shape(value) for value in values})
        raise ValueError(f"{name} has parts of different shapes {shapes}; resize or cut them to one.")
    return np.asarray(values)


def _check_same_shape(reference: NDArray[np.float64], frames: NDArray[np.float64]) -> None:
    if reference.shape != frames.shape:
        raise ValueError(f"reference {reference.shape} and frames {frames.shape} differ in shape; cut or resize one.")


def _luma(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    return frames @ np.array(LUMA_WEIGHTS)  # (T, H, W)


def _over_pixels(values: NDArray[np.float64]) -> FrameStatistic:
    return FrameStatistic(values.mean(axis=(1, 2)), values.std(axis=(1, 2)))
