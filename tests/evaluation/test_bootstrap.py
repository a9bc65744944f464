import numpy as np
import pytest

from video_mirai.evaluation.bootstrap import (
    bootstrap,
    bootstrap_band,
    paired_bootstrap,
    paired_seed_bootstrap,
    seed_bootstrap,
    subsample_interval,
)
from video_mirai.evaluation.frechet import frechet_distance


def test_same_seed_same_interval_and_it_holds_the_estimate():
    values = np.random.default_rng(0).standard_normal(40)
    interval = bootstrap(values, seed=3)
    assert interval == bootstrap(values, seed=3)
    assert interval != bootstrap(values, seed=4)
    assert interval.low < interval.estimate < interval.high
    assert interval.estimate == pytest.approx(values.mean())


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap(rng.standard_normal(40), num_resamples=300) for _ in range(200)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.88 <= covered <= 0.99


def test_clips_of_one_video_move_together():
    video_means = np.random.default_rng(0).standard_normal(10)
    names = [f"video{index}" for index in range(10) for _ in range(8)]
    clips = np.repeat(video_means, 8)
    together, apart = bootstrap(clips, videos=names), bootstrap(clips)
    assert together == bootstrap(video_means)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_pairing_finds_a_small_constant_gain_that_unpaired_spread_hides():
    rng = np.random.default_rng(0)
    a = 10 * rng.standard_normal(30)
    difference = paired_bootstrap(a + 0.5 + 0.1 * rng.standard_normal(30), a)
    assert difference.estimate == pytest.approx(0.5, abs=0.1)
    assert difference.excludes_zero
    assert not bootstrap(a).excludes_zero


def test_band_of_one_frame_is_the_bootstrap_of_that_frame():
    curves = np.random.default_rng(0).standard_normal((12, 3))
    band = bootstrap_band(curves, num_resamples=500, seed=1)
    expected = bootstrap(curves[:, 2], num_resamples=500, seed=1)
    np.testing.assert_allclose([band.mean[2], band.low[2], band.high[2]], expected)


def test_a_video_without_a_number_in_a_frame_is_left_out_there_and_nowhere_else():
    curves = np.random.default_rng(0).standard_normal((12, 3))
    with_gaps = curves.copy()
    with_gaps[4:, 1] = np.nan
    band, whole = bootstrap_band(with_gaps, num_resamples=300), bootstrap_band(curves, num_resamples=300)
    np.testing.assert_array_equal(np.array(band)[:, [0, 2]], np.array(whole)[:, [0, 2]])
    assert band.mean[1] == pytest.approx(curves[:4, 1].mean())
    assert curves[:4, 1].min() <= band.low[1] < band.mean[1] < band.high[1] <= curves[:4, 1].max()


def test_a_frame_in_which_no_video_has_a_number_has_no_band():
    with pytest.raises(ValueError, match="every video is NaN"):
        bootstrap_band(np.array([[1.0, np.nan], [2.0, np.nan]]))


def test_band_of_one_video_has_no_width():
    band = bootstrap_band(np.arange(4.0)[None])
    np.testing.assert_allclose(band.low, band.high)


def test_with_seeds_that_agree_the_interval_is_the_one_over_videos():
    videos = np.random.default_rng(0).standard_normal(40)
    over_both, over_videos = seed_bootstrap(np.tile(videos, (3, 1))), bootstrap(videos)
    assert over_both.estimate == pytest.approx(over_videos.estimate)
    np.testing.assert_allclose(over_both, over_videos, atol=0.05)


def test_seeds_that_disagree_widen_the_interval_though_every_video_agrees():
    seeds = np.array([0.0, 1.0, 2.0])[:, None]
    interval = seed_bootstrap(seeds + np.zeros((3, 200)))
    assert interval == (1.0, 0.0, 2.0)  # the mean, and all three draws of the smallest or the largest seed


def test_seed_interval_covers_the_truth_when_both_seeds_and_videos_vary():
    rng = np.random.default_rng(0)

    def draw():
        return rng.standard_normal((10, 1)) + rng.standard_normal((1, 30)) + rng.standard_normal((10, 30))

    intervals = [seed_bootstrap(draw(), num_resamples=300) for _ in range(200)]
    assert 0.85 <= np.mean([interval.low <= 0 <= interval.high for interval in intervals]) <= 0.99


def test_pairing_of_seeds_and_videos_removes_what_both_methods_share():
    rng = np.random.default_rng(0)
    shared = 5 * rng.standard_normal((3, 1)) + 5 * rng.standard_normal((1, 30))
    a, b = (shared + 0.1 * rng.standard_normal((3, 30)) for _ in range(2))
    difference = paired_seed_bootstrap(a + 0.5, b)
    assert difference.excludes_zero
    assert difference == seed_bootstrap(a + 0.5 - b)
    assert difference.high - difference.low < 0.05 * (seed_bootstrap(a).high - seed_bootstrap(a).low)


def test_order_of_seeds_and_of_videos_barely_moves_the_seed_interval():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 50))
    permuted = values[rng.permutation(4)][:, rng.permutation(50)]
    np.testing.assert_allclose(seed_bootstrap(values), seed_bootstrap(permuted), atol=0.03)


def test_subsampling_describes_smaller_sets_of_distinct_videos():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 4)), rng.standard_normal((60, 4)) + 1
    sizes = []

    def distance(rows):
        sizes.append(len(set(rows.tolist())))
        return frechet_distance(x[rows], y[rows])

    interval = subsample_interval(distance, 60, num_subsamples=20)
    assert sizes == [30] * 20 + [60]
    assert interval.estimate == frechet_distance(x, y)
    assert interval.low < interval.high


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap(np.ones(1)), "at least 2 videos"),
        (lambda: bootstrap(np.ones(4), videos=["a"] * 4), "at least 2 videos"),
        (lambda: bootstrap(np.ones(4), videos=["a"] * 3), "4 values but 3"),
        (lambda: bootstrap(np.array([1.0, np.nan])), "NaN"),
        (lambda: bootstrap(np.ones(3), level=95), "between 0 and 1"),
        (lambda: paired_bootstrap(np.ones(3), np.ones(1)), "one to one"),
        (lambda: paired_seed_bootstrap(np.ones((3, 4)), np.ones((3, 5))), "one to one"),
        (lambda: seed_bootstrap(np.ones((1, 4))), "at least 2 seeds, got 1; over the videos of one seed take"),
        (lambda: seed_bootstrap(np.ones((3, 1))), "at least 2 videos"),
        (lambda: seed_bootstrap(np.ones(4)), "seeds, videos"),
        (lambda: seed_bootstrap(np.full((3, 4), np.nan)), "NaN"),
        (lambda: bootstrap_band(np.ones(3)), "videos, frames"),
        (lambda: subsample_interval(lambda rows: 0.0, 2), "leave 1 a subset"),
    ],
)
def test_wrong_arguments_are_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words):
        call()
