"""What a probe found, as dataclasses, and its JSON, CSV and terminal forms."""

import csv
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_mirai.evaluation.results import CsvRow, Estimate, finite_only, format_estimate, format_interval

SCHEMA_VERSION = 1

CHECKPOINT, BASELINE, UNTRAINED, RAW_PIXELS, SHUFFLED = "checkpoint", "baseline", "untrained", "raw pixels", "shuffled"
COPY, MEAN, CONSTANT_VELOCITY = "copy", "mean", "constant velocity"
RIDGE, MLP, NO_READOUT = "ridge", "mlp", "none"

PREDICTORS = {
    CHECKPOINT: "hidden states of the model that is probed",
    BASELINE: "hidden states of the model that it is compared with",
    UNTRAINED: "hidden states of the same architecture with seeded random weights",
    RAW_PIXELS: "the clean pictures of the current frame and the one before",
    SHUFFLED: "the checkpoint's states, each given to another frame: must not exceed 0",
    COPY: "the true current frame or state, repeated",
    MEAN: "the training mean: R2 is 0",
    CONSTANT_VELOCITY: "every pixel, or the true state, hidden or not, carried on by its last step; sprites bounce",
}


@dataclass(frozen=True)
class ProbeMetric:
    """One number that a prediction is scored by."""

    key: str
    title: str
    better: str
    decimals: int
    how: str


R2 = ProbeMetric(
    "r2", "R2", "higher", 3,
    "1 - squared error / squared distance from the training mean, over all test videos; 0 is the mean, 1 is perfect",
)  # fmt: skip
COSINE = ProbeMetric(
    "cosine", "innovation cosine", "higher", 3,
    "cosine between the predicted and the true change since the current frame; copying has 0, offset 0 has none",
)  # fmt: skip
PSNR = ProbeMetric("psnr", "PSNR", "higher", 2, "dB, peak 1, mean over frames, of the pictures as they are predicted")
RMSE = ProbeMetric(
    "rmse", "RMSE", "lower", 3, "root of a video's mean squared error, mean over videos, in the target's unit"
)
METRICS = {metric.key: metric for metric in (R2, COSINE, PSNR, RMSE)}


@dataclass(frozen=True)
class ProbedModelInfo:
    path: str
    sha256: str
    layer: int
    num_layers: int
    features: int
    window_frames: int
    chunk_frames: int


@dataclass(frozen=True)
class TargetInfo:
    """shape: of one frame's values."""

    key: str
    unit: str
    shape: list[int]


@dataclass(frozen=True)
class ProbeClipsInfo:
    """Which clips were read. frames_read: numbers of the latent frames; num_videos, num_rows: by part."""

    dataset: str
    split: str
    num_clips: int
    num_videos: dict[str, int]
    num_rows: dict[str, int]
    frames_read: list[int]


@dataclass(frozen=True)
class ProbeScore:
    """One predictor at one offset.

    Attributes:
        offset: latent frames ahead.
        readout: "ridge", "mlp" (mean over its seeds), or "none" for what needs no fit.
        strength: of the ridge, as chosen on the validation videos.
        seeds: R2 of every network.
    """

    target: str
    offset: int
    predictor: str
    readout: str
    metrics: dict[str, Estimate]
    strength: float | None = None
    seeds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ProbeDifference:
    """`name` minus `reference`, paired by test video."""

    target: str
    offset: int
    readout: str
    name: str
    reference: str
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class ProbeResult:
    created: str
    revision: str
    hardware: dict[str, str]
    versions: dict[str, str]
    config: dict[str, Any]
    config_sha256: str
    checkpoint: ProbedModelInfo
    baseline: ProbedModelInfo | None
    clips: ProbeClipsInfo
    targets: list[TargetInfo]
    scores: list[ProbeScore]
    differences: list[ProbeDifference]
    warnings: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def reference(self) -> str:
        """What the checkpoint is first of all compared with."""
        return BASELINE if self.baseline is not None else UNTRAINED

    def offsets(self) -> list[int]:
        return sorted({score.offset for score in self.scores})

    def readouts(self) -> list[str]:
        """Those that were fitted, ridge first."""
        return [readout for readout in (RIDGE, MLP) if any(score.readout == readout for score in self.scores)]

    def score(self, target: str, offset: int, predictor: str, readout: str) -> ProbeScore | None:
        """The score of a predictor; those that need no fit have the same beside every readout."""
        for score in self.scores:
            same = (score.target, score.offset, score.predictor) == (target, offset, predictor)
            if same and score.readout in (readout, NO_READOUT):
                return score
        return None

    def difference(self, target: str, offset: int, readout: str, reference: str) -> ProbeDifference | None:
        wanted = (target, offset, readout, reference)
        return next((d for d in self.differences if (d.target, d.offset, d.readout, d.reference) == wanted), None)

    def metrics(self, target: str) -> list[ProbeMetric]:
        """Those of a target, in the order of METRICS."""
        found = {key for score in self.scores if score.target == target for key in score.metrics}
        return [metric for key, metric in METRICS.items() if key in found]


def write_result(result: ProbeResult, per_video: list[CsvRow], folder: Path) -> None:
    """Write results.json, scores.csv and per_video.csv. Numbers that are not finite become null."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite_only(dataclasses.asdict(result)), indent=2, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    _write_csv(score_rows(result), folder / "scores.csv")
    _write_csv(per_video, folder / "per_video.csv")


def score_rows(result: ProbeResult) -> list[CsvRow]:
    """Every estimate in long form, differences as "name - reference"."""
    named = [(score, score.predictor) for score in result.scores]
    rows: list[tuple[ProbeScore | ProbeDifference, str]] = [*named]
    rows += [(difference, f"{difference.name} - {difference.reference}") for difference in result.differences]
    return [
        {"target": row.target, "offset": row.offset, "readout": row.readout, "predictor": name, "metric": key,
         "value": estimate.value, "low": estimate.low, "high": estimate.high}
        for row, name in rows
        for key, estimate in row.metrics.items()
    ]  # fmt: skip


def headline_table(result: ProbeResult) -> str:
    """R2 of every predictor over the offsets, and the difference that counts, for the terminal."""
    lines = [["target", "readout", "predictor", *(f"D={offset}" for offset in result.offsets())]]
    for target in result.targets:
        for readout in [NO_READOUT, *result.readouts()]:
            for predictor in PREDICTORS:
                found = [
                    s for s in result.scores if (s.target, s.readout, s.predictor) == (target.key, readout, predictor)
                ]
                if found:
                    cells = [as_text(s.metrics["r2"], R2) for s in sorted(found, key=lambda s: s.offset)]
                    lines.append([target.key, readout, predictor, *cells])
    for target in result.targets:
        for readout in result.readouts():
            cells = [_difference_cell(result, target.key, offset, readout) for offset in result.offsets()]
            lines.append([target.key, readout, f"{CHECKPOINT} - {result.reference}", *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["R2, 0 = the training mean; * = the 95 % interval of the paired difference excludes zero"]
    return "\n".join(
        text + ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    )


def as_text(estimate: Estimate | None, metric: ProbeMetric, *, signed: bool = False) -> str:
    """A value as people read it; what rounds to zero is zero."""
    return format_estimate(_rounded(estimate, metric.decimals), metric.decimals, signed=signed)


def interval_text(estimate: Estimate | None, metric: ProbeMetric) -> str:
    """The 95 % interval as people read it, empty where there is none."""
    return format_interval(_rounded(estimate, metric.decimals), metric.decimals)


def _rounded(estimate: Estimate | None, decimals: int) -> Estimate | None:
    if estimate is None or estimate.low is None or estimate.high is None:
        return estimate
    value, low, high = (round(part, decimals) + 0.0 for part in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high)


def _difference_cell(result: ProbeResult, target: str, offset: int, readout: str) -> str:
    difference = result.difference(target, offset, readout, result.reference)
    if difference is None:
        return "–"
    estimate = difference.metrics["r2"]
    mark = " *" if estimate.excludes_zero else ""
    return f"{as_text(estimate, R2, signed=True)} [{interval_text(estimate, R2)}]{mark}"


def _write_csv(rows: list[CsvRow], path: Path) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows({key: finite_only(value) for key, value in row.items()} for row in rows)
