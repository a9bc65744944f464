"""Frechet distance between two sets of features, from the features themselves or from streaming moments.

``|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))`` (Dowson & Landau 1982), in float64. The trace of the root is a
nuclear norm, so no matrix square root is ever taken of a non-symmetric matrix.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Rounding may push a distance this far below zero, as a share of tr S_x + tr S_y.
NEGATIVE_TOLERANCE = 1e-6


class FewSamplesWarning(UserWarning):
    """A set has no more samples than feature dimensions: its covariance is singular and the distance biased upward."""


class _Gaussian(NamedTuple):
    mean: NDArray[np.float64]  # (d,)
    root: NDArray[np.float64]  # (r, d) with root.T @ root = covariance
    trace: float  # of the covariance


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
        covariance = self.scatter / (self.count - ddof)
        values, vectors = np.linalg.eigh(covariance)
        # Eigenvalues below this are rounding of the decomposition; their roots would not be small.
        keep = values > values[-1] * self.dim * np.finfo(np.float64).eps
        root = np.sqrt(values[keep])[:, None] * vectors[:, keep].T  # (r, d)
        return _Gaussian(self.mean, root, float(np.trace(covariance)))


def check_features(features: NDArray[np.floating], name: str, min_count: int = 2) -> NDArray[np.float64]:
    """The features as float64 (n, d), or one clear ValueError."""
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name} has shape {rows.shape}; expected (samples, feature width).")
    if len(rows) < min_count:
        raise ValueError(f"{name} holds {len(rows)} sample(s); at least {min_count} are needed.")
    bad = int((~np.isfinite(rows)).any(axis=1).sum())
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
        warnings.warn(
            f"{smaller} samples for {dim_x} feature dimensions: the Frechet distance is biased upward; compare it only "
            "with distances made from as many samples.",
            FewSamplesWarning,
            stacklevel=3,
        )


def _from_features(features: NDArray[np.float64], ddof: int) -> _Gaussian:
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(len(features) - ddof)
    trace = float(np.square(centred).sum())
    if len(features) > features.shape[1]:
        # X = QR leaves X^T X = R^T R, so R stands in for X at d rows instead of n.
        centred = np.linalg.qr(centred, mode="r")
    return _Gaussian(mean, centred, trace)


def _distance(x: _Gaussian, y: _Gaussian) -> float:
    # With S = R^T R: tr (S_x S_y)^(1/2) = nuclear norm of R_x R_y^T.
    root_trace = float(np.linalg.svd(x.root @ y.root.T, compute_uv=False).sum())
    distance = float(np.square(x.mean - y.mean).sum()) + x.trace + y.trace - 2 * root_trace
    if distance >= 0:
        return distance
    floor = -NEGATIVE_TOLERANCE * (x.trace + y.trace)
    if distance < floor:
        raise ArithmeticError(f"Frechet distance came out as {distance}, below the rounding floor {floor}.")
    return 0.0
