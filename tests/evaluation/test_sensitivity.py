"""A small trial of the metrics; scripts/sensitivity.py makes the large one."""

import numpy as np
import pytest

from video_mirai.evaluation.corruptions import CORRUPTIONS
from video_mirai.evaluation.sensitivity import (
    DOWN,
    EXPECTED,
    UP,
    Response,
    SensitivitySettings,
    measure_sensitivity,
    missed,
    real_against_real,
)


@pytest.mark.slow
def test_every_damage_is_seen_by_the_metrics_that_should_see_it():
    responses = measure_sensitivity(SensitivitySettings(num_videos=4, num_strengths=2))
    assert missed(responses) == []
    assert {corruption for row in responses.values() for corruption in row} == set(CORRUPTIONS) == set(EXPECTED)
    assert responses["consistency"]["freeze"].direction == UP  # which is why the dynamic degree stands beside it


@pytest.mark.slow
def test_real_comes_closer_to_real_as_clips_are_added():
    real = real_against_real(SensitivitySettings(num_clips=64, num_frames=21))
    assert real.counts == [8, 16, 32, 64]
    for label in ("fd_random3d", "fd_state"):
        assert (np.diff(real.distances[label]) < 0).all()
        assert abs(real.distances[f"{label} at infinite N"][-1]) < 0.5 * real.distances[label][-1]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_of_no_strength_is_none_and_more_strength_changes_more(name):
    rng = np.random.default_rng(0)
    frames = np.repeat(np.repeat(0.2 + 0.6 * rng.random((16, 4, 4, 3)), 4, axis=1), 4, axis=2)
    before = frames.copy()
    corruption = CORRUPTIONS[name]
    np.testing.assert_allclose(corruption.apply(frames, 0.0, 1), frames)
    damaged = [corruption.apply(frames, strength, 1) for strength in corruption.strengths]
    changes = [np.abs(changed - frames).mean() for changed in damaged]
    assert (np.diff(changes) > 0).all()
    assert min(map(np.min, damaged)) >= 0
    assert max(map(np.max, damaged)) <= 1
    np.testing.assert_array_equal(frames, before)


def test_response_must_be_monotone_and_above_chance():
    assert Response(np.array([1.0, 2, 3]), floor=1).direction == UP
    assert Response(np.array([1.0, 0, -3]), floor=1).direction == DOWN
    assert Response(np.array([1.0, 2, 3]), floor=2).direction == 0
    assert Response(np.array([1.0, 4, 3]), floor=1).direction == 0


def test_settings_without_a_trial_are_one_clear_line():
    with pytest.raises(ValueError, match="num_frames=16 must be at least 21"):
        SensitivitySettings(num_frames=16)
