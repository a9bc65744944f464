import multiprocessing
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_values import CASES, VALUES, close

from video_mirai.evaluation import frechet
from video_mirai.evaluation.frechet import (
    FewSamplesWarning,
    FrechetMoments,
    frechet_at_infinity,
    frechet_distance,
)

pytestmark = pytest.mark.filterwarnings("ignore::video_mirai.evaluation.frechet.FewSamplesWarning")


def moments(features, parts=1):
    total = FrechetMoments(features.shape[1])
    for part in np.array_split(features, parts):
        total.update(part)
    return total


def random_sets(seed, n_x, n_y, d):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d))
    return rng.standard_normal((n_x, d)) @ mix, rng.standard_normal((n_y, d)) + rng.standard_normal(d)


shapes = {"seed": st.integers(0, 10_000), "n_x": st.integers(2, 30), "n_y": st.integers(2, 30), "d": st.integers(1, 12)}


@pytest.mark.parametrize("case", sorted(VALUES["frechet"]))
@pytest.mark.parametrize("ddof", [0, 1])
def test_distance_from_features_and_from_moments_meets_the_reference(case, ddof):
    x, y = CASES[case]()
    expected = VALUES["frechet"][case][f"ddof{ddof}"]
    tolerance = 1e-4 if min(len(x), len(y)) < x.shape[1] else 1e-6
    assert close(frechet_distance(x, y, ddof=ddof), expected, tolerance)
    assert close(moments(x).distance(moments(y), ddof=ddof), expected, tolerance)


def test_closed_forms_of_diagonal_gaussians_are_met():
    def exact_set(mean, variance):
        """2 d points with exactly this mean and diagonal covariance (ddof 0)."""
        spread = np.diag(np.sqrt(len(mean) * np.asarray(variance, dtype=float)))
        return np.asarray(mean, dtype=float) + np.concatenate([spread, -spread])

    def distance(x, y):
        return frechet_distance(x, y, ddof=0)

    assert close(distance(exact_set([0], [1]), exact_set([3], [4])), 10)
    assert close(distance(exact_set(np.zeros(400), np.ones(400)), exact_set(np.zeros(400), 4 * np.ones(400))), 400)
    apart = distance(exact_set([1, 0, -2, 0.5], [1, 4, 9, 0.25]), exact_set(np.zeros(4), [4, 1, 16, 0.25]))
    assert close(apart, 8.25)


@given(**shapes)
@settings(max_examples=30, deadline=None)
def test_equal_sets_in_any_order_have_distance_zero(seed, n_x, n_y, d):
    x, _ = random_sets(seed, n_x, n_y, d)
    shuffled = np.random.default_rng(seed).permutation(x)
    assert frechet_distance(x, shuffled) == pytest.approx(0, abs=1e-9 * np.square(x).sum())


@given(**shapes)
@settings(max_examples=30, deadline=None)
def test_shift_adds_its_squared_length_and_scaling_squares(seed, n_x, n_y, d):
    x, y = random_sets(seed, n_x, n_y, d)
    shift = np.random.default_rng(seed + 1).standard_normal(d)
    assert close(frechet_distance(x, x + shift), np.square(shift).sum())
    assert close(frechet_distance(3 * x, 3 * y), 9 * frechet_distance(x, y))
    assert close(frechet_distance(x + 100, y + 100), frechet_distance(x, y))
    assert close(frechet_distance(y, x), frechet_distance(x, y))


@given(**shapes)
@settings(max_examples=30, deadline=None)
def test_order_of_samples_and_rotation_of_features_change_nothing(seed, n_x, n_y, d):
    x, y = random_sets(seed, n_x, n_y, d)
    rng = np.random.default_rng(seed + 2)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    expected = frechet_distance(x, y)
    assert close(frechet_distance(rng.permutation(x), rng.permutation(y)), expected)
    assert close(frechet_distance(x @ rotation, y @ rotation), expected)


@given(seed=shapes["seed"], d=st.integers(1, 12), spread=st.floats(0, 9))
@settings(max_examples=60, deadline=None)
def test_fast_way_is_taken_only_where_it_equals_the_exact_one(seed, d, spread):
    rng = np.random.default_rng(seed)
    scale = np.logspace(0, -spread / 2, d)
    mix = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2)]
    x, y = (frechet._from_features(rng.standard_normal((40, d)) * scale @ q, 1) for q in mix)
    tolerance = frechet.FAST_TOLERANCE * d * (x.trace + y.trace)
    fast = frechet._fast_root_trace(x.covariance, y.covariance, tolerance)
    exact = frechet._root_trace(x._replace(covariance=None), y._replace(covariance=None))
    assert fast is None or abs(fast - exact) < tolerance
    assert fast is not None or spread > 4


@pytest.mark.parametrize("kind", ["even", "deviations from 1 to 0.001", "fewer samples than dimensions"])
def test_distance_is_that_of_fifty_digits(kind):
    pytest.importorskip("mpmath", reason="needs the extra dev")
    from benchmarks.frechet import exact_distance, small_case
    from benchmarks.sizes import FrechetSize

    x, y = small_case(kind, FrechetSize(exact_samples=12, exact_width=5), seed=0)
    expected = exact_distance(x, y)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert moments(x).distance(moments(y)) == pytest.approx(expected, rel=1e-12)


@given(parts=st.integers(1, 7), **shapes)
@settings(max_examples=30, deadline=None)
def test_merged_parts_equal_the_whole(parts, seed, n_x, n_y, d):
    x, y = random_sets(seed, n_x, n_y, d)
    merged = FrechetMoments(d)
    for part in np.array_split(x, parts):
        merged.merge(moments(part))
    assert merged.count == n_x
    np.testing.assert_allclose(merged.mean, x.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(merged.scatter, moments(x).scatter, atol=1e-9)
    assert close(merged.distance(moments(y, parts)), frechet_distance(x, y), 1e-6)


def test_moments_survive_a_large_mean_and_a_trip_between_processes():
    x, y = random_sets(0, 200, 150, 5)
    far = moments(x + 1e6, parts=9)
    assert close(far.distance(moments(y + 1e6, parts=4)), frechet_distance(x, y), 1e-5)
    assert pickle.loads(pickle.dumps(far)).distance(far) == pytest.approx(0, abs=1e-6)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="starts processes by forking")
def test_ranks_that_gather_their_moments_equal_one_process():
    x, y = random_sets(0, 101, 60, 6)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        gathered = pool.map(moments, [x[rank::3] for rank in range(3)])
    total = FrechetMoments(6)
    for of_rank in gathered:
        total.merge(of_rank)
    assert total.count == 101
    assert close(total.distance(moments(y)), frechet_distance(x, y), 1e-9)


def test_memory_of_streaming_moments_does_not_grow_with_the_stream():
    batch = np.random.default_rng(0).standard_normal((64, 100))

    def peak_bytes(num_batches):
        total = FrechetMoments(100)
        tracemalloc.start()
        for _ in range(num_batches):
            total.update(batch)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(200) <= 1.01 * peak_bytes(3)


def test_distance_at_infinity_loses_the_bias_of_few_samples():
    rng = np.random.default_rng(0)
    plain, at_infinity = [], []
    for _ in range(12):
        x, y = rng.standard_normal((150, 10)), rng.standard_normal((150, 10))
        plain.append(frechet_distance(x, y))
        at_infinity.append(frechet_at_infinity(x, y).distance)
    assert np.mean(plain) > 0.2
    assert abs(np.mean(at_infinity)) < 0.25 * np.mean(plain)
    assert min(at_infinity) < 0


def test_line_to_infinity_starts_at_the_distance_of_all_samples_and_repeats_with_its_seed():
    x, y = random_sets(0, 90, 60, 4)
    line = frechet_at_infinity(x, y, num_sizes=3, smallest_share=0.25)
    assert line.counts.tolist() == [60, 24, 15]
    assert close(line.distances[0], frechet_distance(x, y))
    assert frechet_at_infinity(x, y, seed=1).distance == frechet_at_infinity(x, y, seed=1).distance
    shifted = frechet_at_infinity(x + 5, y + 5, num_sizes=3, smallest_share=0.25)
    assert close(shifted.distance, line.distance)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"num_sizes": 1}, "leave no line"), ({"smallest_share": 1.0}, "leave no line"), ({"num_draws": 0}, "no line")],
)
def test_settings_without_a_line_are_one_clear_line(options, words):
    with pytest.raises(ValueError, match=words):
        frechet_at_infinity(*random_sets(0, 20, 20, 2), **options)


def test_rank_deficient_and_constant_features_are_exact():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((50, 3)), np.full((50, 4), 7.0)], axis=1)
    y = np.concatenate([2 * rng.standard_normal((50, 3)), np.full((50, 4), 7.0)], axis=1)
    live = frechet_distance(x[:, :3], y[:, :3])
    assert close(frechet_distance(x, y), live)
    assert close(moments(x).distance(moments(y)), live)
    assert frechet_distance(np.ones((4, 2)), np.zeros((4, 2))) == pytest.approx(2)
    assert moments(np.ones((4, 2))).distance(moments(np.zeros((4, 2)))) == pytest.approx(2)


def test_as_few_samples_as_dimensions_warns_and_more_do_not():
    rng = np.random.default_rng(0)
    with pytest.warns(FewSamplesWarning, match="4 samples for 4 feature dimensions"):
        frechet_distance(rng.standard_normal((4, 4)), rng.standard_normal((9, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frechet_distance(rng.standard_normal((5, 4)), rng.standard_normal((9, 4))) > 0


def test_wide_sets_take_the_fast_way_and_equal_the_exact_one():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((200, 200))
    x, y = (frechet._from_features(rng.standard_normal((500, 200)) @ mix, 1) for _ in range(2))
    tolerance = frechet.FAST_TOLERANCE * 200 * (x.trace + y.trace)
    fast = frechet._fast_root_trace(x.covariance, y.covariance, tolerance)
    assert fast == pytest.approx(frechet._root_trace(x._replace(covariance=None), y._replace(covariance=None)), 1e-12)


def test_rounding_below_zero_is_clamped_and_anything_lower_is_an_error():
    unit = frechet._Gaussian(np.zeros(1), np.eye(1), None, 1.0)
    assert frechet._distance(unit, unit._replace(trace=1.0 - 1e-9)) == 0.0
    with pytest.raises(ArithmeticError, match="rounding floor"):
        frechet._distance(unit, unit._replace(trace=0.9))


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), {}, r"x holds 1 sample"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), {}, r"y: 5 of 5 samples hold NaN"),
        (np.zeros((5, 3)), np.zeros((5, 4)), {}, "width 3 and 4"),
        (np.zeros(5), np.zeros((5, 1)), {}, r"x has shape \(5,\)"),
        (np.zeros((5, 3)), np.zeros((5, 3)), {"ddof": 2}, "ddof=2"),
    ],
)
def test_bad_features_are_one_clear_line(x, y, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        frechet_distance(x, y, **options)
    assert "\n" not in str(caught.value)


def test_moments_refuse_other_widths_too_few_samples_and_nan():
    total = FrechetMoments(3)
    with pytest.raises(ValueError, match="4 wide"):
        total.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="NaN"):
        total.update(np.full((2, 3), np.inf))
    with pytest.raises(ValueError, match="dim=2"):
        total.merge(FrechetMoments(2))
    total.update(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least 2 samples"):
        total.distance(total)
