"""How many steps an arm needs to be as good as the reference is at its end, with intervals over seeds and videos."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mirai.evaluation.bootstrap import LEVEL
from video_mirai.study.config import PrimaryMetric
from video_mirai.study.numbers import StudyNumbers, shared
from video_mirai.study.statistics import student_interval

Array = NDArray[np.float64]


class Crossing(NamedTuple):
    """When an arm and the reference first have what the reference has at its end, in steps; arm: inf = never."""

    arm: float
    reference: float

    @property
    def ratio(self) -> float:
        """How many times fewer steps the arm needs; 0 where it never gets there."""
        return self.reference / self.arm


class StepsNeeded(NamedTuple):
    """Steps after which an arm first is as good as the reference at its end.

    Attributes:
        mean: of the means over seeds and videos. by_seed: of every seed, against the same seed's reference.
        low, high: interval of the arm's steps, resampled over seeds, then videos; inf = never.
        ratio_low, ratio_high: the same of how many times fewer steps.
        student: interval of the ratio by Student's t of the seeds' log ratios; None for one seed or where a seed never
            gets there.
        at_first: the arm was there at the first evaluated step, so it may have been earlier. reference_at_first: the
            reference was, so that nothing is known of the ratio.
    """

    mean: Crossing
    by_seed: dict[int, Crossing]
    low: float
    high: float
    ratio_low: float
    ratio_high: float
    student: tuple[float, float] | None
    at_first: bool
    reference_at_first: bool

    @property
    def outcome(self) -> str:
        """ "fewer", "more" or "unclear": fewer or more only where both intervals leave 1 out.

        Where a seed never gets there, Student's is missing and the resampled one decides alone.
        """
        low, high = (self.ratio_low, self.ratio_high) if self.student is None else (
            min(self.ratio_low, self.student[0]), max(self.ratio_high, self.student[1])
        )  # fmt: skip
        if len(self.by_seed) < 2 or self.reference_at_first or low <= 1 <= high:
            return "unclear"
        return "fewer" if low > 1 else "more"


def steps_needed(numbers: StudyNumbers, metric: PrimaryMetric, arm: str) -> StepsNeeded | None:
    """When an arm is as good as the reference at its end; linear between evaluated steps. None without numbers.

    The reference's own steps count up to its own first crossing, not to its end: where it has stopped getting better
    long before, nothing was saved after that.
    """
    ours, theirs = shared(numbers.values(metric, arm), numbers.values(metric, numbers.config.reference))
    if metric.source == "probe" or not ours.numbers.size:
        return None
    kept = np.isfinite(ours.numbers).all(axis=(0, 1)) & np.isfinite(theirs.numbers).all(axis=(0, 1))
    if not kept.any():
        return None
    sign = 1.0 if metric.better == "higher" else -1.0
    curves = sign * np.stack([ours.numbers[:, :, kept], theirs.numbers[:, :, kept]])  # (2, seeds, steps, videos)
    num_seeds, num_videos = curves.shape[1], curves.shape[3]
    rng = np.random.default_rng(numbers.config.resampling_seed)
    drawn = []
    for _ in range(numbers.config.num_resamples):
        seeds, videos = rng.integers(num_seeds, size=num_seeds), rng.integers(num_videos, size=num_videos)
        drawn.append(_crossing(curves[:, seeds].mean(axis=1)[:, :, videos].mean(axis=2), numbers.steps))
    by_seed = {seed: _crossing(curves[:, place].mean(axis=2), numbers.steps) for place, seed in enumerate(ours.seeds)}
    mean = _crossing(curves.mean(axis=(1, 3)), numbers.steps)
    return StepsNeeded(
        mean, by_seed, *_ends([found.arm for found in drawn]), *_ends([found.ratio for found in drawn]),
        _student([found.ratio for found in by_seed.values()]), mean.arm == numbers.steps[0],
        any(found.reference == numbers.steps[0] for found in (mean, *by_seed.values())),
    )  # fmt: skip


def first_step(curve: Array, steps: list[int], goal: float) -> float:
    """Where a curve (steps,) first is at least at the goal; inf where it never is."""
    reached = np.flatnonzero(curve >= goal)
    if not len(reached):
        return math.inf
    place = int(reached[0])
    if place == 0:
        return float(steps[0])
    part = (goal - curve[place - 1]) / (curve[place] - curve[place - 1])
    return float(steps[place - 1] + part * (steps[place] - steps[place - 1]))


def _crossing(curves: Array, steps: list[int]) -> Crossing:
    """Of the arm's and the reference's curve (2, steps)."""
    goal = float(curves[1, -1])
    return Crossing(first_step(curves[0], steps, goal), first_step(curves[1], steps, goal))


def _ends(drawn: list[float]) -> tuple[float, float]:
    """Of resampled numbers, some of them infinite."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="closest_observation")
    return float(low), float(high)


def _student(ratios: list[float]) -> tuple[float, float] | None:
    if 0 in ratios:
        return None
    ends = student_interval(np.log(ratios))
    return None if ends is None else (math.exp(ends[0]), math.exp(ends[1]))
