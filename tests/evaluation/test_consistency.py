import numpy as np
import pytest
from reference_values import CASES, VALUES, close

from video_mirai.evaluation.consistency import (
    background_consistency,
    builtin_frame_features,
    consistency_per_frame,
    cosine_by_lag,
    dynamic_degree,
    subject_consistency,
)


def moving_square(num_frames=12, size=32, speed=1):
    frames = np.full((num_frames, size, size, 3), 0.2)
    for index in range(num_frames):
        frames[index, 8:16, 2 + speed * index : 10 + speed * index] = [0.9, 0.5, 0.1]
    return frames


def test_subject_consistency_meets_the_reference():
    value = subject_consistency(CASES["frame_features"]())
    assert close(value, VALUES["long_horizon"]["subject_consistency(frame_features)"])


def test_background_consistency_is_the_same_formula():
    features = CASES["frame_features"]()
    assert background_consistency(features) == subject_consistency(features)


def test_frozen_video_is_fully_consistent_and_has_no_dynamic_degree():
    frozen = np.repeat(moving_square(1), 6, axis=0)
    assert subject_consistency(builtin_frame_features(frozen)) == pytest.approx(1)
    assert dynamic_degree(frozen) == 0


def test_consistency_ignores_the_length_of_features_and_floors_opposite_ones():
    features = np.random.default_rng(0).standard_normal((6, 4))
    scaled = features * np.arange(1.0, 7.0)[:, None]
    np.testing.assert_allclose(consistency_per_frame(scaled), consistency_per_frame(features))
    assert subject_consistency(np.array([[1.0, 0], [-1, 0]])) == 0


def test_faster_motion_raises_dynamic_degree_and_lowers_consistency():
    slow, fast = moving_square(speed=1), moving_square(speed=2)
    assert dynamic_degree(slow) < dynamic_degree(fast)
    assert subject_consistency(builtin_frame_features(slow)) > subject_consistency(builtin_frame_features(fast))


def test_dynamic_degree_is_in_grey_levels():
    frames = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 10 / 255)])
    assert dynamic_degree(frames) == pytest.approx(10)


def test_cosine_by_lag_sees_slow_drift_that_neighbours_hide():
    angles = np.linspace(0, np.pi / 2, 31)
    result = cosine_by_lag(np.stack([np.cos(angles), np.sin(angles)], axis=1), lags=(1, 10, 30, 50))
    assert result.lags == (1, 10, 30)
    np.testing.assert_allclose(result.cosine, np.cos(np.pi / 60 * np.array([1, 10, 30])), atol=1e-12)


def test_builtin_features_see_colour_and_layout_but_not_size():
    frames = moving_square(2)
    recoloured, mirrored = frames[..., ::-1], frames[:, :, ::-1]
    features = builtin_frame_features(frames)[0]
    np.testing.assert_allclose(np.linalg.norm(features), 1, atol=1e-6)
    assert features @ builtin_frame_features(recoloured)[0] < 0.99
    assert features @ builtin_frame_features(mirrored)[0] < 0.8
    doubled = frames.repeat(2, axis=1).repeat(2, axis=2)
    assert features @ builtin_frame_features(doubled)[0] > 0.99


def test_flat_frames_have_finite_features():
    assert subject_consistency(builtin_frame_features(np.full((3, 16, 16, 3), 0.5))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.ones((1, 4)), "2 frames or more"),
        (np.ones(4), "2 frames or more"),
        (np.ones((0, 4)), "2 frames or more"),
        ([np.ones(4), np.ones(3)], "different shapes"),
        (np.zeros((3, 4)), "zero, NaN"),
        (np.full((3, 4), np.nan), "zero, NaN"),
    ],
)
def test_bad_features_are_one_clear_line(features, words):
    with pytest.raises(ValueError, match=words):
        subject_consistency(features)


def test_frames_smaller_than_the_grid_are_refused():
    with pytest.raises(ValueError, match="grid"):
        builtin_frame_features(np.zeros((2, 4, 4, 3)))
