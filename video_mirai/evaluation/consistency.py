"""How well frames stay themselves over time, and how much moves meanwhile.

A frozen video wins every consistency, so report `dynamic_degree` beside each.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from video_mirai.evaluation.frame_quality import LUMA_WEIGHTS, as_array, check_frames, frame_differences

# Name of the built-in, weight-free frame features, to be stated beside every number made with them.
BUILTIN_FRAME_FEATURES = "grid_colour_gradient"
LAGS = (1, 2, 5, 10, 20, 50)

_COLOUR_CELLS = 8
_GRADIENT_CELLS = 4
_GRADIENT_BINS = 8


class LagCosine(NamedTuple):
    """Mean cosine between frames `lags[k]` apart; both (K,)."""

    lags: tuple[int, ...]
    cosine: NDArray[np.float64]


def subject_consistency(frame_features: NDArray[np.floating]) -> float:
    """VBench's subject consistency of one video; VBench's features are DINO's, whose name belongs beside the number.

    Mean over frames i >= 1 of 1/2 (max(0, cos(f_i, f_{i-1})) + max(0, cos(f_i, f_0))).

    Args:
        frame_features: (T, D), one row a frame.
    Raises:
        ValueError: not (T, D) with T >= 2, NaN, or a row that is zero.
    """
    return float(consistency_per_frame(frame_features).mean())


def background_consistency(frame_features: NDArray[np.floating]) -> float:
    """VBench's background consistency: the formula of `subject_consistency`, by VBench applied to CLIP's features."""
    return subject_consistency(frame_features)


def consistency_per_frame(frame_features: NDArray[np.floating]) -> NDArray[np.float64]:
    """The terms of `subject_consistency` for frames 1 to T - 1, (T - 1,): a curve that can drift."""
    unit = _unit_rows(frame_features)
    to_previous = (unit[1:] * unit[:-1]).sum(axis=1)
    to_first = unit[1:] @ unit[0]
    return (np.maximum(to_previous, 0) + np.maximum(to_first, 0)) / 2


def cosine_by_lag(frame_features: NDArray[np.floating], lags: Sequence[int] = LAGS) -> LagCosine:
    """Mean cos(f_i, f_{i+lag}) for every lag the video is long enough for; adjacent frames alone hide drift."""
    unit = _unit_rows(frame_features)
    if min(lags) < 1:
        raise ValueError(f"lags={tuple(lags)}: a lag is at least 1 frame.")
    usable = tuple(lag for lag in lags if lag < len(unit))
    return LagCosine(usable, np.array([(unit[lag:] * unit[:-lag]).sum(axis=1).mean() for lag in usable]))


def dynamic_degree(frames: NDArray[np.floating]) -> float:
    """Mean absolute difference between neighbouring frames in grey levels (0 to 255); 0 for a frozen video.

    A pixel measure, not VBench's optical-flow one; noise raises it as motion does.

    Args:
        frames: (T, H, W, 3) in [0, 1], T >= 2.
    """
    return 255 * float(frame_differences(frames).mean())


def builtin_frame_features(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weight-free frame features `grid_colour_gradient`, (T, 322): where which colour is and which way edges run.

    Half of the squared norm is the colour of an 8 x 8 grid of cells about mid-grey, half the gradient orientation
    histogram (8 bins) of a 4 x 4 grid, so that neither a change of palette nor one of layout goes unseen.

    Args:
        frames: (T, H, W, 3) in [0, 1], at least 8 px a side.
    """
    frames = check_frames(frames, "frames")
    if min(frames.shape[1:3]) < _COLOUR_CELLS:
        raise ValueError(
            f"frames of {frames.shape[1:3]} px are smaller than the {_COLOUR_CELLS} x {_COLOUR_CELLS} grid."
        )
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, 3, H, W)
    colour = F.adaptive_avg_pool2d(pixels - 0.5, _COLOUR_CELLS).flatten(1)  # (T, 192)
    luma = (pixels * torch.tensor(LUMA_WEIGHTS, dtype=torch.float64)[:, None, None]).sum(dim=1)
    gradient = F.adaptive_avg_pool2d(_orientation_maps(luma), _GRADIENT_CELLS).flatten(1)  # (T, 128)
    return torch.cat([_normalised(colour), _normalised(gradient)], dim=1).numpy()


def _orientation_maps(luma: torch.Tensor) -> torch.Tensor:
    """(T, H, W) to (T, bins, H, W): each pixel's gradient magnitude, shared linearly between its two nearest bins."""
    down, right = torch.gradient(luma, dim=(1, 2))
    magnitude = torch.hypot(down, right)
    position = torch.atan2(down, right) / (2 * torch.pi) * _GRADIENT_BINS % _GRADIENT_BINS
    centres = torch.arange(_GRADIENT_BINS, dtype=luma.dtype)[:, None, None]
    away = (position[:, None] - centres).abs()
    away = torch.minimum(away, _GRADIENT_BINS - away)
    return magnitude[:, None] * (1 - away).clamp(min=0)


def _normalised(rows: torch.Tensor) -> torch.Tensor:
    # The offset keeps a flat grey frame finite: it has no colour and no edges, yet equals itself.
    padded = torch.cat([rows, rows.new_full((len(rows), 1), 1e-6)], dim=1)
    return F.normalize(padded, dim=1) / 2**0.5


def _unit_rows(features: NDArray[np.floating]) -> NDArray[np.float64]:
    features = as_array(features, "frame_features").astype(np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"frame_features has shape {features.shape}; expected (frames, feature width), 2 frames or more."
        )
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    # Written so that NaN fails too.
    if not ((norms > 0) & (norms < np.inf)).all():
        raise ValueError("frame_features hold a zero, NaN or infinite row, which has no direction to compare.")
    return features / norms
