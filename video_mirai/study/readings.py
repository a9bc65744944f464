"""What a study's probes read from the states, as tables."""

from video_mirai.evaluation.probe_result import RIDGE
from video_mirai.study.config import PrimaryMetric
from video_mirai.study.numbers import StudyNumbers, Values
from video_mirai.study.statistics import difference
from video_mirai.study.tables import Table, compared, mean_of, other_arms

R2_DECIMALS = 3


def readings(numbers: StudyNumbers) -> Table:
    """R2 of everything that was probed, of every arm and of what needs no training."""
    others = {(found["predictor"], found["target"], found["offset"]): found["r2"]
              for found in numbers.facts.get("probe_others", [])}  # fmt: skip
    predictors = list(dict.fromkeys(predictor for predictor, _, _ in others))
    rows = []
    for target, offset, readout in numbers.probe_places():
        if readout == RIDGE:
            found = [mean_of(values.numbers[:, -1]) for values in _read_states(numbers, target, offset)]
            found += [others.get((predictor, target, offset)) for predictor in predictors]
            rows.append([target, str(offset), *map(_r2, found)])
    note = (
        "R2 by ridge regression, mean over seeds and test videos. States are those of noisy frames; copy, raw pixels "
        "and constant velocity are given the clean frame, or the true state, so they are no floor for the arms but a "
        "measure of how much there is to know. What is beside the arms is of one probe."
    )
    return Table("What the states know", note, ["target", "frames ahead", *numbers.config.arms, *predictors], rows)


def compared_readings(numbers: StudyNumbers) -> Table:
    """Differences of R2 of everything that was probed: every arm against the reference, and the config's contrasts."""
    reference = numbers.config.reference
    pairs = [(arm, reference) for arm in other_arms(numbers)]
    pairs += [(pair.arm, pair.against) for pair in numbers.config.contrasts]
    rows = []
    for target, offset, readout in numbers.probe_places():
        if readout == RIDGE:
            place = PrimaryMetric("", "probe", "higher", target=target, offset=offset, decimals=R2_DECIMALS)
            found = [difference(numbers, place, arm, against) for arm, against in pairs]
            rows.append([target, str(offset), *("–" if e is None else compared(place, e) for e in found)])
    note = (
        "R2 of the first minus R2 of the second, 95 % interval over seeds and videos; “unclear”: it or Student's has "
        "0. Only the places among the primary metrics were chosen beforehand."
    )
    columns = ["target", "frames ahead", *(f"{arm} - {against}" for arm, against in pairs)]
    return Table("What the states know, arms beside each other", note, columns, rows)


def _r2(value: float | None) -> str:
    """Without the sign of a rounded zero."""
    return "–" if value is None else f"{round(value, R2_DECIMALS) + 0.0:.{R2_DECIMALS}f}"


def _read_states(numbers: StudyNumbers, target: str, offset: int) -> list[Values]:
    """Of every arm; the reference's is in the others' probes."""
    others = other_arms(numbers)
    return [
        numbers.probe_pair(target, offset, RIDGE, others[0])[1] if arm == numbers.config.reference
        else numbers.probe_pair(target, offset, RIDGE, arm)[0]
        for arm in numbers.config.arms
    ]  # fmt: skip
