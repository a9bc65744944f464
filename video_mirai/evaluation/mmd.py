"""Maximum mean discrepancy with a polynomial kernel, the unbiased companion of the Frechet distance."""

import numpy as np
from numpy.typing import NDArray

from video_mirai.evaluation.frechet import check_features


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
    x, y = check_features(x, "x"), check_features(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features of width {x.shape[1]} and {y.shape[1]} can't be compared; use one detector for both."
        )
    scale = 1 / x.shape[1] if gamma is None else gamma

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (scale * (a @ b.T) + coef) ** degree

    return _mean_off_diagonal(kernel(x, x)) + _mean_off_diagonal(kernel(y, y)) - 2 * float(kernel(x, y).mean())


def _mean_off_diagonal(matrix: NDArray[np.float64]) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
