"""Evaluations compared with each other: differences with 95 % intervals, from the files that an evaluation writes.

Rows of two evaluations of the same true clips, settings and seed are paired video by video. Where clips or seeds
differ the rows are compared as independent samples, and the comparison says so. Where a number would mean something
else, because the length, rate, size or the detector differ, it is not compared at all.
"""

import csv
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video_mirai.evaluation.aggregate import (
    MIN_VIDEOS_FOR_SUBSETS,
    Resampling,
    RowScores,
    Timeline,
    VideoScores,
    make_difference,
)
from video_mirai.evaluation.results import SCHEMA_VERSION, Estimate, Metric

FEATURES_FILE = "features.npz"
# What has to agree for the numbers to mean the same, and what for the videos to be the same ones.
SAME_MEANING = ("fps", "height", "width", "history_frames", "horizon_frames")
SAME_CLIPS = ("dataset", "split", "clips_sha256", "seed")


class EvaluatedRow(NamedTuple):
    """One row of an evaluation on disk. metrics: those it has a number for, by key."""

    name: str
    folder: Path
    result: dict[str, Any]
    metrics: dict[str, Metric]
    scores: RowScores


class MetricDifference(NamedTuple):
    """`name` minus the baseline. how: "paired" or "unpaired"."""

    name: str
    metric: Metric
    baseline: float
    difference: Estimate
    how: str
    num_videos: int


class Compared(NamedTuple):
    """All differences from one baseline. notes: what was left out or is not paired, and why."""

    baseline: str
    names: list[str]
    differences: list[MetricDifference]
    notes: list[str]


def save_features(rows: Sequence[RowScores], path: Path) -> None:
    """The features behind the whole videos' distances, so that distances can be compared video by video later."""
    arrays: dict[str, np.ndarray] = {}
    for row in (row for row in rows if row.kind == "model"):
        for label in row.labels():
            arrays[f"row/{row.name}/{label}"] = _pooled_features(row.scores, label)
            arrays[f"reference/{label}"] = _pooled_features(row.reference, label)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def load_row(place: str) -> EvaluatedRow:
    """A model's row of an evaluation.

    Args:
        place: FOLDER or FOLDER:ROW; the row may be left out where there is one model.
    Raises:
        FileNotFoundError, ValueError: no evaluation there, of another version, no such row, or files that disagree.
    """
    folder, wanted = _place(place)
    result = _read_result(folder)
    models = [row["name"] for row in result["rows"] if row["kind"] == "model"]
    if wanted is None and len(models) != 1:
        raise ValueError(f"{folder} compares {len(models)} models; name one: {folder}:{models[0]}.")
    name = models[0] if wanted is None else wanted
    if name not in models:
        raise ValueError(f"{folder} has no model {name!r}; its models: {', '.join(models)}.")
    metrics = {metric["key"]: Metric(**metric) for metric in result["metrics"]}
    return EvaluatedRow(name, folder, result, metrics, _read_scores(folder, name, result))


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
        for key in SAME_MEANING:
            if row.result["clips"][key] != first.result["clips"][key]:
                raise ValueError(
                    f"{row.folder} has {key}={row.result['clips'][key]}, {first.folder} has "
                    f"{first.result['clips'][key]}: their numbers mean different things; evaluate both alike."
                )
        reason = _why_unpaired(row, first)
        if reason:
            notes.append(f"{name} and {names[0]} are not paired, so intervals are wider: {reason}.")
        keys, refused = _comparable(row, first)
        notes += [f"{key} is not compared for {name}: {why}." for key, why in refused.items()]
        estimates = _unpaired(row, first, resampling) if reason else _paired(row, first, resampling)
        for key in keys:
            if key in estimates and math.isfinite(estimates[key].value):
                differences.append(
                    MetricDifference(
                        name, first.metrics[key], _value(first, key), estimates[key],
                        "unpaired" if reason else "paired", row.scores.num_videos,
                    )
                )  # fmt: skip
    return Compared(names[0], names[1:], differences, notes)


def _place(place: str) -> tuple[Path, str | None]:
    whole = Path(place)
    if whole.exists():
        return (whole if whole.is_dir() else whole.parent), None
    folder, separator, row = place.rpartition(":")
    if separator and Path(folder).is_dir():
        return Path(folder), row
    raise FileNotFoundError(f"{place}: no such evaluation folder; it is the out=... of scripts/evaluate.py.")


def _read_result(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; run scripts/evaluate.py with out={folder}.") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error
    found = result.get("schema_version") if isinstance(result, dict) else None
    if found != SCHEMA_VERSION:
        raise ValueError(f"{path} has schema version {found}, this program reads {SCHEMA_VERSION}; evaluate anew.")
    return result


def _read_scores(folder: Path, name: str, result: dict[str, Any]) -> RowScores:
    """The row's scores from per_video.csv and features.npz."""
    lines = [line for line in csv.DictReader((folder / "per_video.csv").open(encoding="utf-8")) if line["row"] == name]
    labels = [detector["label"] for detector in result["detectors"]]
    try:
        with np.load(folder / FEATURES_FILE, allow_pickle=False) as stored:
            ours = {label: stored[f"row/{name}/{label}"] for label in labels}
            real = {label: stored[f"reference/{label}"] for label in labels}
    except (FileNotFoundError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder / FEATURES_FILE} is missing or damaged ({error}); evaluate anew.") from error
    if any(len(features) != len(lines) for features in ours.values()):
        raise ValueError(f"{folder}: per_video.csv and {FEATURES_FILE} hold different videos; evaluate anew.")
    scores = []
    for i, line in enumerate(lines):
        numbers = {
            key: float(text) if text else math.nan
            for key, text in line.items()
            if key not in ("row", "kind", "clip", "video")
        }
        features = {label: array[i] for label, array in ours.items()}
        scores.append(VideoScores(int(line["clip"]), line["video"], {}, numbers, features))
    num_real = min((len(array) for array in real.values()), default=0)
    reference = [
        VideoScores(i, str(i), {}, {}, {label: array[i] for label, array in real.items()}) for i in range(num_real)
    ]
    if num_real == len(scores):  # the same true clips: let resampling keep clips of one video together there too
        reference = [
            VideoScores(ours.clip, ours.video, {}, {}, real.features)
            for ours, real in zip(scores, reference, strict=True)
        ]
    no_windows = Timeline(0, 1, [])
    return RowScores(name, "model", scores, reference, no_windows, int(result["ddof"]))


def _distinct_names(rows: Sequence[EvaluatedRow]) -> list[str]:
    """Row names where they differ, else with their folder."""
    names = [row.name for row in rows]
    if len(set(names)) == len(names):
        return names
    return [f"{row.folder.name}:{row.name}" for row in rows]


def _why_unpaired(row: EvaluatedRow, first: EvaluatedRow) -> str:
    """Why two rows can't be compared video by video; empty when they can."""
    for key in SAME_CLIPS:
        here, there = row.result["clips"][key], first.result["clips"][key]
        if here != there:
            return f"{key} differs ({str(here)[:40]} and {str(there)[:40]})"
    if [(s.clip, s.video) for s in row.scores.scores] != [(s.clip, s.video) for s in first.scores.scores]:
        return "they hold different videos"
    return ""


def _comparable(row: EvaluatedRow, first: EvaluatedRow) -> tuple[list[str], dict[str, str]]:
    """Keys of the metrics that mean the same in both, and why the others don't."""
    shas = [{d["label"]: d["sha256"] for d in found.result["detectors"]} for found in (row, first)]
    keys, refused = [], {}
    for key, metric in first.metrics.items():
        if key not in row.metrics:
            refused[key] = "only one of the evaluations has it"
        elif shas[0].get(key) != shas[1].get(key):
            refused[key] = "the detectors' weights differ"
        elif row.metrics[key].how != metric.how:
            refused[key] = "it was made differently"
        else:
            keys.append(key)
    return keys, refused


def _paired(row: EvaluatedRow, first: EvaluatedRow, resampling: Resampling) -> dict[str, Estimate]:
    return make_difference(row.scores, first.scores, resampling).metrics


def _unpaired(row: EvaluatedRow, first: EvaluatedRow, resampling: Resampling) -> dict[str, Estimate]:
    """Differences of independent samples: each side is resampled on its own."""
    found = {}
    for key in first.scores.scores[0].numbers:
        sides = [_means_by_video(side.scores.scores, key) for side in (row, first)]
        found[key] = _independent_bootstrap(sides[0], sides[1], resampling)
    for label in first.scores.labels():
        if label in row.scores.labels():
            found[label] = _independent_distances(row.scores, first.scores, label, resampling)
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


def _independent_distances(ours: RowScores, other: RowScores, label: str, resampling: Resampling) -> Estimate:
    """Half the spread over random halves, drawn for each side on its own; see `aggregate`."""
    value = ours.distance(label, None, None) - other.distance(label, None, None)
    if min(ours.num_videos, other.num_videos) < MIN_VIDEOS_FOR_SUBSETS:
        return Estimate(value)
    rng = np.random.default_rng(resampling.seed)

    def of_half(side: RowScores) -> float:
        return side.distance(label, None, np.sort(rng.permutation(side.num_videos)[: side.num_videos // 2]))

    drawn = [of_half(ours) - of_half(other) for _ in range(resampling.num_subsets)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    half = float(high - low) / 2
    return Estimate(value, value - half, value + half)


def _means_by_video(scores: Sequence[VideoScores], key: str) -> np.ndarray:
    """(V,) means of the finite values of each video."""
    by_video: dict[str, list[float]] = {}
    for score in scores:
        if math.isfinite(score.numbers.get(key, math.nan)):
            by_video.setdefault(score.video, []).append(score.numbers[key])
    return np.array([np.mean(values) for values in by_video.values()])


def _value(row: EvaluatedRow, key: str) -> float:
    if key in row.scores.labels():
        return row.scores.distance(key, None, None)
    means = _means_by_video(row.scores.scores, key)
    return float(means.mean()) if len(means) else math.nan


def _pooled_features(scores: Sequence[VideoScores], label: str) -> np.ndarray:
    """(videos, clips, d) of the clips that count for the whole."""
    return np.stack([s.features[label] if s.pooled is None else s.features[label][list(s.pooled)] for s in scores])
