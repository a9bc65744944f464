import numpy as np
import pytest
from reference_values import VALUES, close

from video_mirai.evaluation.frechet import frechet_distance
from video_mirai.evaluation.horizon import (
    drift,
    features_by_window,
    frechet_over_time,
    slope_per_100_frames,
    time_to_failure,
    window_starts,
)

pytestmark = pytest.mark.filterwarnings("ignore::video_mirai.evaluation.frechet.FewSamplesWarning")


class MeanColour:
    """Detector whose features are the mean colour of the clip."""

    name, label, sha256, preprocessing = "mean_colour", "fd_mean_colour", "", "none"
    clip_frames, feature_dim = 4, 3

    def features(self, clips):
        return clips.mean(axis=(1, 2, 3))


def videos(num_videos=5, num_frames=12, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (num_videos, num_frames, 8, 8, 3)).astype(np.uint8))


def test_framepack_drift_meets_the_reference():
    expected = VALUES["long_horizon"]["framepack_drift m_t=1-t/100,T=40 (6 frames each)"]
    assert close(drift(1 - np.arange(40) / 100), expected)


def test_drift_is_zero_for_a_level_metric_and_blind_to_its_middle():
    values = np.zeros(40)
    values[10:30] = 5
    assert drift(values) == 0


def test_slope_is_per_100_frames_and_ignores_outliers():
    values = 30 - 0.02 * np.arange(60)
    values[[5, 20, 41]] = 100
    slope = slope_per_100_frames(values)
    assert slope.estimate == pytest.approx(-2)
    assert slope.low <= slope.estimate <= slope.high


def test_time_to_failure_waits_for_failures_that_last():
    values = np.array([30, 10, 30, 10, 10, 30, 10, 10, 10])
    assert time_to_failure(values, 20) == 1
    assert time_to_failure(values, 20, patience_frames=2) == 3
    assert time_to_failure(values, 20, patience_frames=3) == 6
    assert time_to_failure(values, 20, patience_frames=10) is None
    assert time_to_failure(values, 5) is None
    assert time_to_failure(values, 20, fails="above") == 0


def test_windows_leave_the_history_out_and_fit_the_video():
    assert window_starts(48, 16) == [0, 16, 32]
    assert window_starts(47, 16, skip=5) == [5, 21]
    assert window_starts(20, 16, stride=2) == [0, 2, 4]
    with pytest.raises(ValueError, match="no window of 16"):
        window_starts(20, 16, skip=5)


def test_features_keep_the_order_of_videos_whatever_their_sizes():
    mixed = videos()
    mixed[2] = mixed[2].repeat(2, axis=1)
    features = features_by_window(mixed, MeanColour(), [0, 4])
    expected = np.stack([video[4:8].mean(axis=(0, 1, 2)) for video in mixed])
    np.testing.assert_allclose(features[4], expected)


def test_videos_that_end_early_leave_later_windows():
    features = features_by_window([*videos(3), *videos(2, num_frames=6)], MeanColour(), [0, 4, 8, 12])
    assert {start: len(rows) for start, rows in features.items()} == {0: 5, 4: 3, 8: 3}
    with pytest.raises(ValueError, match="reaches frame 16"):
        features_by_window(videos(), MeanColour(), [12])


def test_aligned_and_pooled_references_give_their_own_distances():
    real = features_by_window(videos(seed=0), MeanColour(), [0, 4, 8])
    fake = features_by_window(videos(seed=1), MeanColour(), [0, 4])
    aligned = frechet_over_time(real, fake)
    assert aligned.starts.tolist() == [0, 4]
    assert aligned.counts.tolist() == [5, 5]
    assert aligned.distances[1] == frechet_distance(real[4], fake[4])
    pooled = frechet_over_time(real, fake, reference="pooled", ddof=0)
    assert pooled.distances[1] == frechet_distance(np.concatenate(list(real.values())), fake[4], ddof=0)


def test_detector_with_the_wrong_output_is_named():
    detector = MeanColour()
    detector.feature_dim = 4
    with pytest.raises(ValueError, match=r"mean_colour returned shape \(5, 3\); expected \(5, 4\)"):
        features_by_window(videos(), detector, [0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: drift(np.array([1.0])), "at least 2"),
        (lambda: drift(np.array([1.0, np.nan])), "NaN"),
        (lambda: drift(np.ones(9), fraction=0.6), "fraction"),
        (lambda: time_to_failure(np.ones(3), 1, fails="under"), "choose below or above"),
        (lambda: frechet_over_time({0: np.ones((3, 2))}, {4: np.ones((3, 2))}), "none in common"),
        (lambda: frechet_over_time({}, {}, reference="first"), "aligned, pooled"),
    ],
)
def test_wrong_arguments_are_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words):
        call()
