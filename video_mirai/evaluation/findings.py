"""What an evaluation measured, before it is aggregated: the same for checkpoints and for folders of videos."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from video_mirai.evaluation.detectors import Detector
from video_mirai.evaluation.protocol import Protocol, ScoringConfig
from video_mirai.evaluation.report import Gallery
from video_mirai.evaluation.results import ClipsInfo, ModelInfo, VBenchInfo, VideoSetInfo
from video_mirai.evaluation.row_scores import RowScores


class Comparison(NamedTuple):
    """`row` minus `reference` on the same clips. leave_out: numbers that say nothing there."""

    row: RowScores
    reference: RowScores
    leave_out: Sequence[str] = ()


@dataclass(frozen=True)
class Findings:
    """Everything that `publish` makes files of.

    Attributes:
        settings: resolved, as they are recorded. rules: how the videos were made comparable, by topic.
        galleries: videos already encoded. notes: sentences to show above the results.
    """

    config: ScoringConfig
    settings: dict[str, Any]
    protocol: Protocol
    detectors: dict[str, Detector]
    rows: list[RowScores]
    comparisons: list[Comparison]
    clips: ClipsInfo
    rules: dict[str, str]
    galleries: list[Gallery]
    models: list[ModelInfo] = field(default_factory=list)
    video_sets: list[VideoSetInfo] = field(default_factory=list)
    vbench: list[VBenchInfo] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
