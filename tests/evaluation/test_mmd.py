import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_values import CASES, VALUES, close

from video_mirai.evaluation.mmd import polynomial_mmd, polynomial_mmd_subsets


@pytest.mark.parametrize("case", sorted(VALUES["mmd"]))
def test_default_kernel_meets_the_kernel_inception_reference(case):
    x, y = CASES[case]()
    assert close(polynomial_mmd(x, y), VALUES["mmd"][case]["kid_unbiased_deg3_gamma1/d_coef1"])


def test_equals_the_sum_over_all_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))

    def kernel(a, b):
        return (0.5 * a @ b + 2) ** 2

    within_x = np.mean([kernel(x[i], x[j]) for i in range(4) for j in range(4) if i != j])
    within_y = np.mean([kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert close(polynomial_mmd(x, y, degree=2, gamma=0.5, coef=2), within_x + within_y - 2 * across)


def test_is_unbiased_and_goes_negative_for_sets_of_one_distribution():
    rng = np.random.default_rng(0)
    values = [polynomial_mmd(rng.standard_normal((20, 4)), rng.standard_normal((20, 4))) for _ in range(300)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


@given(seed=st.integers(0, 1000), n=st.integers(2, 12), d=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_order_of_samples_and_of_the_sets_changes_nothing(seed, n, d):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n + 3, d))
    expected = polynomial_mmd(x, y)
    assert close(polynomial_mmd(y, x), expected)
    assert close(polynomial_mmd(rng.permutation(x), rng.permutation(y)), expected)


def test_refuses_single_samples_and_other_widths():
    with pytest.raises(ValueError, match="1 sample"):
        polynomial_mmd(np.zeros((1, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="width 2 and 3"):
        polynomial_mmd(np.zeros((4, 2)), np.zeros((4, 3)))


def test_subsets_are_those_drawn_and_each_has_the_mmd_of_its_own_samples():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 3)), rng.standard_normal((7, 3)) + 1
    found = polynomial_mmd_subsets(x, y, num_subsets=3, subset_size=4, seed=5)
    drawing = np.random.default_rng(5)
    of_x, of_y = ([drawing.permutation(len(rows))[:4] for _ in range(3)] for rows in (x, y))
    expected = [polynomial_mmd(x[a], y[b]) for a, b in zip(of_x, of_y, strict=True)]
    np.testing.assert_allclose(found.values, expected)
    assert close(found.mean, np.mean(expected)) and close(found.deviation, np.std(expected))


def test_subsets_of_everything_are_the_whole_without_deviation():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    found = polynomial_mmd_subsets(x, y, subset_size=6)
    assert close(found.mean, polynomial_mmd(x, y)) and found.deviation < 1e-9


def test_mean_of_subsets_is_as_unbiased_as_the_whole():
    rng = np.random.default_rng(0)
    sets = [(rng.standard_normal((20, 4)), rng.standard_normal((20, 4)) + 0.5) for _ in range(60)]
    subsets = [polynomial_mmd_subsets(x, y, num_subsets=20, subset_size=8).mean for x, y in sets]
    whole = [polynomial_mmd(x, y) for x, y in sets]
    assert abs(np.mean(subsets) - np.mean(whole)) < 3 * np.std(np.subtract(subsets, whole)) / np.sqrt(60)


@pytest.mark.parametrize("options", [{"subset_size": 5}, {"subset_size": 1}, {"subset_size": 2, "num_subsets": 0}])
def test_subsets_that_cannot_be_drawn_are_one_clear_line(options):
    with pytest.raises(ValueError, match="the smaller set holds 4 samples; choose"):
        polynomial_mmd_subsets(np.zeros((4, 2)), np.zeros((9, 2)), **options)


def test_subsets_meet_what_torchmetrics_computes_from_the_same_draws():
    kid = pytest.importorskip("torchmetrics.image.kid", reason="needs the extra dev")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((30, 5)) + 0.3
    theirs = float(kid.poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert close(polynomial_mmd_subsets(x, y, subset_size=30, num_subsets=1).mean, theirs)
