"""What a study's probes read from the states, as tables."""

from video_mirai.evaluation.probe_result import RIDGE
from video_mirai.study.config import PrimaryMetric
from video_mirai.study.numbers import StudyNumbers
from video_mirai.study.statistics import difference
from video_mirai.study.tables import Table, difference_cell, mean_of

R2_DECIMALS = 3


def readings(numbers: StudyNumbers) -> Table:
    """R2 of everything that ridge regression read, of every arm and of what needs no training."""
    others = {(found["predictor"], found["target"], found["offset"]): found["r2"]
              for found in numbers.facts.get("probe_others", [])}  # fmt: skip
    predictors = list(dict.fromkeys(predictor for predictor, _, _ in others))
    rows = []
    for metric in _ridge_metrics(numbers):
        found = [mean_of(numbers.values(metric, arm).numbers[:, -1]) for arm in numbers.config.arms]
        found += [others.get((predictor, metric.target, metric.offset)) for predictor in predictors]
        rows.append([metric.target, str(metric.offset), *map(_r2, found)])
    note = (
        "R2 by ridge regression, mean over seeds and test videos. States are those of noisy frames; copy, raw pixels "
        "and constant velocity are given the clean frame, or the true state, so they are no floor for the arms but a "
        "measure of how much there is to know. What is beside the arms is of one probe."
    )
    return Table("What the states know", note, ["target", "frames ahead", *numbers.config.arms, *predictors], rows)


def compared_readings(numbers: StudyNumbers) -> Table:
    """Differences of that R2: every arm against the reference, and the pairs that the config contrasts."""
    reference = numbers.config.reference
    pairs = [(arm, reference) for arm in numbers.other_arms()]
    pairs += [(pair.arm, pair.against) for pair in numbers.config.contrasts]
    rows = []
    for metric in _ridge_metrics(numbers):
        found = [difference(numbers, metric, arm, against) for arm, against in pairs]
        cells = ["–" if effect is None else difference_cell(metric, effect) for effect in found]
        rows.append([metric.target, str(metric.offset), *cells])
    note = (
        "R2 of the first minus R2 of the second, 95 % interval over seeds and videos, then Student's; “unclear”: one "
        "of them has 0. Only the places among the primary metrics were chosen beforehand."
    )
    columns = ["target", "frames ahead", *(f"{arm} - {against}" for arm, against in pairs)]
    return Table("What the states know, arms beside each other", note, columns, rows)


def _ridge_metrics(numbers: StudyNumbers) -> list[PrimaryMetric]:
    """Everything that ridge regression read, as metrics."""
    return [
        PrimaryMetric("", "probe", "higher", target=target, offset=offset, decimals=R2_DECIMALS)
        for target, offset, readout in numbers.probe_places()
        if readout == RIDGE
    ]


def _r2(value: float | None) -> str:
    """Without the sign of a rounded zero."""
    return "–" if value is None else f"{round(value, R2_DECIMALS) + 0.0:.{R2_DECIMALS}f}"
