"""Differences, steps and compute, from small files that hold chosen numbers."""

from pathlib import Path

import numpy as np
import pytest
from study_results import DISTANCE, KEPT, PROBE, study_config, write_study

from video_mirai.study.numbers import StudyNumbers, Values
from video_mirai.study.statistics import at_equal_compute, difference, effect
from video_mirai.study.words import metric_sentences, outcome


@pytest.fixture
def numbers(tmp_path: Path) -> StudyNumbers:
    write_study(tmp_path, gains={"foresight": 2.0})
    return StudyNumbers(tmp_path)


def random_effect(tmp_path: Path, seed_shift: list[float], noise: float = 0.1):
    """Of made-up arms (seeds, videos) that differ by `seed_shift` and little noise."""
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=(len(seed_shift), 40))
    ours = theirs + np.array(seed_shift)[:, None] + noise * rng.normal(size=theirs.shape)
    axes = Values(ours[:, None], list(range(len(seed_shift))), [100], [str(video) for video in range(40)])
    return effect(study_config(tmp_path), axes, ours, theirs)


def test_differences_of_every_source_are_what_was_put_in(numbers: StudyNumbers) -> None:
    found = {metric.name: difference(numbers, metric, "foresight") for metric in (KEPT, DISTANCE, PROBE)}
    assert [round(e.estimate.value, 6) for e in found.values()] == [2.0, -2.0, 0.02]
    assert [e.num_videos for e in found.values()] == [6, 0, 6]
    assert found["Last window"].over.startswith("seeds alone")
    assert list(found["Kept track"].by_seed) == [1, 2, 3]


def test_two_arms_are_compared_with_each_other_in_every_source(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0, "window0": 1.5})
    numbers = StudyNumbers(tmp_path)
    found = [difference(numbers, metric, "foresight", "window0") for metric in (KEPT, DISTANCE, PROBE)]
    assert [round(e.estimate.value, 6) for e in found] == [0.5, -0.5, 0.005]
    assert [round(e.arm_value - e.reference_value, 6) for e in found] == [0.5, -0.5, 0.005]


def test_seeds_that_disagree_widen_the_interval_however_sure_each_is(tmp_path: Path) -> None:
    agreeing, disagreeing = random_effect(tmp_path, [1.0, 1.0, 1.0]), random_effect(tmp_path, [0.0, 1.0, 2.0])
    widths = [e.estimate.high - e.estimate.low for e in (agreeing, disagreeing)]
    assert widths[1] > 10 * widths[0]


def test_three_seeds_that_merely_agree_in_sign_show_no_difference(tmp_path: Path) -> None:
    found = random_effect(tmp_path, [0.2, 1.0, 2.5])
    assert found.estimate.excludes_zero
    assert outcome(KEPT, found) == "unclear"
    assert outcome(KEPT, random_effect(tmp_path, [1.0, 1.05, 0.95])) == "better"


def test_videos_without_a_number_for_some_seed_are_left_out_and_counted(tmp_path: Path) -> None:
    ours, theirs = np.ones((2, 4)), np.zeros((2, 4))
    ours[0, 1] = np.nan
    theirs[1, 3] = np.nan
    found = effect(study_config(tmp_path), Values(ours[:, None], [1, 2], [1], list("abcd")), ours, theirs)
    assert (found.num_videos, found.dropped, found.estimate.value) == (2, 2, 1.0)


def test_one_seed_gives_an_interval_over_videos_that_says_so(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0}, seeds=(1,))
    numbers = StudyNumbers(tmp_path)
    assert difference(numbers, KEPT, "foresight").over == "videos alone: one seed"
    assert difference(numbers, DISTANCE, "foresight").estimate.low is None
    assert "without an interval" in metric_sentences(numbers)[1]


def test_equal_compute_takes_the_dearer_arm_where_it_has_cost_as_much(numbers: StudyNumbers) -> None:
    # Foresight costs twice as much a step, and its teacher 40 of the baseline's 100 seconds.
    alone = at_equal_compute(numbers, KEPT, "foresight", with_teacher=False)
    taught = at_equal_compute(numbers, KEPT, "foresight", with_teacher=True)
    assert (alone.step, alone.effect.estimate.value) == (50, 2 - 4)
    assert taught.step == 30
    assert taught.effect.estimate.value == pytest.approx(2 - 4 - 4 * 20 / 25)


def test_an_arm_that_was_not_evaluated_so_early_is_not_compared(tmp_path: Path) -> None:
    write_study(tmp_path, gains={})
    (tmp_path / "teachers" / "wise" / "teacher.json").write_text(
        '{"cpu_seconds": 90, "wall_seconds": 1, "attempts": [], "revision": "", "commands": []}'
    )
    assert at_equal_compute(StudyNumbers(tmp_path), KEPT, "foresight", with_teacher=True).effect is None
