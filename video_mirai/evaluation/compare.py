"""Evaluations compared with each other: differences with 95 % intervals, from the files that an evaluation writes.

Rows of two evaluations of the same true clips, settings and seed are paired video by video. Where clips or seeds
differ the rows are compared as independent samples, and the comparison says so. Where a number would mean something
else, because the length, rate, size or the detector differ, it is not compared at all.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from video_mirai.evaluation.aggregate import MIN_VIDEOS_FOR_SUBSETS, Resampling, make_difference
from video_mirai.evaluation.evaluated_row import EvaluatedRow
from video_mirai.evaluation.metric_table import ENCODER_KEYS
from video_mirai.evaluation.results import Estimate, Metric
from video_mirai.evaluation.row_scores import (
    RowScores,
    SetStatistic,
    VideoScores,
    infinity_key,
    mmd_key,
    mmd_subsets_keys,
    set_statistics,
)

# What has to agree for the numbers to mean the same, and what for the videos to be the same ones.
SAME_MEANING = ("fps", "height", "width", "history_frames", "horizon_frames")
SAME_CLIPS = ("dataset", "split", "clips_sha256", "seed")


# What the interval of a difference is made of.
BOOTSTRAP, HALVES, NO_INTERVAL = "bootstrap", "half the spread over random halves of the videos", "none"


class MetricDifference(NamedTuple):
    """`name` minus the baseline.

    Attributes:
        how: "paired" or "unpaired". interval: BOOTSTRAP, HALVES or NO_INTERVAL.
        by_seed: the difference of every training seed, where there are several.
    """

    name: str
    metric: Metric
    baseline: float
    difference: Estimate
    how: str
    num_videos: int
    interval: str
    by_seed: Sequence[float] = ()


class SeedValues(NamedTuple):
    """A metric of every training seed of one method. seeds: what they are called."""

    name: str
    metric: Metric
    seeds: list[str]
    values: list[float]


class Compared(NamedTuple):
    """All differences from one baseline.

    Attributes:
        notes: what was left out or is not paired, and why.
        seeds: of groups of training seeds, by metric and group; empty where single evaluations are compared.
    """

    baseline: str
    names: list[str]
    differences: list[MetricDifference]
    notes: list[str]
    seeds: Sequence[SeedValues] = ()


def compare_rows(rows: Sequence[EvaluatedRow], resampling: Resampling) -> Compared:
    """Every later row minus the first one.

    Raises:
        ValueError: fewer than two rows, or rows whose numbers mean different things.
    """
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} evaluation given; a comparison needs two or more.")
    names = _distinct_names(rows)
    first = rows[0]
    differences, notes = [], []
    for name, row in zip(names[1:], rows[1:], strict=True):
        check_same_meaning(row, first)
        reason = why_unpaired(row, first)
        if reason:
            notes.append(f"{name} and {names[0]} are not paired, so intervals are wider: {reason}.")
        keys, refused = comparable_metrics(row, first)
        notes += [f"{key} is not compared for {name}: {why}." for key, why in refused.items()]
        estimates = _unpaired(row, first, resampling) if reason else _paired(row, first, resampling)
        for key in keys:
            if key in estimates and math.isfinite(estimates[key].value):
                differences.append(
                    MetricDifference(
                        name, first.metrics[key], row_value(first, key, resampling.seed), estimates[key],
                        "unpaired" if reason else "paired", row.scores.num_videos,
                        interval_kind(first, key, estimates[key]),
                    )
                )  # fmt: skip
    return Compared(names[0], names[1:], differences, notes)


def check_same_meaning(row: EvaluatedRow, first: EvaluatedRow) -> None:
    """ValueError where numbers of the two mean different things."""
    for key in SAME_MEANING:
        if row.result["clips"][key] != first.result["clips"][key]:
            raise ValueError(
                f"{row.folder} has {key}={row.result['clips'][key]}, {first.folder} has "
                f"{first.result['clips'][key]}: their numbers mean different things; evaluate both alike."
            )


def _distinct_names(rows: Sequence[EvaluatedRow]) -> list[str]:
    """Row names where they differ, else with their folder."""
    names = [row.name for row in rows]
    if len(set(names)) == len(names):
        return names
    return [f"{row.folder.name}:{row.name}" for row in rows]


def why_unpaired(row: EvaluatedRow, first: EvaluatedRow) -> str:
    """Why two rows can't be compared video by video; empty when they can."""
    for key in SAME_CLIPS:
        here, there = row.result["clips"][key], first.result["clips"][key]
        if here != there:
            return f"{key} differs ({str(here)[:40]} and {str(there)[:40]})"
    if [(s.clip, s.video) for s in row.scores.scores] != [(s.clip, s.video) for s in first.scores.scores]:
        return "they hold different videos"
    return ""


def comparable_metrics(row: EvaluatedRow, first: EvaluatedRow) -> tuple[list[str], dict[str, str]]:
    """Keys of the metrics that mean the same in both, and why the others don't."""
    shas = [_weights_by_key(found) for found in (row, first)]
    keys, refused = [], {}
    for key, metric in first.metrics.items():
        if key not in row.metrics:
            refused[key] = "only one of the evaluations has it"
        elif shas[0].get(key) != shas[1].get(key):
            refused[key] = "the detectors' weights differ"
        elif key in ENCODER_KEYS and len({found.result["rules"].get(ENCODER_KEYS[key]) for found in (row, first)}) > 1:
            refused[key] = "the frame features differ"
        elif row.metrics[key].how != metric.how:
            refused[key] = "it was made differently"
        else:
            keys.append(key)
    return keys, refused


def _weights_by_key(row: EvaluatedRow) -> dict[str, str]:
    """sha256 of the detector behind every number that has one."""
    found = {}
    for detector in row.result["detectors"]:
        label = detector["label"]
        for key in (label, mmd_key(label), *mmd_subsets_keys(label), infinity_key(label)):
            found[key] = detector["sha256"]
    return found


def _paired(row: EvaluatedRow, first: EvaluatedRow, resampling: Resampling) -> dict[str, Estimate]:
    return make_difference(row.scores, first.scores, resampling).metrics


def _unpaired(row: EvaluatedRow, first: EvaluatedRow, resampling: Resampling) -> dict[str, Estimate]:
    """Differences of independent samples: each side is resampled on its own."""
    found = {}
    for key in first.scores.scores[0].numbers:
        ours, other = (np.array(list(means_by_video(side.scores.scores, key).values())) for side in (row, first))
        found[key] = _independent_bootstrap(ours, other, resampling)
    for label in first.scores.labels():
        if label in row.scores.labels():
            for kind in set_statistics(label, resampling.seed):
                found[kind.key] = _independent_sets(row.scores, first.scores, kind, resampling)
    return found


def _independent_bootstrap(ours: np.ndarray, other: np.ndarray, resampling: Resampling) -> Estimate:
    if min(len(ours), len(other)) < 2:
        return Estimate(math.nan)
    rng = np.random.default_rng(resampling.seed)
    drawn = [
        side[rng.integers(len(side), size=(resampling.num_resamples, len(side)))].mean(axis=1) for side in (ours, other)
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return Estimate(float(ours.mean() - other.mean()), float(low), float(high))


def _independent_sets(ours: RowScores, other: RowScores, kind: SetStatistic, resampling: Resampling) -> Estimate:
    """Half the spread over random halves, drawn for each side on its own; see `aggregate`."""
    value = kind.value(ours, None) - kind.value(other, None)
    if not kind.resampled or min(ours.num_videos, other.num_videos) < MIN_VIDEOS_FOR_SUBSETS:
        return Estimate(value)
    rng = np.random.default_rng(resampling.seed)

    def of_half(side: RowScores) -> float:
        return kind.value(side, np.sort(rng.permutation(side.num_videos)[: side.num_videos // 2]))

    drawn = [of_half(ours) - of_half(other) for _ in range(resampling.num_subsets)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    half = float(high - low) / 2
    return Estimate(value, value - half, value + half)


def means_by_video(scores: Sequence[VideoScores], key: str) -> dict[str, float]:
    """Mean of the finite values of each video that has any."""
    by_video: dict[str, list[float]] = {}
    for score in scores:
        if math.isfinite(score.numbers.get(key, math.nan)):
            by_video.setdefault(score.video, []).append(score.numbers[key])
    return {video: float(np.mean(values)) for video, values in by_video.items()}


def row_value(row: EvaluatedRow, key: str, seed: int) -> float:
    """The row's own number; seed: of the distance at infinite N."""
    kind = set_kind(row, key, seed)
    if kind is not None:
        return kind.value(row.scores, None)
    means = means_by_video(row.scores.scores, key)
    return float(np.mean(list(means.values()))) if means else math.nan


def set_kind(row: EvaluatedRow, key: str, seed: int) -> SetStatistic | None:
    """How a number of whole sets is computed; None for one that single videos have."""
    kinds = (kind for label in row.scores.labels() for kind in set_statistics(label, seed))
    return next((kind for kind in kinds if kind.key == key), None)


def interval_kind(row: EvaluatedRow, key: str, estimate: Estimate) -> str:
    """BOOTSTRAP, HALVES or NO_INTERVAL."""
    if estimate.low is None:
        return NO_INTERVAL
    return BOOTSTRAP if set_kind(row, key, 0) is None else HALVES
