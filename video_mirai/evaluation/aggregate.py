"""From the scores of single videos to rows, windows, curves and paired differences, with 95 % intervals over videos."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from video_mirai.evaluation.bootstrap import bootstrap, bootstrap_band
from video_mirai.evaluation.frechet import FewSamplesWarning, frechet_at_infinity, frechet_distance
from video_mirai.evaluation.mmd import polynomial_mmd
from video_mirai.evaluation.results import Curve, Difference, Estimate, Row, Window

MIN_VIDEOS_FOR_SUBSETS = 4


@dataclass(frozen=True)
class VideoScores:
    """What was measured on one video of one row, history left out.

    Attributes:
        clip: number of the history. video: source video, the unit of every interval.
        curves: per generated frame, (T,); NaN where a frame has no value. numbers: one a video. features: by detector
            label, (clips, d), one row for each entry of the starts used throughout.
        pooled: rows of the features that the distance over the whole video is made of; None = all.
        cosine_by_lag: by distance in frames.
    """

    clip: int
    video: str
    curves: dict[str, np.ndarray]
    numbers: dict[str, float]
    features: dict[str, np.ndarray]
    pooled: tuple[int, ...] | None = None
    cosine_by_lag: dict[int, float] = field(default_factory=dict)


class Timeline(NamedTuple):
    """Frames of the windows over time, and where the detectors' clips start (frames after the history, from 0)."""

    horizon_frames: int
    window_frames: int
    starts: list[int]

    @property
    def windows(self) -> list[tuple[int, int]]:
        """[start, end) of every whole window, one after the other."""
        last = self.horizon_frames - self.window_frames
        return [(start, start + self.window_frames) for start in range(0, last + 1, self.window_frames)]


def clip_timeline(horizon_frames: int, window_frames: int, stride_frames: int) -> Timeline:
    """Sliding clips every stride_frames; ValueError when a window does not fit or would not start on the stride."""
    if horizon_frames < window_frames:
        raise ValueError(f"horizon_frames={horizon_frames} is shorter than window_frames={window_frames}.")
    if stride_frames < 1 or window_frames % stride_frames:
        raise ValueError(f"stride_frames={stride_frames} must divide window_frames={window_frames}.")
    return Timeline(horizon_frames, window_frames, list(range(0, horizon_frames - window_frames + 1, stride_frames)))


@dataclass
class RowScores:
    """The scores of one row and, where it has Frechet distances, of the real videos that it is measured against."""

    name: str
    kind: str
    scores: list[VideoScores]
    reference: list[VideoScores]
    timeline: Timeline
    ddof: int
    _cache: dict[tuple[str, int | None, bytes, str], float] = field(default_factory=dict)

    @property
    def num_videos(self) -> int:
        """Videos that subsets are drawn from."""
        return min(len(_clips_by_video(self.scores)), len(_clips_by_video(self.reference)))

    def distance(self, label: str, window: int | None, videos: np.ndarray | None, against: str = "aligned") -> float:
        """Frechet distance to the reference.

        Args:
            window: number of the window; None = the clips of the whole video.
            videos: (m,) source videos to use, counted in order of appearance; None = all.
            against: "aligned", the same window of the reference, or "pooled", all its windows together.
        """
        key = (label, window, b"" if videos is None else videos.tobytes(), against)
        if key not in self._cache:
            ours = _features(self.scores, label, self._rows(window), videos)
            theirs = self._all_windows() if against == "pooled" else self._rows(window)
            real = _features(self.reference, label, theirs, videos)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FewSamplesWarning)  # the report says it once, in its own words
                self._cache[key] = frechet_distance(ours, real, ddof=self.ddof)
        return self._cache[key]

    def mmd(self, label: str, videos: np.ndarray | None) -> float:
        """Polynomial MMD to the reference over the whole videos. videos: as in `distance`."""
        ours, real = (_features(scores, label, None, videos) for scores in (self.scores, self.reference))
        return polynomial_mmd(ours, real)

    def at_infinity(self, label: str, seed: int) -> float:
        """Frechet distance at infinite N; NaN where half of the clips are no more than the features are wide."""
        ours, real = (_features(scores, label, None, None) for scores in (self.scores, self.reference))
        if min(len(ours), len(real)) // 2 <= ours.shape[1]:
            return math.nan
        return frechet_at_infinity(ours, real, ddof=self.ddof, seed=seed).distance

    def labels(self) -> list[str]:
        return list(self.scores[0].features)

    def _rows(self, window: int | None) -> list[int] | None:
        """Rows of the features that a window is made of; None = those of the whole video."""
        return None if window is None else [self.timeline.starts.index(self.timeline.windows[window][0])]

    def _all_windows(self) -> list[int]:
        return [self.timeline.starts.index(start) for start, _ in self.timeline.windows]


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
    metrics = {
        label: _distance_estimate(partial(row.distance, label, None), row, resampling, 0.0) for label in row.labels()
    }
    for label in row.labels():
        metrics[mmd_key(label)] = _distance_estimate(partial(row.mmd, label), row, resampling, -math.inf)
        metrics[infinity_key(label)] = Estimate(row.at_infinity(label, resampling.seed))
    for key in scores[0].numbers:
        metrics[key] = mean_estimate(np.array([score.numbers[key] for score in scores]), videos, resampling)
    windows = [_window(row, i, resampling) for i in range(len(timeline.windows))] if _is_seen(row) else []
    curves = {key: _curve(np.stack([s.curves[key] for s in scores]), videos, resampling) for key in scores[0].curves}
    curves = {key: curve for key, curve in curves.items() if curve.frames}
    middles = [(start + end) // 2 for start, end in timeline.windows]
    for key in [*row.labels(), *map(pooled_key, row.labels())]:
        curves[key] = _distance_curve(middles, [window.metrics[key] for window in windows])
    return Row(row.name, row.kind, len(set(videos)), metrics, windows, curves, _lag_curve(scores, videos, resampling))


def pooled_key(label: str) -> str:
    """Name of the windows' distance to all windows of the reference together."""
    return f"{label}_pooled"


def mmd_key(label: str) -> str:
    """Name of the polynomial MMD on the features of a distance called `label`."""
    return f"mmd_{label.removeprefix('fd_')}"


def infinity_key(label: str) -> str:
    return f"{label}_at_infinity"


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

    metrics = {label: paired_distance(label, None) for label in row.labels()}
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
        pooled = min(len(_features(scores, label, None, None)) for scores in (row.scores, row.reference))
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


def _is_seen(row: RowScores) -> bool:
    """Whether the row has frames, and not only a state."""
    return bool(row.labels() or row.scores[0].curves)


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


def _curve(values: np.ndarray, videos: Sequence[str], resampling: Resampling) -> Curve:
    """Mean over videos of (clips, T), frame by frame, with its band.

    Clips without any value, and frames for which some clip has none, are left out.
    """
    clips = np.isfinite(values).any(axis=1)
    frames = np.isfinite(values[clips]).all(axis=0)
    rows: dict[str, list[np.ndarray]] = {}
    for clip in np.flatnonzero(clips).tolist():
        rows.setdefault(videos[clip], []).append(values[clip, frames])
    if not rows or not frames.any():
        return Curve([], [], [], [])
    means = np.stack([np.mean(curves, axis=0) for curves in rows.values()])  # (V, T)
    band = bootstrap_band(means, num_resamples=resampling.num_resamples, seed=resampling.seed)
    numbers = (np.flatnonzero(frames) + 1).tolist()
    return Curve(numbers, band.mean.tolist(), band.low.tolist(), band.high.tolist())


def _features(scores: list[VideoScores], label: str, rows: list[int] | None, videos: np.ndarray | None) -> np.ndarray:
    """(clips, d) of the chosen videos. rows: of each video's features; None = those that are pooled."""
    groups = _clips_by_video(scores)
    chosen = range(len(groups)) if videos is None else videos.tolist()
    found = []
    for score in (scores[clip] for video in chosen for clip in groups[video]):
        wanted = score.pooled if rows is None else tuple(rows)
        features = score.features[label]
        found.append(features if wanted is None else features[list(wanted)])
    return np.concatenate(found)


def _clips_by_video(scores: list[VideoScores]) -> list[list[int]]:
    clips: dict[str, list[int]] = {}
    for i, score in enumerate(scores):
        clips.setdefault(score.video, []).append(i)
    return list(clips.values())
