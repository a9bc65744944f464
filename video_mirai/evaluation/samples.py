"""Several samples of one history, generated with different noise: their mean, and the best and the worst of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mirai.evaluation.bootstrap import mean_over_rows
from video_mirai.evaluation.row_scores import VideoScores

# What compares a frame with the true one of its time, and whether higher is better.
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False}


class OfSamples(NamedTuple):
    """Mean over frames of each sample; then their mean, best and worst."""

    mean: float
    best: float
    worst: float


def of_samples(values: NDArray[np.floating], *, higher_is_better: bool) -> OfSamples:
    """A paired frame metric over N samples of one history: per frame, then the mean, best and worst of N.

    Best and worst are whole samples, by their mean over frames; a best frame here and a best frame there would be no
    video that was generated.

    Args:
        values: (samples, frames).
    Raises:
        ValueError: another shape, or NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"values has shape {values.shape}; expected (samples, frames).")
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinite numbers; leave failed samples out and say how many.")
    means = values.mean(axis=1)
    ends = (float(means.max()), float(means.min()))
    best, worst = ends if higher_is_better else ends[::-1]
    return OfSamples(float(means.mean()), best, worst)


def sample_keys(key: str) -> tuple[str, str]:
    """Names of a paired metric's best and worst sample."""
    return f"{key}_best", f"{key}_worst"


def merge_samples(samples: Sequence[VideoScores]) -> VideoScores:
    """The scores of one history: means over its samples, with the best and the worst of what is paired.

    Features are those of the first sample, so that a Frechet distance has as many generated clips as real ones.
    """
    first = samples[0]
    if len(samples) == 1:
        return first
    numbers = {key: _mean([sample.numbers[key] for sample in samples]) for key in first.numbers}
    for key, higher_is_better in HIGHER_IS_BETTER.items():
        if key in first.curves:
            found = of_samples(np.stack([s.curves[key] for s in samples]), higher_is_better=higher_is_better)
            numbers |= dict(zip(sample_keys(key), (found.best, found.worst), strict=True))
    curves = {key: mean_over_rows(np.stack([sample.curves[key] for sample in samples])) for key in first.curves}
    lags = {lag: _mean([sample.cosine_by_lag[lag] for sample in samples]) for lag in first.cosine_by_lag}
    return replace(first, numbers=numbers, curves=curves, cosine_by_lag=lags)


def _mean(values: Sequence[float]) -> float:
    """Mean of the samples that have the number; NaN where none has."""
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else math.nan
