"""The small files that a report is made of, copied from runs, evaluations and probes:

RESULTS/study.yaml, facts.json
RESULTS/<arm>/seed<k>/    run.yaml, training.csv, train.json             of the training
                          per_video.csv, curves.csv, windows.csv, evaluate.json
                          probe.csv, probe.json
RESULTS/teachers/<name>/  run.yaml, training.csv, teacher.json
The JSON files say what the job cost and how it was called.
"""

import csv
import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from video_mirai.config import save_config
from video_mirai.evaluation.probe_result import BASELINE, CHECKPOINT, PREDICTORS, RIDGE
from video_mirai.evaluation.results import CsvRow
from video_mirai.study.config import StudyConfig
from video_mirai.study.plan import Job, Plan, row_name
from video_mirai.study.records import JobRecord, is_finished, read_record
from video_mirai.training.tracking import read_metrics

STUDY_FILE, FACTS_FILE = "study.yaml", "facts.json"
TEACHERS = "teachers"
FILES = {
    "teacher": ("run.yaml", "training.csv", "teacher.json"),
    "train": ("run.yaml", "training.csv", "train.json"),
    "evaluate": ("per_video.csv", "curves.csv", "windows.csv", "evaluate.json"),
    "probe": ("probe.csv", "probe.json"),
}
MAX_TRAINING_ROWS = 150
MAX_CURVE_FRAMES = 64
REFERENCE_KINDS = ("copy", "velocity", "real", "codec", "reader")


def collect(plan: Plan) -> None:
    """Copy what the report needs of those jobs that have finished.

    Raises:
        ValueError: a primary metric is not in what was measured.
    """
    out, results = Path(str(plan.config.out)), Path(str(plan.config.results))
    results.mkdir(parents=True, exist_ok=True)
    save_config(plan.config, results / STUDY_FILE)
    facts = read_facts(results) | {
        "num_steps": plan.num_steps,
        "steps": plan.evaluated_steps,
        "differences": [list(difference) for difference in plan.differences],
    }
    for job in plan.jobs:
        record = read_record(out, job.name)
        if record is None or not is_finished(out, job):
            continue
        folder = results_folder(results, job)
        folder.mkdir(parents=True, exist_ok=True)
        if job.kind in ("teacher", "train"):
            _collect_training(job, folder)
        elif job.kind == "evaluate":
            facts |= _collect_evaluation(plan, job, folder)
        else:
            facts |= _collect_probe(plan.config, job, folder)
        _write_cost(folder / f"{job.kind}.json", record)
    _write_json(results / FACTS_FILE, facts)


def results_folder(results: Path, job: Job) -> Path:
    """Where a job's small files lie."""
    if job.kind == "teacher":
        return results / TEACHERS / job.owner
    return results / job.owner / f"seed{job.seed}"


def forget(plan: Plan, job: Job) -> None:
    """Remove a job's small files."""
    for name in FILES[job.kind]:
        (results_folder(Path(str(plan.config.results)), job) / name).unlink(missing_ok=True)


def read_facts(results: Path) -> dict[str, Any]:
    """What is the same for all arms; empty before anything was collected."""
    path = results / FACTS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_rows(path: Path, rows: Sequence[CsvRow]) -> None:
    """A CSV file with numbers of six digits."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def _collect_training(job: Job, folder: Path) -> None:
    shutil.copyfile(job.folder / "run.yaml", folder / "run.yaml")
    logged = read_metrics(job.folder)
    validated = [entry for entry in logged if any(key.startswith("validation/") for key in entry)]
    trained = [entry for entry in logged if "train/total" in entry]
    kept = thinned(trained, MAX_TRAINING_ROWS) + thinned(validated, MAX_TRAINING_ROWS)
    rows = [{key: value for key, value in entry.items() if _is_shown(key)} for entry in kept]
    write_rows(folder / "training.csv", [dict(row) for row in sorted(rows, key=lambda row: row["step"])])


def _is_shown(key: str) -> bool:
    return key == "step" or (key.startswith(("train/", "validation/")) and key != "train/frames_per_second")


def thinned(items: list[Any], most: int) -> list[Any]:
    """At most so many, evenly spread, the last one included."""
    every = -(-len(items) // most) if items else 1
    return items[::-1][::every][::-1]


def _collect_evaluation(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    """Facts: the clips, and what rows that are no model have."""
    result = json.loads((job.folder / "results.json").read_text(encoding="utf-8"))
    steps = {row_name(step): step for step in plan.evaluated_steps}
    keys = [metric.key for metric in plan.config.primary if metric.source == "video"]
    final = row_name(plan.num_steps)
    videos = []
    for row in _read_rows(job.folder / "per_video.csv"):
        if row["row"] in steps:
            kept = {key: value for key, value in row.items() if row["row"] == final or key in keys}
            numbers = {
                key: _number(value) for key, value in kept.items() if key not in ("row", "kind", "clip", "video")
            }
            videos.append({"step": steps[row["row"]], "clip": row["clip"], **numbers})
    _check_keys(keys, videos, job)
    write_rows(folder / "per_video.csv", sorted(videos, key=lambda row: -int(str(row["step"]))))
    curves = [row for row in _read_rows(job.folder / "curves.csv") if row["row"] == final]
    frames = thinned(sorted({int(row["frame"]) for row in curves}), MAX_CURVE_FRAMES)
    write_rows(folder / "curves.csv", [
        {"metric": row["metric"], "frame": row["frame"], "mean": _number(row["mean"])}
        for row in curves if int(row["frame"]) in frames or _is_distance(row["metric"], result)
    ])  # fmt: skip
    windows = _window_rows(result, steps)
    write_rows(folder / "windows.csv", windows)
    _check_windows(plan.config, windows, job)
    return {
        "clips": result["clips"],
        "metrics": {metric["key"]: [metric["title"], metric["unit"]] for metric in result["metrics"]},
        "reference_rows": [
            {"row": row["name"], "metrics": {key: value["value"] for key, value in row["metrics"].items()},
             "windows": [{key: value["value"] for key, value in w["metrics"].items()} for w in row["windows"]]}
            for row in result["rows"] if row["kind"] in REFERENCE_KINDS
        ],
    }  # fmt: skip


def _is_distance(metric: str, result: dict[str, Any]) -> bool:
    """Distances have few points, at the windows' middles."""
    return metric.removesuffix("_pooled") in {detector["label"] for detector in result["detectors"]}


def _window_rows(result: dict[str, Any], steps: dict[str, int]) -> list[CsvRow]:
    """Frechet distances of every window and evaluated step."""
    labels = [detector["label"] for detector in result["detectors"]]
    keys = [key for label in labels for key in (label, f"{label}_pooled")]
    return [
        {"step": steps[row["name"]], "window": index, "first": window["first"], "last": window["last"], "key": key,
         "value": float(window["metrics"][key]["value"])}
        for row in result["rows"] if row["name"] in steps
        for index, window in enumerate(row["windows"])
        for key in keys if key in window["metrics"]
    ]  # fmt: skip


def _collect_probe(config: StudyConfig, job: Job, folder: Path) -> dict[str, Any]:
    """R2 of every test video, the arm's and its reference's side by side. Facts: what the other predictors reach."""
    readouts = {RIDGE} | {metric.readout for metric in config.primary if metric.source == "probe"}
    found: dict[tuple[str, str, str, str], CsvRow] = {}
    for row in _read_rows(job.folder / "per_video.csv"):
        if row["predictor"] in (CHECKPOINT, BASELINE) and row["readout"] in readouts:
            place = (row["target"], row["offset"], row["readout"], row["video"])
            entry = found.setdefault(place, dict(zip(("target", "offset", "readout", "video"), place, strict=True)))
            entry["arm" if row["predictor"] == CHECKPOINT else "reference"] = _number(row["r2"])
    write_rows(folder / "probe.csv", list(found.values()))
    result = json.loads((job.folder / "results.json").read_text(encoding="utf-8"))
    others = [
        {"predictor": score["predictor"], "target": score["target"], "offset": score["offset"],
         "r2": score["metrics"]["r2"]["value"]}
        for score in result["scores"]
        if score["predictor"] in PREDICTORS and score["predictor"] not in (CHECKPOINT, BASELINE)
        and score["readout"] != "mlp"
    ]  # fmt: skip
    return {"probe_others": others, "probe_clips": result["clips"]}


def _check_keys(keys: list[str], videos: list[CsvRow], job: Job) -> None:
    known = videos[0] if videos else {}
    for key in keys:
        if key not in known:
            raise ValueError(f"primary: {key} is no column of {job.folder}/per_video.csv; it has {', '.join(known)}.")


def _check_windows(config: StudyConfig, windows: list[CsvRow], job: Job) -> None:
    found = {(row["key"], row["window"]) for row in windows}
    count = max((int(str(row["window"])) for row in windows), default=-1) + 1
    for metric in config.primary:
        number = metric.window if metric.window >= 0 else count + metric.window
        if metric.source == "window" and (metric.key, number) not in found:
            keys = ", ".join(sorted({str(key) for key, _ in found})) or "none"
            raise ValueError(
                f"primary: {metric.name!r} is {metric.key} of window {metric.window}; {job.folder} has {count} "
                f"windows of {keys}."
            )


def _write_cost(path: Path, record: JobRecord) -> None:
    _write_json(path, {
        "cpu_seconds": round(record.cpu_seconds, 2), "wall_seconds": round(record.wall_seconds, 2),
        "attempts": [asdict(attempt) for attempt in record.attempts], "revision": record.revision,
        "commands": [f"python {shlex.join(words)}" for words in record.commands],
    })  # fmt: skip


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> float | None:
    return float(text) if text else None
