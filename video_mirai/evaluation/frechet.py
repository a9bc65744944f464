"""Frechet distance between two sets of features, from the features themselves or from streaming moments.

``|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))`` (Dowson & Landau 1982), in float64. The trace of the root is the
sum of the roots of the eigenvalues of L^T S_y L with S_x = L L^T (Cholesky), where a bound says that rounding does not
matter; else the nuclear norm of R_x R_y^T with S = R^T R, which is slower and exact for singular covariances too. No
square root is ever taken of a non-symmetric matrix.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dsymv, dsyrk
from scipy.linalg.lapack import dpotrf, dsygst

# Rounding may push a distance this far below zero, as a share of tr S_x + tr S_y.
NEGATIVE_TOLERANCE = 1e-6
# Up to this bound on its rounding, as a share of tr S_x + tr S_y for each dimension, the fast way is taken. What was
# measured is a thousand times less, except where one eigenvalue is zero and the bound is met.
FAST_TOLERANCE = 3e-11


class FewSamplesWarning(UserWarning):
    """A set has no more samples than feature dimensions: its covariance is singular and the distance biased upward."""


class _Gaussian(NamedTuple):
    mean: NDArray[np.float64]  # (d,)
    covariance: NDArray[np.float64] | None  # (d, d), only its lower triangle is read; None where certainly singular
    rows: NDArray[np.float64] | None  # (n, d), rows.T @ rows = covariance / scale; None where only moments are known
    trace: float  # of the covariance
    scale: float = 1.0


class AtInfinity(NamedTuple):
    """A Frechet distance freed of its bias, and the line that it was read from."""

    distance: float
    slope: float  # the distance of all samples is about distance + slope
    counts: NDArray[np.int64]  # (num_sizes,) samples of the smaller set
    distances: NDArray[np.float64]  # (num_sizes,)


def frechet_distance(x: NDArray[np.floating], y: NDArray[np.floating], *, ddof: int = 1) -> float:
    """Frechet distance between two feature sets; exact for rank-deficient sets.

    Args:
        x, y: (n_x, d) and (n_y, d).
        ddof: 1 for the unbiased covariance, 0 for the population one (as StyleGAN-V).
    Raises:
        ValueError: not (n, d) with n >= 2, different d, or NaN or infinite values.
    """
    x, y = check_features(x, "x"), check_features(y, "y")
    _check_pair(x.shape[1], y.shape[1], len(x), len(y), ddof)
    return _distance(_from_features(x, ddof), _from_features(y, ddof))


def frechet_at_infinity(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    *,
    ddof: int = 1,
    num_sizes: int = 8,
    smallest_share: float = 0.5,
    num_draws: int = 4,
    seed: int = 0,
) -> AtInfinity:
    """Frechet distance extrapolated to infinitely many samples of both sets: the line through it over 1 / N, at 0.

    Random subsets without replacement, both sets by the same shares, smallest_share to 1, whose inverses are evenly
    spaced. Unlike the distance it has no bias of order 1 / N, may be negative, and is never clamped.

    Args:
        x, y: (n_x, d) and (n_y, d); the line needs subsets of more than d samples, else there is a warning.
        num_draws: subsets of every size, averaged; the whole sets count once.
    Raises:
        ValueError: as `frechet_distance`, or settings that leave no line.
    Source: Chong & Forsyth 2020, section 4, where y keeps all its samples.
    """
    x, y = check_features(x, "x"), check_features(y, "y")
    smallest = smallest_share * min(len(x), len(y))
    if num_sizes < 2 or num_draws < 1 or not 0 < smallest_share < 1 or smallest < 2:
        raise ValueError(
            f"num_sizes={num_sizes}, num_draws={num_draws}, smallest_share={smallest_share} of "
            f"{min(len(x), len(y))} samples leave no line; give 2 sizes, 1 draw and 2 samples or more."
        )
    _check_pair(x.shape[1], y.shape[1], int(smallest), int(smallest), ddof)
    rng = np.random.default_rng(seed)
    inverse_shares = np.linspace(1, 1 / smallest_share, num_sizes)
    distances = np.zeros(num_sizes)
    for i, inverse in enumerate(inverse_shares):
        draws = num_draws if i else 1  # all samples are the same samples in every draw
        for _ in range(draws):
            few_x, few_y = (rng.permutation(rows)[: round(len(rows) / inverse)] for rows in (x, y))
            distances[i] += _distance(_from_features(few_x, ddof), _from_features(few_y, ddof)) / draws
    slope, intercept = np.polyfit(inverse_shares, distances, 1)
    counts = np.round(min(len(x), len(y)) / inverse_shares).astype(np.int64)
    return AtInfinity(float(intercept), float(slope), counts, distances)


class FrechetMoments:
    """Count, mean and scatter of a stream of features, in float64 memory (d, d) whatever the number of samples.

    Ranks and shards each fill their own and merge: the result equals one pass over everything.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim={dim}: features need at least one dimension.")
        self.dim = dim
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(dim)
        self.scatter: NDArray[np.float64] = np.zeros((dim, dim))  # sum of outer products of the centred features

    def update(self, features: NDArray[np.floating]) -> None:
        """Adds a batch (n, dim); n may be 0 or 1. Raises ValueError on NaN or a wrong width."""
        features = check_features(features, "features", min_count=0)
        if features.shape[1] != self.dim:
            raise ValueError(f"features are {features.shape[1]} wide but these moments were made for dim={self.dim}.")
        if len(features) == 0:
            return
        mean = features.mean(axis=0)
        centred = features - mean
        self._add(len(features), mean, centred.T @ centred)

    def merge(self, other: "FrechetMoments") -> None:
        """Adds the samples of `other`, which stays as it is."""
        if other.dim != self.dim:
            raise ValueError(f"can't merge moments of dim={other.dim} into moments of dim={self.dim}.")
        if other.count:
            self._add(other.count, other.mean, other.scatter)

    def distance(self, other: "FrechetMoments", ddof: int = 1) -> float:
        """Frechet distance to `other`; the same number as `frechet_distance` up to rounding."""
        _check_pair(self.dim, other.dim, self.count, other.count, ddof)
        return _distance(self._gaussian(ddof), other._gaussian(ddof))

    def _add(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        # Chan, Golub & LeVeque 1979, eq. 2.1: never a difference of two large sums.
        total = self.count + count
        shift = mean - self.mean
        self.scatter = self.scatter + scatter + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def _gaussian(self, ddof: int) -> _Gaussian:
        covariance = self.scatter.T / (self.count - ddof)  # symmetric; transposed it is as LAPACK wants it
        return _Gaussian(self.mean, covariance, None, float(np.trace(covariance)))


def check_features(features: NDArray[np.floating], name: str, min_count: int = 2) -> NDArray[np.float64]:
    """The features as float64 (n, d), or one clear ValueError."""
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name} has shape {rows.shape}; expected (samples, feature width).")
    if len(rows) < min_count:
        raise ValueError(f"{name} holds {len(rows)} sample(s); at least {min_count} are needed.")
    # A sum is cheap and not finite where a sample isn't; where it merely overflows, none is found.
    bad = 0 if np.isfinite(rows.sum()) else int((~np.isfinite(rows)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {len(rows)} samples hold NaN or infinite values; look for broken clips.")
    return rows


def _check_pair(dim_x: int, dim_y: int, count_x: int, count_y: int, ddof: int) -> None:
    if dim_x != dim_y:
        raise ValueError(f"features of width {dim_x} and {dim_y} can't be compared; use one detector for both sets.")
    if ddof not in (0, 1):
        raise ValueError(f"ddof={ddof}: choose 1 (unbiased) or 0 (population).")
    smaller = min(count_x, count_y)
    if smaller < 2:
        raise ValueError(f"a covariance needs at least 2 samples a set, got {count_x} and {count_y}.")
    if smaller <= dim_x:
        _warn_few(smaller, dim_x)


def _warn_few(count: int, dim: int) -> None:
    warnings.warn(
        f"{count} samples for {dim} feature dimensions: the Frechet distance is biased upward; compare it only with "
        "distances made from as many samples.",
        FewSamplesWarning,
        stacklevel=4,
    )


def _from_features(features: NDArray[np.float64], ddof: int) -> _Gaussian:
    mean = features.mean(axis=0)
    centred = features - mean
    scale = 1 / (len(features) - ddof)
    if len(features) <= features.shape[1]:
        return _Gaussian(mean, None, centred, scale * float(np.square(centred).sum()), scale)
    covariance = dsyrk(scale, centred.T, lower=1)  # half of the products, and no copy of any matrix here or below
    return _Gaussian(mean, covariance, centred, float(np.trace(covariance)), scale)


def _distance(x: _Gaussian, y: _Gaussian) -> float:
    distance = float(np.square(x.mean - y.mean).sum()) + x.trace + y.trace - 2 * _root_trace(x, y)
    if distance >= 0:
        return distance
    floor = -NEGATIVE_TOLERANCE * (x.trace + y.trace)
    if distance < floor:
        raise ArithmeticError(f"Frechet distance came out as {distance}, below the rounding floor {floor}.")
    return 0.0


def _root_trace(x: _Gaussian, y: _Gaussian) -> float:
    """tr (S_x S_y)^(1/2)."""
    if x.covariance is not None and y.covariance is not None:
        tolerance = FAST_TOLERANCE * len(x.mean) * (x.trace + y.trace)
        fast = _fast_root_trace(x.covariance, y.covariance, tolerance)
        if fast is not None:
            return fast
    return float(np.linalg.svd(_root(x) @ _root(y).T, compute_uv=False).sum())


def _fast_root_trace(x: NDArray[np.float64], y: NDArray[np.float64], tolerance: float) -> float | None:
    """By the symmetric-definite eigenvalue problem of two covariances; None where rounding may exceed tolerance."""
    factor, info = dpotrf(x, lower=1, clean=0)
    if info:
        return None  # not positive definite
    product, info = dsygst(y, factor, itype=2, lower=1)  # L^T S_y L, in the lower triangle
    assert info == 0
    values = np.linalg.eigvalsh(product)
    if values[0] <= 0:
        return None
    roots = np.sqrt(values)
    # Weyl: an eigenvalue is off by at most the product's rounding, and its root by that over twice the root.
    rounding = np.finfo(np.float64).eps * _largest_eigenvalue(x) * _largest_eigenvalue(y)
    return float(roots.sum()) if rounding * float((0.5 / roots).sum()) <= tolerance else None


def _largest_eigenvalue(covariance: NDArray[np.float64]) -> float:
    """By a few steps of power iteration, close enough for a bound."""
    vector = np.zeros(len(covariance))
    vector[np.argmax(np.diagonal(covariance))] = 1
    for _ in range(9):
        vector = dsymv(1.0, covariance, vector / np.linalg.norm(vector), lower=1)
    return float(np.linalg.norm(vector))


def _root(gaussian: _Gaussian) -> NDArray[np.float64]:
    """R (r, d) with R^T R = covariance."""
    if gaussian.rows is not None:
        rows = np.sqrt(gaussian.scale) * gaussian.rows
        if len(rows) <= rows.shape[1]:
            return rows
        # X = QR leaves X^T X = R^T R, so R stands in for X at d rows instead of n.
        return np.asarray(np.linalg.qr(rows, mode="r"))
    assert gaussian.covariance is not None
    values, vectors = np.linalg.eigh(gaussian.covariance)
    # Eigenvalues below this are rounding of the decomposition; their roots would not be small.
    keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return np.sqrt(values[keep])[:, None] * vectors[:, keep].T
