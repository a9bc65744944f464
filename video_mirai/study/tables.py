"""A study's tables, as text."""

import math
from typing import NamedTuple

import numpy as np

from video_mirai.evaluation.results import Estimate, format_number
from video_mirai.study.config import PrimaryMetric
from video_mirai.study.numbers import Cost, StudyNumbers
from video_mirai.study.statistics import (
    Effect,
    EqualCompute,
    at_equal_compute,
    difference,
)
from video_mirai.study.steps_needed import StepsNeeded, steps_needed
from video_mirai.study.words import interval_text, outcome

ARROWS = {"higher": "↑", "lower": "↓"}
COMPARED = ["difference", "95 % interval", "over", "Student's", "outcome"]


class Table(NamedTuple):
    """note: a sentence below the title."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


def differences(numbers: StudyNumbers) -> Table:
    """Every arm against the reference, at the end."""
    reference = numbers.config.reference
    rows = [
        [titled(metric), arm, *_difference_cells(metric, found)]
        for metric in numbers.config.primary
        for arm in numbers.other_arms()
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
        [titled(metric), pair.arm, pair.against, *_difference_cells(metric, found)]
        for metric in numbers.config.primary
        for pair in numbers.config.contrasts
        if (found := difference(numbers, metric, pair.arm, pair.against)) is not None
    ]
    note = "One arm minus another, instead of minus the reference. Not among the primary comparisons."
    return Table("Arms against each other", note, ["metric", "arm", "against", "against's", "arm's", *COMPARED], rows)


def on_the_way(numbers: StudyNumbers) -> Table:
    """Every arm against the reference, and the config's contrasts, at the milestones before the end."""
    pairs = [(arm, numbers.config.reference) for arm in numbers.other_arms()]
    pairs += [(pair.arm, pair.against) for pair in numbers.config.contrasts]
    rows = []
    for metric in (metric for metric in numbers.config.primary if metric.source != "probe"):
        for arm, against in pairs:
            found = [difference(numbers, metric, arm, against, step) for step in numbers.steps[:-1]]
            if any(found):
                rows.append(
                    [titled(metric), arm, against, *("–" if e is None else difference_cell(metric, e) for e in found)]
                )
    note = (
        "Arm minus the other after so many steps of both, averaged weights; 95 % interval over seeds and videos, "
        "then Student's; “unclear”: one of them has 0. The primary comparison is that at the end."
    )
    columns = ["metric", "arm", "against", *(f"step {step}" for step in numbers.steps[:-1])]
    return Table("On the way", note, columns, rows)


def difference_cell(metric: PrimaryMetric, found: Effect) -> str:
    """Value, interval, Student's interval and outcome in one cell."""
    value = format_number(found.estimate.value, metric.decimals, signed=True)
    words = [value, interval_text(found.estimate, metric.decimals), _student(metric, found), outcome(metric, found)]
    return " ".join(word for word in words if word)


def equal_compute(numbers: StudyNumbers) -> Table:
    """Every arm where it has cost as much as the reference's training, without and with its teacher's training."""
    rows = []
    for metric in numbers.config.primary:
        for arm in numbers.other_arms():
            for with_teacher in (False, True) if numbers.config.arms[arm].teacher is not None else (False,):
                found = at_equal_compute(numbers, metric, arm, with_teacher=with_teacher)
                if found is not None:
                    counted = "counted" if with_teacher else "not counted"
                    rows.append([titled(metric), arm, counted, *_at_equal_compute(metric, found)])
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
    return [f"{found.step:.0f}" + " (its end: cheaper)" * found.capped, *_difference_cells(metric, found.effect)]


def _difference_cells(metric: PrimaryMetric, found: Effect) -> list[str]:
    """Both values and the cells under COMPARED."""
    return [
        _number(found.reference_value, metric), _number(found.arm_value, metric),
        format_number(found.estimate.value, metric.decimals, signed=True),
        interval_text(found.estimate, metric.decimals) or "–", found.over, _student(metric, found) or "–",
        outcome(metric, found),
    ]  # fmt: skip


def _student(metric: PrimaryMetric, found: Effect) -> str:
    """Empty for one seed."""
    return "" if found.student is None else interval_text(Estimate(0.0, *found.student), metric.decimals)


def reached(numbers: StudyNumbers) -> Table:
    """How many steps an arm needs for what the reference has at its end."""
    rows = []
    for metric in numbers.config.primary:
        for arm in numbers.other_arms():
            found = steps_needed(numbers, metric, arm)
            if found is not None:
                rows.append([titled(metric), arm, *_needed(found)])
    note = (
        f"Evaluated at steps {', '.join(map(str, numbers.steps))}, first crossing of "
        f"{numbers.config.reference}'s final mean, linear between them, so no finer than they lie apart. “Times fewer” "
        "counts the reference up to its own first crossing, and is not known where that is the first evaluated step in "
        "some seed. By seed: arm / reference. Steps are not compute: see the costs."
    )
    columns = ["metric", "arm", "steps needed", "95 % interval", f"{numbers.config.reference}'s own", "times fewer",
               "95 % interval", "Student's", "outcome", "by seed"]  # fmt: skip
    return Table("Steps to the reference's final quality", note, columns, rows)


def _needed(found: StepsNeeded) -> list[str]:
    """The cells after metric and arm."""
    ratio = ["–"] * 3
    if not found.reference_at_first:
        student = "–" if found.student is None else _interval(*map(_ratio, found.student))
        ends = _interval(_ratio(found.ratio_low), _ratio(found.ratio_high))
        ratio = ["at least " * found.at_first + _ratio(found.mean.ratio), ends, student]
    by_seed = [
        f"{seed}: {_steps(crossing.arm)} / {_steps(crossing.reference)}" for seed, crossing in found.by_seed.items()
    ]
    return [
        "at most " * found.at_first + _steps(found.mean.arm), _interval(_steps(found.low), _steps(found.high)),
        _steps(found.mean.reference), *ratio, found.outcome, ", ".join(by_seed),
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
                cells = [_number(mean_of(last.get(seed)), metric) for seed in numbers.config.seeds]
                rows.append([titled(metric), arm, *cells])
    columns = ["metric", "arm", *(f"seed {seed}" for seed in numbers.config.seeds)]
    return Table("Every seed", "Means over the videos that have a number.", columns, rows)


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
    return Table("For comparison", note, ["row", *map(titled, metrics)], rows)


def settings(numbers: StudyNumbers) -> Table:
    """Settings in which the arms are not all alike."""
    others = numbers.other_arms()
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


def mean_of(values: np.ndarray | None) -> float | None:
    """Of those that are finite."""
    kept = values[np.isfinite(values)] if values is not None else np.zeros(0)
    return float(kept.mean()) if kept.size else None


def titled(metric: PrimaryMetric) -> str:
    """A metric's name, with an arrow to its better side."""
    return f"{metric.name} {ARROWS[metric.better]}"
