"""How much of one thing can be read from another: ridge readouts in closed form, and what predictions are scored by.

Arrays in, numbers out. A row is one frame of one video: features (n, d), targets (n, m), `videos` (n,) names the row's
video. Everything is float64.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Strengths that are tried, in units of the features' mean energy in a direction: from hardly any to all but the mean.
LAMBDAS = np.logspace(-7, 5, 37)


class RidgeBasis(NamedTuple):
    """Standardised training features, seen along their principal directions.

    mean, scale: (d,), of the features. directions: (d, r), orthonormal. energies: (r,), squared singular values.
    """

    mean: Array
    scale: Array
    directions: Array
    energies: Array

    def coordinates(self, features: NDArray[np.floating]) -> Array:
        """(n, d) features to (n, r) coordinates along the directions."""
        return ((features - self.mean) / self.scale) @ self.directions


class Ridge(NamedTuple):
    """A linear readout of coordinates: weights (r, m), intercept (m,), and the strength that was chosen."""

    weights: Array
    intercept: Array
    strength: float

    def predict(self, coordinates: NDArray[np.floating]) -> Array:
        return coordinates @ self.weights + self.intercept


def ridge_basis(features: NDArray[np.floating]) -> RidgeBasis:
    """The one decomposition that every strength and every target shares.

    Eigenvectors of the smaller of the two Gram matrices: d x d, or n x n where there are fewer rows than features.

    Raises:
        ValueError: fewer than two rows, or numbers that are not finite.
    """
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"features have shape {rows.shape}; expected (rows, numbers) with at least two rows.")
    if not np.isfinite(rows).all():
        raise ValueError("features hold NaN or infinite numbers.")
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(deviation > 1e-10 * deviation.max(initial=0.0), deviation, 1.0)  # constant ones stay at 0
    rows = (rows - mean) / scale
    count, width = rows.shape
    energies, vectors = np.linalg.eigh(rows.T @ rows if count >= width else rows @ rows.T)
    kept = energies > max(count, width) * np.finfo(np.float64).eps * energies.max(initial=0.0)
    energies, vectors = energies[kept], vectors[:, kept]
    directions = vectors if count >= width else rows.T @ vectors / np.sqrt(energies)
    return RidgeBasis(mean, scale, directions, energies)


def fit_ridge(
    basis: RidgeBasis,
    train: NDArray[np.floating],
    train_targets: NDArray[np.floating],
    validation: NDArray[np.floating],
    validation_targets: NDArray[np.floating],
    *,
    lambdas: NDArray[np.floating] = LAMBDAS,
) -> Ridge:
    """The ridge regression whose strength does best on the validation rows.

    Args:
        train, validation: coordinates in the basis, (n, r); the basis is that of the training rows.
        lambdas: to choose from, in units of the mean energy of a feature's direction.
    """
    intercept = np.asarray(train_targets, dtype=np.float64).mean(axis=0)
    moments = train.T @ (train_targets - intercept)  # (r, m)
    strengths = np.asarray(lambdas) * basis.energies.sum() / max(1, len(basis.mean))
    gains = 1 / (basis.energies + strengths[:, None])  # (lambdas, r): weights = gain * moments

    # |y - Z diag(g) M|^2, less |y|^2, as a quadratic form in g: no prediction is made for any strength.
    linear = ((validation.T @ (validation_targets - intercept)) * moments).sum(axis=1)
    quadratic = (validation.T @ validation) * (moments @ moments.T)
    errors = ((gains @ quadratic) * gains).sum(axis=1) - 2 * gains @ linear
    best = int(errors.argmin())
    return Ridge(gains[best][:, None] * moments, intercept, float(strengths[best]))


def r2_per_video(
    targets: NDArray[np.floating],
    predictions: NDArray[np.floating],
    train_mean: NDArray[np.floating],
    videos: Sequence[Hashable],
) -> Array:
    """(V,) numbers whose mean is R2 over all videos: 1 - sum of squared errors / sum of squared distances.

    The sums are over the videos' means. Each number is R2 plus the video's part in it, (distance (1 - R2) - error) /
    mean distance: the ratio, linearised. So a video near the training mean does not divide by nearly nothing, and
    bootstrapping the numbers, or differences of them, gives the interval of the ratio.

    Args:
        train_mean: (m,), where distances are taken from.

    Raises:
        ValueError: every target equals the training mean.
    """
    errors = mean_per_video(np.square(targets - predictions).sum(axis=1, dtype=np.float64), videos)
    distances = mean_per_video(np.square(targets - train_mean).sum(axis=1, dtype=np.float64), videos)
    if not distances.any():
        raise ValueError("every target equals the training mean; R2 is not defined.")
    unexplained = errors.sum() / distances.sum()
    return 1 - unexplained + (unexplained * distances - errors) / distances.mean()


def innovation_cosine(
    current: NDArray[np.floating], future: NDArray[np.floating], predictions: NDArray[np.floating]
) -> Array:
    """(n,) cosine between the predicted change, predictions - current, and the true one, future - current; all (n, m).

    0 where nothing is predicted to change, NaN where nothing does change.
    """
    predicted, true = np.float64(predictions) - current, np.float64(future) - current
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true, axis=1)
    cosine = np.divide((predicted * true).sum(axis=1), norms, out=np.zeros(len(norms)), where=norms > 0)
    return np.where(np.any(true != 0, axis=1), cosine, np.nan)


def root_mean_square(
    targets: NDArray[np.floating], predictions: NDArray[np.floating], videos: Sequence[Hashable]
) -> Array:
    """(V,) root of the mean squared error over a video's rows and numbers, in the targets' unit."""
    return np.sqrt(mean_per_video(np.square(targets - predictions).mean(axis=1, dtype=np.float64), videos))


def mean_per_video(values: NDArray[np.floating], videos: Sequence[Hashable]) -> Array:
    """(n,) to (V,), videos in the order of their first row; NaN counts for nothing, and is the mean of nothing else."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(videos))}
    rows = np.array([numbers[name] for name in videos], dtype=np.int64)
    finite = ~np.isnan(values)
    counts = np.bincount(rows[finite], minlength=len(numbers))
    sums = np.bincount(rows[finite], weights=values[finite], minlength=len(numbers))
    return np.divide(sums, counts, out=np.full(len(numbers), np.nan), where=counts > 0)
