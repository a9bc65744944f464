"""What an evaluation run found, as dataclasses, and its JSON, CSV and terminal forms."""

import csv
import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA_VERSION = 2

# What a row of the headline table may be; docs/result-schema.json says what each means.
ROW_KINDS = ("model", "copy", "velocity", "real", "codec", "reader")

# Less than this is the rounding of float64, and shown as 0.
ROUNDING = 1e-12

# One row of per_video.csv or curves.csv.
CsvRow = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `low` and `high` are None where no interval can be made."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Metric:
    """How one column is read. `better` is "higher", "lower" or "neither"; metrics of one group stand in one table."""

    key: str
    title: str
    unit: str
    better: str
    decimals: int
    how: str
    group: str = ""


@dataclass(frozen=True)
class Curve:
    """A metric over time: one value per entry of `frames` (frames after the history, counted from 1)."""

    frames: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Window:
    """The metrics of generated frames `first` to `last` (counted from 1, both included)."""

    first: int
    last: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Row:
    """One line of the headline table. kind: one of ROW_KINDS. cosine_by_lag: its `frames` are distances in frames."""

    name: str
    kind: str
    num_videos: int
    metrics: dict[str, Estimate]
    windows: list[Window]
    curves: dict[str, Curve]
    cosine_by_lag: Curve | None = None

    def has(self, metric: Metric) -> bool:
        return metric.key in self.metrics and math.isfinite(self.metrics[metric.key].value)


@dataclass(frozen=True)
class Difference:
    """`name` minus `reference` on the same histories and seeds, paired by source video."""

    name: str
    reference: str
    metrics: dict[str, Estimate]
    windows: list[Window]

    def has(self, metric: Metric) -> bool:
        return metric.key in self.metrics and math.isfinite(self.metrics[metric.key].value)


@dataclass(frozen=True)
class ModelInfo:
    """A checkpoint that was rolled out.

    Attributes:
        sha256: of its weights. training_frames: pixel frames of its training clips. training_seed: `seed` of its run.
    """

    name: str
    path: str
    sha256: str
    training_frames: int
    rollout: dict[str, Any]
    codec: str
    frames_per_second: float | None
    training_seed: int | None = None


@dataclass(frozen=True)
class VideoSetInfo:
    """A folder of videos that was compared.

    Attributes:
        sha256: over the names and contents of the files used. left_out: files too short for the compared frames.
        frames, fps, sizes: what the files had, before they were brought to one rate and size; each sorted, once.
    """

    name: str
    path: str
    sha256: str
    num_files: int
    left_out: int
    frames: list[int]
    fps: list[float]
    sizes: list[str]


@dataclass(frozen=True)
class VBenchScore:
    """One dimension of VBench for one row, as VBench's own file gives it."""

    row: str
    dimension: str
    value: float
    num_videos: int


@dataclass(frozen=True)
class VBenchInfo:
    """A file of VBench's results. flavour: "VBench" or "VBench-Long"; flags: as whoever ran it states them."""

    row: str
    file: str
    sha256: str
    flavour: str
    clip_rule: str
    flags: str
    scores: list[VBenchScore]


@dataclass(frozen=True)
class DetectorInfo:
    label: str
    name: str
    sha256: str
    clip_frames: int
    dimensions: int
    preprocessing: str


@dataclass(frozen=True)
class ClipsInfo:
    """Which clips were compared.

    Attributes:
        fps: frames per second. height, width: pixels. training_frames: None where it is not known.
        clips_sha256: of everything that decides which true frames were compared; equal, so are the histories.
    """

    dataset: str
    split: str
    fps: float
    height: int
    width: int
    num_clips: int
    num_source_videos: int
    num_real_clips: int
    history_frames: int
    horizon_frames: int
    training_frames: int | None
    clip_rule: str
    seed: int
    clips_sha256: str = ""


@dataclass(frozen=True)
class EvaluationResult:
    """All that an evaluation found. rules: how the videos were made comparable, by topic."""

    created: str
    revision: str
    hardware: dict[str, str]
    versions: dict[str, str]
    config: dict[str, Any]
    config_sha256: str
    clips: ClipsInfo
    models: list[ModelInfo]
    detectors: list[DetectorInfo]
    ddof: int
    metrics: list[Metric]
    window_metrics: list[Metric]
    rows: list[Row]
    differences: list[Difference]
    warnings: list[str] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)
    video_sets: list[VideoSetInfo] = field(default_factory=list)
    vbench: list[VBenchInfo] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def row(self, kind: str) -> Row | None:
        """The first row of a kind."""
        return next((row for row in self.rows if row.kind == kind), None)

    def shown_metrics(self) -> list[Metric]:
        """The headline metrics that at least one row has a number for."""
        return [metric for metric in self.metrics if any(row.has(metric) for row in self.rows)]

    def shown_tables(self) -> dict[str, list[Metric]]:
        """The shown metrics by their group, in order."""
        tables: dict[str, list[Metric]] = {}
        for metric in self.shown_metrics():
            tables.setdefault(metric.group, []).append(metric)
        return tables


class WrittenFiles(NamedTuple):
    results: Path
    per_video: Path
    curves: Path


def write_results(result: EvaluationResult, per_video: list[CsvRow], folder: Path) -> WrittenFiles:
    """Write results.json, per_video.csv and curves.csv. Numbers that are not finite become null."""
    folder.mkdir(parents=True, exist_ok=True)
    files = WrittenFiles(folder / "results.json", folder / "per_video.csv", folder / "curves.csv")
    text = json.dumps(finite_only(dataclasses.asdict(result)), indent=2, allow_nan=False)
    files.results.write_text(text + "\n", encoding="utf-8")
    write_csv(per_video, files.per_video)
    write_csv(curve_rows(result.rows), files.curves)
    return files


def finite_only(value: Any) -> Any:
    """The same JSON-like value with nan and inf replaced by None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: finite_only(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_only(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def curve_rows(rows: list[Row]) -> list[CsvRow]:
    """Every curve in long form: one CSV row for each model, metric and frame."""
    return [
        {"row": row.name, "metric": key, "frame": frame, "mean": mean, "low": low, "high": high}
        for row in rows
        for key, curve in row.curves.items()
        for frame, mean, low, high in zip(curve.frames, curve.mean, curve.low, curve.high, strict=True)
    ]


def format_estimate(estimate: Estimate | None, decimals: int, signed: bool = False) -> str:
    """A value as people read it: "24.13", or a dash where there is none."""
    if estimate is None or not math.isfinite(estimate.value):
        return "–"
    return format_number(estimate.value, decimals, signed)


def format_number(value: float, decimals: int, signed: bool = False) -> str:
    """Fixed decimals; scientific where fixed decimals would show nothing but zeros or a very long number."""
    value = 0.0 if abs(value) < ROUNDING else value
    tiny = value != 0 and abs(value) < 0.5 * 10**-decimals
    sign = "+" if signed else ""
    return f"{value:{sign}.1e}" if tiny or abs(value) >= 1e6 else f"{value:{sign}.{decimals}f}"


def format_interval(estimate: Estimate | None, decimals: int) -> str:
    """The 95 % interval as "23.80 to 24.51", empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f"{format_number(estimate.low, decimals)} to {format_number(estimate.high, decimals)}"


def headline_table(result: EvaluationResult) -> str:
    """The headline tables in plain text, for the terminal: one line per row, then the paired differences."""
    text = []
    for group, metrics in result.shown_tables().items():
        text += ([group] if group else []) + _text_table(result, metrics) + ([""] if group else [])
    if result.differences:
        text.append("* the 95 % interval of the paired difference excludes zero")
    return "\n".join(text)


def _text_table(result: EvaluationResult, metrics: list[Metric]) -> list[str]:
    arrows = {"higher": " ↑", "lower": " ↓", "neither": ""}
    lines = [["", *(metric.title + arrows[metric.better] for metric in metrics)]]
    for row in result.rows:
        if any(row.has(metric) for metric in metrics):
            lines.append([row.name, *(format_estimate(row.metrics.get(m.key), m.decimals) for m in metrics)])
    for difference in result.differences:
        if not any(difference.has(metric) for metric in metrics):
            continue
        cells = []
        for metric in metrics:
            estimate = difference.metrics.get(metric.key)
            mark = " *" if estimate is not None and estimate.excludes_zero else ""
            cells.append(format_estimate(estimate, metric.decimals, signed=True) + mark)
        lines.append([f"{difference.name} - {difference.reference}", *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]


def write_csv(rows: list[CsvRow], path: Path) -> None:
    """Columns are all keys, in the order in which they come up."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows({key: finite_only(value) for key, value in row.items()} for row in rows)
