"""A study's tables, as text."""

import math
from typing import NamedTuple

import numpy as np

from video_mirai.evaluation.probe_result import RIDGE
from video_mirai.evaluation.results import format_number
from video_mirai.study.config import PrimaryMetric
from video_mirai.study.numbers import Cost, StudyNumbers, Values
from video_mirai.study.statistics import (
    Effect,
    EqualCompute,
    at_equal_compute,
    difference,
)
from video_mirai.study.steps_needed import StepsNeeded, steps_needed
from video_mirai.study.words import interval_text, outcome

ARROWS = {"higher": "↑", "lower": "↓"}
R2_DECIMALS = 3
COMPARED = ["difference", "95 % interval", "over", "Student's", "outcome"]


class Table(NamedTuple):
    """note: a sentence below the title."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


def study_tables(numbers: StudyNumbers) -> list[Table]:
    """Every table that has rows."""
    made = (
        differences, contrasts, equal_compute, reached, costs, seeds, readings, compared_readings, references, settings,
        commands,
    )  # fmt: skip
    return [table for make in made if (table := make(numbers)).rows]


def differences(numbers: StudyNumbers) -> Table:
    """Every arm against the reference, at the end."""
    reference = numbers.config.reference
    rows = [
        [_title(metric), arm, *_compared(metric, found)]
        for metric in numbers.config.primary
        for arm in _others(numbers)
        if (found := difference(numbers, metric, arm)) is not None
    ]
    note = (
        "Arm minus reference after the whole training. Student's interval is of the seeds' mean differences; with two "
        "or three seeds it is wide, as it should be. “Unclear”: one of the two intervals has 0."
    )
    return Table("Differences", note, ["metric", "arm", reference, "arm's", *COMPARED], rows)


def contrasts(numbers: StudyNumbers) -> Table:
    """The pairs of arms that the config names, at the end."""
    rows = [
        [_title(metric), pair.arm, pair.against, *_compared(metric, found)]
        for metric in numbers.config.primary
        for pair in numbers.config.contrasts
        if (found := difference(numbers, metric, pair.arm, pair.against)) is not None
    ]
    note = "One arm minus another, instead of minus the reference. Not among the primary comparisons."
    return Table("Arms against each other", note, ["metric", "arm", "against", "against's", "arm's", *COMPARED], rows)


def equal_compute(numbers: StudyNumbers) -> Table:
    """Every arm where it has cost as much as the reference's training, without and with its teacher's training."""
    rows = []
    for metric in numbers.config.primary:
        for arm in _others(numbers):
            for with_teacher in (False, True) if numbers.config.arms[arm].teacher is not None else (False,):
                found = at_equal_compute(numbers, metric, arm, with_teacher=with_teacher)
                if found is not None:
                    counted = "counted" if with_teacher else "not counted"
                    rows.append([_title(metric), arm, counted, *_at_equal_compute(metric, found)])
    note = (
        f"Where an arm has cost what {numbers.config.reference} costs in all, by mean cost over seeds; linear between "
        "evaluated steps. “Counted”: the whole training of its teacher is the arm's, as if no other arm used it."
    )
    columns = ["metric", "arm", "teacher", "step", numbers.config.reference, "arm's", *COMPARED]
    return Table("At equal compute", note, columns, rows)


def _at_equal_compute(metric: PrimaryMetric, found: EqualCompute) -> list[str]:
    """The step, and both values and the cells under COMPARED, or why there are none."""
    if found.effect is None:
        why = "the teacher alone costs more" if found.step <= 0 else f"{found.step:.0f}: not evaluated so early"
        return [why, *["–"] * (2 + len(COMPARED))]
    return [f"{found.step:.0f}" + " (its end: cheaper)" * found.capped, *_compared(metric, found.effect)]


def _compared(metric: PrimaryMetric, found: Effect) -> list[str]:
    """Both values and the cells under COMPARED."""
    student = "–"
    if found.student is not None:
        low, high = (format_number(end, metric.decimals, signed=True) for end in found.student)
        student = f"[{low}, {high}]"
    return [
        _number(found.reference_value, metric), _number(found.arm_value, metric),
        format_number(found.estimate.value, metric.decimals, signed=True),
        interval_text(found.estimate, metric.decimals) or "–", found.over, student, outcome(metric, found),
    ]  # fmt: skip


def reached(numbers: StudyNumbers) -> Table:
    """How many steps an arm needs for what the reference has at its end."""
    rows = []
    for metric in numbers.config.primary:
        for arm in _others(numbers):
            found = steps_needed(numbers, metric, arm)
            if found is not None:
                rows.append([_title(metric), arm, *_needed(found)])
    note = (
        f"Evaluated at steps {', '.join(map(str, numbers.steps))}, first crossing of "
        f"{numbers.config.reference}'s final mean, linear between them, so no finer than they lie apart. “Times fewer” "
        "counts the reference up to its own first crossing. By seed: arm / reference. Steps are not compute: see the "
        "costs."
    )
    columns = ["metric", "arm", "steps needed", "95 % interval", f"{numbers.config.reference}'s own", "times fewer",
               "95 % interval", "Student's", "outcome", "by seed"]  # fmt: skip
    return Table("Steps to the reference's final quality", note, columns, rows)


def _needed(found: StepsNeeded) -> list[str]:
    """The cells after metric and arm."""
    student = "–" if found.student is None else _interval(*map(_ratio, found.student))
    by_seed = [
        f"{seed}: {_steps(crossing.arm)} / {_steps(crossing.reference)}" for seed, crossing in found.by_seed.items()
    ]
    return [
        "at most " * found.at_first + _steps(found.mean.arm), _interval(_steps(found.low), _steps(found.high)),
        _steps(found.mean.reference), "at least " * found.at_first + _ratio(found.mean.ratio),
        _interval(_ratio(found.ratio_low), _ratio(found.ratio_high)), student, found.outcome, ", ".join(by_seed),
    ]  # fmt: skip


def costs(numbers: StudyNumbers) -> Table:
    """CPU and wall seconds of every arm's training, its teacher's, its evaluations'."""
    rows = []
    reference = _mean([c.cpu_seconds for c in _costs(numbers, numbers.config.reference, "train")])
    for arm, spec in numbers.config.arms.items():
        found = _costs(numbers, arm, "train")
        if not found:
            continue
        cpu, wall = (
            _mean([vars_[key] for vars_ in (c._asdict() for c in found)]) for key in ("cpu_seconds", "wall_seconds")
        )
        teacher = None if spec.teacher is None else numbers.teacher_cost(spec.teacher)
        other = sum(c.cpu_seconds for kind in ("evaluate", "probe") for c in _costs(numbers, arm, kind))
        rows.append([
            arm, f"{cpu:.0f}", f"{1000 * cpu / numbers.num_steps:.1f}", f"{cpu / reference:.2f}" if reference else "–",
            f"{wall:.0f}",
            "–" if teacher is None else f"{teacher.cpu_seconds:.0f}", f"{other:.0f}",
            str(sum(c.attempts - 1 for c in found)),
        ])  # fmt: skip
    note = (
        "Of one training, mean over seeds, start-up, validation and checkpoints included. A teacher is trained once "
        "for all of its arms and seeds. Work that a kill undid is counted where it was done twice."
    )
    columns = ["arm", "CPU s", "CPU ms a step", f"times {numbers.config.reference}", "wall s", "teacher's CPU s",
               "evaluation and probe CPU s, all seeds", "restarts"]  # fmt: skip
    return Table("Cost", note, columns, rows)


def seeds(numbers: StudyNumbers) -> Table:
    """Every seed's value at the end; of a set's number, too."""
    rows = []
    for metric in numbers.config.primary:
        for arm in numbers.config.arms:
            values = numbers.values(metric, arm)
            if values.seeds:
                last = dict(zip(values.seeds, values.numbers[:, -1], strict=True))
                cells = [_number(_mean_of(last.get(seed)), metric) for seed in numbers.config.seeds]
                rows.append([_title(metric), arm, *cells])
    columns = ["metric", "arm", *(f"seed {seed}" for seed in numbers.config.seeds)]
    return Table("Every seed", "Means over the videos that have a number.", columns, rows)


def readings(numbers: StudyNumbers) -> Table:
    """R2 of everything that was probed, of every arm and of what needs no training."""
    others = {(found["predictor"], found["target"], found["offset"]): found["r2"]
              for found in numbers.facts.get("probe_others", [])}  # fmt: skip
    predictors = list(dict.fromkeys(predictor for predictor, _, _ in others))
    rows = []
    for target, offset, readout in numbers.probe_places():
        if readout == RIDGE:
            found = [_mean_of(values.numbers[:, -1]) for values in _read_states(numbers, target, offset)]
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
    pairs = [(arm, reference) for arm in _others(numbers)]
    pairs += [(pair.arm, pair.against) for pair in numbers.config.contrasts]
    rows = []
    for target, offset, readout in numbers.probe_places():
        if readout == RIDGE:
            place = PrimaryMetric("", "probe", "higher", target=target, offset=offset)
            found = [difference(numbers, place, arm, against) for arm, against in pairs]
            rows.append([target, str(offset), *("–" if e is None else _compared_reading(place, e) for e in found)])
    note = (
        "R2 of the first minus R2 of the second, 95 % interval over seeds and videos; “unclear”: it or Student's has "
        "0. Only the places among the primary metrics were chosen beforehand."
    )
    columns = ["target", "frames ahead", *(f"{arm} - {against}" for arm, against in pairs)]
    return Table("What the states know, arms beside each other", note, columns, rows)


def _compared_reading(place: PrimaryMetric, found: Effect) -> str:
    value = format_number(found.estimate.value, R2_DECIMALS, signed=True)
    return f"{value} {interval_text(found.estimate, R2_DECIMALS)} {outcome(place, found)}"


def _r2(value: float | None) -> str:
    """Without the sign of a rounded zero."""
    return "–" if value is None else f"{round(value, R2_DECIMALS) + 0.0:.{R2_DECIMALS}f}"


def _read_states(numbers: StudyNumbers, target: str, offset: int) -> list[Values]:
    """Of every arm; the reference's is in the others' probes."""
    others = _others(numbers)
    return [
        numbers.probe_pair(target, offset, RIDGE, others[0])[1] if arm == numbers.config.reference
        else numbers.probe_pair(target, offset, RIDGE, arm)[0]
        for arm in numbers.config.arms
    ]  # fmt: skip


def references(numbers: StudyNumbers) -> Table:
    """What copying, reading the truth and other real videos score in the same metrics."""
    metrics = [metric for metric in numbers.config.primary if metric.source != "probe"]
    rows = []
    for row in numbers.facts.get("reference_rows", []):
        cells = []
        for metric in metrics:
            windows = row["windows"]
            inside = -len(windows) <= metric.window < len(windows)
            found = windows[metric.window] if metric.source == "window" and inside else {}
            cells.append(_number((row["metrics"] if metric.source == "video" else found).get(metric.key), metric))
        if any(cell != "–" for cell in cells):
            rows.append([row["row"], *cells])
    note = "The same videos: what a frozen frame reaches, what the reader makes of the truth, what real video is like."
    return Table("For comparison", note, ["row", *map(_title, metrics)], rows)


def settings(numbers: StudyNumbers) -> Table:
    """Settings in which the arms are not all alike."""
    others = _others(numbers)
    values: dict[str, dict[str, str]] = {}
    reference: dict[str, str] = {}
    for arm, key, before, value in numbers.facts["differences"]:
        values.setdefault(key, {})[arm] = value
        reference[key] = before
    rows = [
        [key, reference[key], *(by_arm.get(arm, reference[key]) for arm in others)] for key, by_arm in values.items()
    ]
    note = "All other settings are equal; the runner refuses a study in which they are not."
    return Table("How the arms differ", note, ["setting", numbers.config.reference, *others], rows)


def commands(numbers: StudyNumbers) -> Table:
    """What regenerates everything, and what it ran, once for every kind of job."""
    name = numbers.config.name
    rows = [
        ["everything", f"python scripts/study.py --config configs/study/{name}.yaml"],
        [
            "this report, from the small files",
            f"python scripts/study.py --config configs/study/{name}.yaml --only report",
        ],
    ]
    seed = numbers.config.seeds[0]
    for teacher in numbers.config.teachers:
        rows += _called(f"teacher {teacher}", numbers.teacher_cost(teacher))
    for arm in numbers.config.arms:
        for kind in ("train", "evaluate", "probe"):
            rows += _called(f"{kind} {arm}, seed {seed}", numbers.cost(arm, seed, kind))
    return Table("Commands", "", ["what", "command"], rows)


def _called(what: str, cost: Cost | None) -> list[list[str]]:
    return [] if cost is None else [[f"{what} (code {cost.revision[:12]})", command] for command in cost.commands]


def _costs(numbers: StudyNumbers, arm: str, kind: str) -> list[Cost]:
    return [cost for seed in numbers.config.seeds if (cost := numbers.cost(arm, seed, kind)) is not None]


def _interval(low: str, high: str) -> str:
    return f"[{low}, {high}]"


def _ratio(ratio: float) -> str:
    return "not reached" if ratio == 0 else f"{ratio:.2f}"


def _steps(steps: float) -> str:
    return "not reached" if math.isinf(steps) else f"{steps:.0f}"


def _number(value: float | None, metric: PrimaryMetric) -> str:
    return "–" if value is None or not math.isfinite(value) else format_number(value, metric.decimals)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _mean_of(values: np.ndarray | None) -> float | None:
    """Of those that are finite."""
    kept = values[np.isfinite(values)] if values is not None else np.zeros(0)
    return float(kept.mean()) if kept.size else None


def _title(metric: PrimaryMetric) -> str:
    return f"{metric.name} {ARROWS[metric.better]}"


def _others(numbers: StudyNumbers) -> list[str]:
    return [arm for arm in numbers.config.arms if arm != numbers.config.reference]
