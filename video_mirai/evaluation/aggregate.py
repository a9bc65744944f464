"""From the scores of single videos to rows, windows, curves and paired differences, with 95 % intervals over videos."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from video_mirai.evaluation.bootstrap import bootstrap, bootstrap_band, mean_over_rows
from video_mirai.evaluation.results import Curve, Difference, Estimate, Row, Window
from video_mirai.evaluation.row_scores import (
    SPARSE_CURVES,
    RowScores,
    SetStatistic,
    VideoScores,
    mmd_subsets_keys,
    pooled_features,
    set_statistics,
)

MIN_VIDEOS_FOR_SUBSETS = 4
MIN_CLIPS_IN_A_FRAME = 4  # of a sparse curve; where there are fewer clips, all of them


class Resampling(NamedTuple):
    """How intervals are made: bootstrap draws for means, random halves of the videos for Frechet distances."""

    num_resamples: int
    num_subsets: int
    seed: int

    def subsets(self, num_videos: int) -> list[np.ndarray]:
        """The same halves for every row, so that differences are paired; none when there are too few videos."""
        if num_videos < MIN_VIDEOS_FOR_SUBSETS:
            return []
        rng = np.random.default_rng(self.seed)
        return [np.sort(rng.permutation(num_videos)[: num_videos // 2]) for _ in range(self.num_subsets)]


def make_row(row: RowScores, resampling: Resampling) -> Row:
    """Headline metrics, windows and curves of one row."""
    scores, timeline = row.scores, row.timeline
    videos = [score.video for score in scores]
    metrics = {}
    for label in row.labels():
        for found in set_statistics(label, resampling.seed):
            metrics[found.key] = _set_estimate(partial(found.value, row), found, row, resampling)
        subsets = row.mmd_subsets(label, resampling.seed)
        for key, value in zip(mmd_subsets_keys(label), (subsets.mean, subsets.deviation), strict=True):
            metrics[key] = Estimate(value)
    for key in scores[0].numbers:
        metrics[key] = mean_estimate(np.array([score.numbers[key] for score in scores]), videos, resampling)
    windows = [_window(row, i, resampling) for i in range(len(timeline.windows))]
    curves = {
        key: _curve(np.stack([s.curves[key] for s in scores]), videos, resampling, sparse=key in SPARSE_CURVES)
        for key in scores[0].curves
    }
    curves = {key: curve for key, curve in curves.items() if curve.frames}
    middles = [(start + end) // 2 for start, end in timeline.windows]
    for key in [*row.labels(), *map(pooled_key, row.labels())]:
        curves[key] = _distance_curve(middles, [window.metrics[key] for window in windows])
    return Row(row.name, row.kind, len(set(videos)), metrics, windows, curves, _lag_curve(scores, videos, resampling))


def pooled_key(label: str) -> str:
    """Name of the windows' distance to all windows of the reference together."""
    return f"{label}_pooled"


def make_difference(
    row: RowScores, reference: RowScores, resampling: Resampling, leave_out: Sequence[str] = ()
) -> Difference:
    """`row` minus `reference`: the same histories in the same order, paired video by video.

    Args:
        leave_out: numbers not to compare.
    """
    assert [s.clip for s in row.scores] == [s.clip for s in reference.scores]
    videos = [score.video for score in row.scores]

    def paired_distance(label: str, window: int | None) -> Estimate:
        def statistic(subset: np.ndarray | None) -> float:
            return row.distance(label, window, subset) - reference.distance(label, window, subset)

        return _distance_estimate(statistic, row, resampling, -math.inf)

    metrics = {
        found.key: _set_difference(found, row, reference, resampling)
        for label in row.labels()
        for found in set_statistics(label, resampling.seed)
    }
    for key in row.scores[0].numbers:
        if key in reference.scores[0].numbers and key not in leave_out:
            pairs = zip(row.scores, reference.scores, strict=True)
            values = np.array([ours.numbers[key] - other.numbers[key] for ours, other in pairs])
            metrics[key] = mean_estimate(values, videos, resampling)
    windows = []
    for i, (start, end) in enumerate(row.timeline.windows):
        in_window = {label: paired_distance(label, i) for label in row.labels()}
        for key in row.scores[0].curves:
            if key in reference.scores[0].curves:
                pairs = zip(row.scores, reference.scores, strict=True)
                values = np.array([_mean((a.curves[key] - b.curves[key])[start:end]) for a, b in pairs])
                in_window[key] = mean_estimate(values, videos, resampling)
        windows.append(Window(start + 1, end, in_window))
    return Difference(row.name, reference.name, metrics, windows)


def mean_estimate(values: np.ndarray, videos: Sequence[str], resampling: Resampling) -> Estimate:
    """Mean over videos with its bootstrap interval; clips without a value (NaN) are left out."""
    kept = np.isfinite(values)
    names = [video for video, keep in zip(videos, kept, strict=True) if keep]
    if len(set(names)) < 2:
        return Estimate(float(np.mean(values[kept])) if kept.any() else math.nan)
    interval = bootstrap(values[kept], videos=names, num_resamples=resampling.num_resamples, seed=resampling.seed)
    return Estimate(interval.estimate, interval.low, interval.high)


def few_samples_warnings(row: RowScores) -> list[str]:
    """One sentence per detector whose feature width is not exceeded by the number of clips, pooled or per window."""
    sentences = []
    for label in row.labels():
        width = row.scores[0].features[label].shape[1]
        pooled = min(len(pooled_features(scores, label, None, None)) for scores in (row.scores, row.reference))
        per_window = min(len(row.scores), len(row.reference))
        what = "pooled and per window" if pooled <= width else "per window"
        if per_window <= width:
            sentences.append(
                f"{label}: {per_window} clips per window and {pooled} pooled for {width} feature dimensions. With no "
                f"more clips than dimensions ({what}) a Frechet distance is biased upward: compare rows of this page "
                "with each other, not with other papers' numbers."
            )
    return sentences


def _window(row: RowScores, index: int, resampling: Resampling) -> Window:
    start, end = row.timeline.windows[index]
    videos = [score.video for score in row.scores]
    metrics = {}
    for label in row.labels():
        metrics[label] = _distance_estimate(partial(row.distance, label, index), row, resampling, 0.0)
        to_all = partial(row.distance, label, index, against="pooled")
        metrics[pooled_key(label)] = _distance_estimate(to_all, row, resampling, 0.0)
    for key in row.scores[0].curves:
        values = np.array([_mean(score.curves[key][start:end]) for score in row.scores])
        metrics[key] = mean_estimate(values, videos, resampling)
    return Window(start + 1, end, metrics)


def _mean(values: np.ndarray) -> float:
    """Mean without NaN; NaN when nothing is left."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else math.nan


def _distance_estimate(
    statistic: Callable[[np.ndarray | None], float], row: RowScores, resampling: Resampling, smallest: float
) -> Estimate:
    """All videos' value, with half the spread over random halves on either side.

    Halves drawn without replacement vary about as much as the whole set does (the delete-half jackknife) but sit
    higher, because a Frechet distance falls with the number of samples: their spread is used and their level is not.
    """
    value = statistic(None)
    subsets = resampling.subsets(row.num_videos)
    if not subsets:
        return Estimate(value)
    low, high = np.quantile([statistic(subset) for subset in subsets], [0.025, 0.975])
    half = float(high - low) / 2
    return Estimate(value, max(smallest, value - half), value + half)


def _set_estimate(
    statistic: Callable[[np.ndarray | None], float], kind: SetStatistic, row: RowScores, resampling: Resampling
) -> Estimate:
    """With its interval, where random halves of the videos give one."""
    if not kind.resampled:
        return Estimate(statistic(None))
    return _distance_estimate(statistic, row, resampling, kind.smallest)


def _set_difference(kind: SetStatistic, row: RowScores, reference: RowScores, resampling: Resampling) -> Estimate:
    def statistic(videos: np.ndarray | None) -> float:
        return kind.value(row, videos) - kind.value(reference, videos)

    return _set_estimate(statistic, kind._replace(smallest=-math.inf), row, resampling)


def _distance_curve(frames: list[int], estimates: list[Estimate]) -> Curve:
    low = [e.value if e.low is None else e.low for e in estimates]
    high = [e.value if e.high is None else e.high for e in estimates]
    return Curve(frames, [e.value for e in estimates], low, high)


def _lag_curve(scores: list[VideoScores], videos: Sequence[str], resampling: Resampling) -> Curve | None:
    """Cosine against the distance in frames, over the distances that every video is long enough for."""
    lags = [lag for lag in scores[0].cosine_by_lag if all(lag in score.cosine_by_lag for score in scores)]
    if not lags:
        return None
    curve = _curve(np.array([[s.cosine_by_lag[lag] for lag in lags] for s in scores]), videos, resampling)
    return Curve(lags, curve.mean, curve.low, curve.high)


def _curve(values: np.ndarray, videos: Sequence[str], resampling: Resampling, *, sparse: bool = False) -> Curve:
    """Mean over videos of (clips, T), frame by frame, with its band.

    Clips without any value are left out, and frames for which some clip has none; if sparse, those for which nearly
    all have none.
    """
    known = np.isfinite(values)
    clips = known.any(axis=1)
    needed = min(MIN_CLIPS_IN_A_FRAME, clips.sum()) if sparse else clips.sum()
    frames = known[clips].sum(axis=0) >= needed
    rows: dict[str, list[np.ndarray]] = {}
    for clip in np.flatnonzero(clips).tolist():
        rows.setdefault(videos[clip], []).append(values[clip, frames])
    if not rows or not frames.any():
        return Curve([], [], [], [])
    means = np.stack([mean_over_rows(np.stack(curves)) for curves in rows.values()])  # (V, T)
    band = bootstrap_band(means, num_resamples=resampling.num_resamples, seed=resampling.seed)
    numbers = (np.flatnonzero(frames) + 1).tolist()
    return Curve(numbers, band.mean.tolist(), band.low.tolist(), band.high.tolist())
