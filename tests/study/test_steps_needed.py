"""Steps to the reference's final quality, from small files that hold chosen numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
from study_results import DISTANCE, KEPT, STEPS, write_study

from video_mirai.study.numbers import StudyNumbers
from video_mirai.study.steps_needed import first_step, steps_needed
from video_mirai.study.tables import reached


def needed(folder: Path, **changes):
    write_study(folder, **changes)
    return steps_needed(StudyNumbers(folder), KEPT, "foresight")


def test_steps_are_interpolated_between_milestones(tmp_path: Path) -> None:
    # 4 a doubling: 2 more than the baseline is half of the way from step 50 to 100.
    found = needed(tmp_path, gains={"foresight": 2.0})
    assert (found.mean.arm, found.low, found.high) == pytest.approx((75, 75, 75))
    assert {seed: crossing.arm for seed, crossing in found.by_seed.items()} == pytest.approx({1: 75, 2: 75, 3: 75})
    assert (found.mean.ratio, found.ratio_low, found.ratio_high) == pytest.approx((100 / 75,) * 3)
    assert found.student == pytest.approx((100 / 75, 100 / 75))
    assert found.outcome == "fewer"
    assert steps_needed(StudyNumbers(tmp_path), DISTANCE, "foresight").mean.arm == pytest.approx(75)


def test_a_reference_that_stopped_getting_better_long_ago_saves_nobody_any_steps(tmp_path: Path) -> None:
    # Both peak at step 50 and fall back to what they had at 25 + half of the way to 50.
    found = needed(tmp_path, gains={}, levels=[0.0, 4.0, 2.0])
    assert (found.mean.arm, found.mean.reference) == pytest.approx((37.5, 37.5))
    assert found.mean.ratio == pytest.approx(1)
    assert found.outcome == "unclear"


def test_where_the_reference_is_there_at_the_first_step_too_nothing_is_known_of_the_ratio(tmp_path: Path) -> None:
    found = needed(tmp_path, gains={"foresight": 2.0}, levels=[8.0, 4.0, 2.0])
    assert found.at_first and found.reference_at_first
    assert found.outcome == "unclear"
    assert reached(StudyNumbers(tmp_path)).rows[0][2:9] == ["at most 25", "[25, 25]", "25", "–", "–", "–", "unclear"]


def test_a_worse_arm_never_reaches_the_reference(tmp_path: Path) -> None:
    found = needed(tmp_path, gains={"foresight": -1.0})
    assert found.mean.arm == found.low == found.high == math.inf
    assert (found.mean.ratio, found.student, found.outcome) == (0, None, "more")
    row = next(row for row in reached(StudyNumbers(tmp_path)).rows if row[:2] == ["Kept track ↑", "foresight"])
    assert row[2:8] == [
        "not reached", "[not reached, not reached]", "100", "not reached", "[not reached, not reached]", "–"
    ]  # fmt: skip


def test_the_first_evaluated_step_is_an_upper_bound(tmp_path: Path) -> None:
    found = needed(tmp_path, gains={"foresight": 20.0})
    assert found.at_first and found.mean.arm == STEPS[0]
    assert reached(StudyNumbers(tmp_path)).rows[0][2:6] == ["at most 25", "[25, 25]", "100", "at least 4.00"]


def test_seeds_that_disagree_about_the_steps_show_no_difference(tmp_path: Path) -> None:
    # Every seed is faster than the baseline, one by a hair and one by far: only Student's interval knows.
    found = needed(tmp_path, gains={"foresight": 0.2}, seed_gains={2: 2.0, 3: 6.0})
    assert found.ratio_low > 1
    assert found.student[0] < 1 < found.student[1]
    assert found.outcome == "unclear"


def test_the_first_crossing_counts() -> None:
    assert first_step(np.array([0.0, 2.0, 1.0]), [10, 20, 30], 1.0) == 15
