"""Differences between arms, at equal steps and at equal compute, with intervals over seeds and videos.

Every resample draws seeds first and then videos; an arm and the reference are paired by both. A number of a whole set
of videos, such as a Frechet distance, has no videos to draw: its interval is over seeds alone.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from video_mirai.evaluation.bootstrap import LEVEL, paired_bootstrap, paired_seed_bootstrap
from video_mirai.evaluation.results import Estimate
from video_mirai.study.config import PrimaryMetric, StudyConfig
from video_mirai.study.numbers import StudyNumbers, Values, shared

Array = NDArray[np.float64]


class Effect(NamedTuple):
    """An arm minus the reference, or minus another arm.

    Attributes:
        estimate: with its interval, where one can be made. over: what the interval is over, in words.
        student: interval of the seeds' differences by Student's t, which knows how few they are; None for one seed.
        by_seed: {seed: difference}. arm_value, reference_value: means that the difference is of.
        num_videos: compared; 0 for a set's number. dropped: videos left out because some seed has no number there.
    """

    estimate: Estimate
    over: str
    student: tuple[float, float] | None
    by_seed: dict[int, float]
    arm_value: float
    reference_value: float
    num_videos: int
    dropped: int


class EqualCompute(NamedTuple):
    """An arm where it has cost as much as the reference's whole training.

    step: of the arm; capped: it has finished before that. effect: None where it was not evaluated so early.
    """

    step: float
    capped: bool
    effect: Effect | None


def difference(
    numbers: StudyNumbers, metric: PrimaryMetric, arm: str, against: str | None = None, step: int | None = None
) -> Effect | None:
    """After the same steps of both trainings; None where there is nothing to compare yet.

    Args:
        against: another arm; None = the reference, which the arm's own probe has read too.
        step: one of the evaluated ones; None = the end.
    """
    against = numbers.config.reference if against is None else against
    if metric.source == "probe" and against == numbers.config.reference:
        ours, theirs = numbers.probe_pair(metric.target, metric.offset, metric.readout, arm)
    else:
        ours, theirs = (numbers.values(metric, name) for name in (arm, against))
    ours, theirs = shared(ours, theirs)
    place = -1 if step is None else ours.steps.index(step)
    return effect(numbers.config, ours, ours.numbers[:, place], theirs.numbers[:, place]) if ours.numbers.size else None


def effect(config: StudyConfig, axes: Values, ours: Array, theirs: Array) -> Effect | None:
    """Of numbers (seeds, videos); None where no video has a number for every seed."""
    kept = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
    if not kept.any():
        return None
    ours, theirs = ours[:, kept], theirs[:, kept]
    by_seed = (ours - theirs).mean(axis=1)
    low = high = None
    num_seeds, num_videos = ours.shape
    draws, seed = config.num_resamples, config.resampling_seed
    over = "no interval: one seed"
    if num_videos > 1 and num_seeds > 1:
        _, low, high = paired_seed_bootstrap(ours, theirs, num_resamples=draws, seed=seed)
        over = "seeds, then videos"
    elif num_videos > 1:
        _, low, high = paired_bootstrap(ours[0], theirs[0], num_resamples=draws, seed=seed)
        over = "videos alone: one seed"
    elif num_seeds > 1:
        _, low, high = paired_bootstrap(ours[:, 0], theirs[:, 0], num_resamples=draws, seed=seed)
        over = "seeds alone: a number of a whole set"
    is_set = axes.videos == ["set"]
    of_seeds = dict(zip(axes.seeds, by_seed.tolist(), strict=True))
    return Effect(
        Estimate(float(by_seed.mean()), low, high), over, student_interval(by_seed), of_seeds,
        float(ours.mean()), float(theirs.mean()), 0 if is_set else num_videos, int((~kept).sum()),
    )  # fmt: skip


def mean_cost(numbers: StudyNumbers, arm: str) -> float | None:
    """Seconds of a training of an arm, mean over seeds; its teacher is not in it. None before any has finished."""
    costs = [cost for seed in numbers.config.seeds if (cost := numbers.cost(arm, seed, "train")) is not None]
    return float(np.mean([numbers.seconds(cost) for cost in costs])) if costs else None


def teacher_cost(numbers: StudyNumbers, arm: str) -> float:
    """Seconds that an arm's teacher was trained for; 0 without one."""
    name = numbers.config.arms[arm].teacher
    cost = None if name is None else numbers.teacher_cost(name)
    return 0.0 if cost is None else numbers.seconds(cost)


def at_equal_compute(
    numbers: StudyNumbers, metric: PrimaryMetric, arm: str, *, with_teacher: bool
) -> EqualCompute | None:
    """The arm where it has cost what the reference's training costs in all; None where that is not known.

    Args:
        with_teacher: the whole training of the arm's teacher counts as the arm's.
    """
    ours, theirs = shared(numbers.values(metric, arm), numbers.values(metric, numbers.config.reference))
    cost, budget = mean_cost(numbers, arm), mean_cost(numbers, numbers.config.reference)
    if metric.source == "probe" or cost is None or budget is None or not ours.numbers.size:
        return None
    left = budget - (teacher_cost(numbers, arm) if with_teacher else 0.0)
    step = left / cost * numbers.num_steps
    if step < numbers.steps[0]:
        return EqualCompute(step, False, None)
    capped = step > numbers.num_steps
    step = min(step, float(numbers.num_steps))
    then = _at_step(ours.numbers, numbers.steps, step)
    return EqualCompute(step, capped, effect(numbers.config, ours, then, theirs.numbers[:, -1]))


def _at_step(curves: Array, steps: list[int], step: float) -> Array:
    """(seeds, steps, videos) to (seeds, videos), linear between evaluated steps."""
    place = min(int(np.searchsorted(steps, step, side="right")), len(steps) - 1)
    if place == 0:
        return curves[:, 0]
    before, after = steps[place - 1], steps[place]
    part = (step - before) / (after - before)
    return (1 - part) * curves[:, place - 1] + part * curves[:, place]


def student_interval(by_seed: Array) -> tuple[float, float] | None:
    """Interval of the mean of one number per seed (seeds,) by Student's t; None for one seed."""
    if len(by_seed) < 2:
        return None
    reach = student_t.ppf((1 + LEVEL) / 2, len(by_seed) - 1) * by_seed.std(ddof=1) / math.sqrt(len(by_seed))
    return float(by_seed.mean() - reach), float(by_seed.mean() + reach)
