import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_values import CASES, VALUES, close

from video_mirai.evaluation.mmd import polynomial_mmd


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
