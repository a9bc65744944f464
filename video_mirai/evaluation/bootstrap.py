"""Intervals: bootstrap for means, paired bootstrap for differences, subsampling for set distances.

Videos are resampled, never clips: clips of one video are not independent. Where a method was trained with several
seeds, the seeds are resampled first and then the videos.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


class Interval(NamedTuple):
    """A value on the data itself with the percentile interval of its resampled values."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class Band(NamedTuple):
    """A curve with its pointwise percentile band: each (T,)."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def bootstrap(
    values: NDArray[np.floating],
    *,
    videos: Sequence[Hashable] | None = None,
    num_resamples: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean of the videos' means with its percentile interval.

    Args:
        values: (n,), one number a clip.
        videos: (n,) name of each clip's video; None when every clip is a video of its own.
    Raises:
        ValueError: fewer than two videos, lengths that differ, NaN.
    """
    means = _mean_per_video(values, videos)
    resampled = means[_resampled_rows(len(means), num_resamples, seed)].mean(axis=1)
    low, high = _percentiles(resampled, level)
    return Interval(float(means.mean()), float(low), float(high))


def paired_bootstrap(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    *,
    videos: Sequence[Hashable] | None = None,
    num_resamples: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean of `a - b` with its interval, where a[i] and b[i] come from the same history and seed; see `bootstrap`."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values must match one to one, got shapes {a.shape} and {b.shape}.")
    return bootstrap(a - b, videos=videos, num_resamples=num_resamples, level=level, seed=seed)


def seed_bootstrap(
    values: NDArray[np.floating], *, num_resamples: int = 2000, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Mean over training seeds and videos with its percentile interval.

    Every resample draws seeds, then videos. All its seeds have the same videos, as the data has, so that what a hard
    video does to every seed counts as the variance between videos that it is (Owen 2007, the pigeonhole bootstrap).

    Args:
        values: (seeds, videos), the same videos in every row.
    Raises:
        ValueError: fewer than two seeds, which say nothing about other seeds; fewer than two videos; NaN.
    """
    values = _seeds_and_videos(values)
    num_seeds, num_videos = values.shape
    rng = np.random.default_rng(seed)
    seeds = _counts(rng.integers(num_seeds, size=(num_resamples, num_seeds)), num_seeds)
    videos = _counts(rng.integers(num_videos, size=(num_resamples, num_videos)), num_videos)
    resampled = ((seeds @ values) * videos).sum(axis=1) / values.size
    low, high = _percentiles(resampled, level)
    return Interval(float(values.mean()), float(low), float(high))


def paired_seed_bootstrap(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    *,
    num_resamples: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean of `a - b` with its interval over training seeds and videos; see `seed_bootstrap`.

    Args:
        a, b: (seeds, videos); a[i, j] and b[i, j] come from the same training seed and the same history.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values must match one to one, got shapes {a.shape} and {b.shape}.")
    return seed_bootstrap(a - b, num_resamples=num_resamples, level=level, seed=seed)


def bootstrap_band(
    curves: NDArray[np.floating], *, num_resamples: int = 1000, level: float = LEVEL, seed: int = 0
) -> Band:
    """Mean curve over videos with its pointwise band. One video: a band of no width.

    Args:
        curves: (V, T), one row a video; NaN where a video has no number in a frame, which is averaged over the others.
    Raises:
        ValueError: another shape, an infinite value, or a frame in which no video has a number.
    """
    curves = np.asarray(curves, dtype=np.float64)
    if curves.ndim != 2 or curves.size == 0:
        raise ValueError(f"curves has shape {curves.shape}; expected (videos, frames).")
    known = ~np.isnan(curves)
    if np.isinf(curves).any() or not known.any(axis=0).all():
        raise ValueError("curves hold infinite values, or a frame in which every video is NaN.")
    counts = _counts(_resampled_rows(len(curves), num_resamples, seed), len(curves))
    sums, drawn = counts @ np.where(known, curves, 0), counts @ known
    # A draw of nothing but videos without a number says nothing about a frame.
    low, high = _percentiles(np.where(drawn > 0, sums / np.maximum(drawn, 1), np.nan), level)
    return Band(mean_over_rows(curves), low, high)


def mean_over_rows(curves: NDArray[np.floating]) -> NDArray[np.float64]:
    """(rows, T) -> (T,) without NaN; NaN in a frame where every row has none."""
    known = ~np.isnan(curves)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, curves, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def subsample_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    num_videos: int,
    *,
    fraction: float = 0.5,
    num_subsamples: int = 100,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Spread of a set statistic, such as a Frechet distance, over random halves of the videos.

    A set resampled with replacement holds copies, which biases a Frechet distance upward; halves drawn without
    replacement don't, but each has the bias of its smaller size. So `low` and `high` describe sets of
    fraction x num_videos videos and may lie wholly above `estimate`, which uses all of them. For A against B let
    the statistic return the difference on the same rows.

    Args:
        statistic: rows (m,) of the chosen videos -> number.
    """
    size = round(fraction * num_videos)
    if not 2 <= size < num_videos:
        raise ValueError(f"{num_videos} videos at fraction={fraction} leave {size} a subset; need 2 or more.")
    rng = np.random.default_rng(seed)
    values = np.array([statistic(np.sort(rng.permutation(num_videos)[:size])) for _ in range(num_subsamples)])
    low, high = _percentiles(values, level)
    return Interval(float(statistic(np.arange(num_videos))), float(low), float(high))


def _mean_per_video(values: NDArray[np.floating], videos: Sequence[Hashable] | None) -> NDArray[np.float64]:
    means = np.asarray(values, dtype=np.float64)
    if means.ndim != 1:
        raise ValueError(f"values has shape {means.shape}; expected one number a clip.")
    if not np.isfinite(means).all():
        raise ValueError("values hold NaN or infinite numbers; leave failed clips out and say how many.")
    if videos is not None:
        if len(videos) != len(means):
            raise ValueError(f"{len(means)} values but {len(videos)} video names.")
        clips: dict[Hashable, list[float]] = {}
        for name, value in zip(videos, means, strict=True):
            clips.setdefault(name, []).append(float(value))
        means = np.array([np.mean(of_video) for of_video in clips.values()])
    if len(means) < 2:
        raise ValueError(f"an interval over videos needs at least 2 videos, got {len(means)}.")
    return means


def _resampled_rows(num_videos: int, num_resamples: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(num_videos, size=(num_resamples, num_videos))


def _seeds_and_videos(given: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(given, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"values has shape {values.shape}; expected (seeds, videos).")
    if values.shape[0] < 2:
        raise ValueError(
            f"an interval over training seeds needs at least 2 seeds, got {values.shape[0]}; over the videos of one "
            "seed take bootstrap or paired_bootstrap."
        )
    if values.shape[1] < 2:
        raise ValueError(f"an interval over videos needs at least 2 videos, got {values.shape[1]}.")
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinite numbers; leave those videos out for every seed and say how many.")
    return values


def _counts(rows: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    """How often each row was drawn: (resamples, draws) -> (resamples, num_rows)."""
    return np.stack([np.bincount(drawn, minlength=num_rows) for drawn in rows])


def _percentiles(values: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Lower and upper end, (2, ...), of the central `level` of the first axis, NaN left out."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1.")
    return np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
