"""Maximum mean discrepancy with a polynomial kernel, the unbiased companion of the Frechet distance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mirai.evaluation.frechet import check_features


class SubsetMmd(NamedTuple):
    """Mean and deviation (ddof 0) over random subsets, as kernel inception distances are published."""

    mean: float
    deviation: float
    values: NDArray[np.float64]  # (num_subsets,)


def polynomial_mmd(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
) -> float:
    """Unbiased squared MMD under k(a, b) = (gamma a.b + coef)^degree; legitimately negative, never clamped.

    Args:
        x, y: (n_x, d) and (n_y, d).
        gamma: None for 1 / d, which with degree 3 and coef 1 is the kernel inception distance.
    Raises:
        ValueError: not (n, d) with n >= 2, different d, or NaN or infinite values.
    Source: Gretton et al. 2012, eq. 3; Binkowski et al. 2018.
    """
    x, y = _checked(x, y)
    scale = 1 / x.shape[1] if gamma is None else gamma

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (scale * (a @ b.T) + coef) ** degree

    return _mean_off_diagonal(kernel(x, x)) + _mean_off_diagonal(kernel(y, y)) - 2 * float(kernel(x, y).mean())


def polynomial_mmd_subsets(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
    seed: int = 0,
) -> SubsetMmd:
    """`polynomial_mmd` of random subsets of both sets, drawn without replacement.

    The mean has the same expectation as the MMD of the whole sets. The deviation is that of one subset, not an
    error of the mean: subsets overlap, the more so the nearer their size is to that of the sets.

    Args:
        subset_size: published kernel inception distances have 1000.
    Raises:
        ValueError: as `polynomial_mmd`, or subsets that are larger than a set or smaller than 2.
    Source: Binkowski et al. 2018, section 4.
    """
    x, y = _checked(x, y)
    smaller = min(len(x), len(y))
    if not 2 <= subset_size <= smaller or num_subsets < 1:
        raise ValueError(
            f"num_subsets={num_subsets} of subset_size={subset_size}: the smaller set holds {smaller} samples; choose "
            f"1 subset or more of 2 to {smaller}."
        )
    scale = 1 / x.shape[1] if gamma is None else gamma
    rng = np.random.default_rng(seed)
    in_x, in_y = (_memberships(len(rows), num_subsets, subset_size, rng) for rows in (x, y))
    # With 0 and 1 for who is in a subset, every sum over its pairs is a row of `members @ kernel`.
    within = np.zeros(num_subsets)
    for rows, members in ((x, in_x), (y, in_y)):
        kernel = (scale * (rows @ rows.T) + coef) ** degree
        within += ((members @ kernel) * members).sum(axis=1) - members @ np.diagonal(kernel)
    across = ((in_x @ (scale * (x @ y.T) + coef) ** degree) * in_y).sum(axis=1)
    values = within / (subset_size * (subset_size - 1)) - 2 * across / subset_size**2
    return SubsetMmd(float(values.mean()), float(values.std()), values)


def _checked(x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = check_features(x, "x"), check_features(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features of width {x.shape[1]} and {y.shape[1]} can't be compared; use one detector for both."
        )
    return x, y


def _memberships(count: int, num_subsets: int, subset_size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(num_subsets, count): 1 where a sample belongs to a subset."""
    members = np.zeros((num_subsets, count))
    for row in members:
        row[rng.permutation(count)[:subset_size]] = 1
    return members


def _mean_off_diagonal(matrix: NDArray[np.float64]) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
