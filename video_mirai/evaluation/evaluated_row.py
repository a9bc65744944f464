"""A model's row of an evaluation on disk, from results.json, per_video.csv and features.npz."""

import csv
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video_mirai.evaluation.results import SCHEMA_VERSION, Metric
from video_mirai.evaluation.row_scores import RowScores, Timeline, VideoScores

FEATURES_FILE = "features.npz"


class EvaluatedRow(NamedTuple):
    """One row of an evaluation on disk. metrics: those it has a number for, by key."""

    name: str
    folder: Path
    result: dict[str, Any]
    metrics: dict[str, Metric]
    scores: RowScores


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


def _pooled_features(scores: Sequence[VideoScores], label: str) -> np.ndarray:
    """(videos, clips, d) of the clips that count for the whole."""
    return np.stack([s.features[label] if s.pooled is None else s.features[label][list(s.pooled)] for s in scores])
