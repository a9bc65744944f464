"""The Frechet distance: ours beside pytorch-fid's formula and torchmetrics', and all of them against 50 digits.

pytorch-fid itself is not imported, because it brings torchvision; its formula is one call of scipy.linalg.sqrtm.
"""

import math
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import mpmath
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor

from benchmarks.measure import Findings, Timed, ratios, take_turns, timed
from benchmarks.sizes import FrechetSize, Sizes
from video_mirai.evaluation.frechet import FewSamplesWarning, FrechetMoments, frechet_distance

GROUP = "Frechet distance"
OURS, PYTORCH_FID, TORCHMETRICS = "ours", "pytorch-fid's formula", "torchmetrics"
FASTER_AT_LEAST = 3.0
DIGITS = 50
# More than a float64 holds; the greatest that is said of it.
MOST_DIGITS = 17.0
# From here on it is luck which of them is closer.
ROUNDING_DIGITS = 14.0
EVEN, UNEVEN, DEFICIENT = "even", "deviations from 1 to 0.001", "fewer samples than dimensions"
KINDS = (EVEN, UNEVEN, DEFICIENT)

Features = NDArray[np.float64]
Distance = Callable[[Features, Features], float]


class Moments(NamedTuple):
    """mean (d,), covariance (d, d), ddof 1."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def measure_frechet(sizes: Sizes) -> Findings:
    """Seconds on the CPU from features and from moments, which the others' functions take; correct digits."""
    size = sizes.frechet
    findings = Findings()
    for width in size.widths:
        x, y = random_features(size.samples, width)
        _add_turns(findings, sizes, f"width {width}, from features", from_features(x, y))
        _add_turns(findings, sizes, f"width {width}, from moments", from_moments(x, y))
    for kind in KINDS:
        digits: dict[str, list[float]] = {name: [] for name in distances()}
        for seed in range(size.exact_cases):
            x, y = small_case(kind, size, seed)
            exact = exact_distance(x, y)
            for name, distance in distances().items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FewSamplesWarning)
                    digits[name].append(correct_digits(distance(x, y), exact))
        others = max(statistics.median(digits[name]) for name in (PYTORCH_FID, TORCHMETRICS))
        for name, counts in digits.items():
            target = min(others, ROUNDING_DIGITS) if name == OURS else None
            findings.add(GROUP, f"width {size.exact_width}, {kind}: {name}", counts, "digits", at_least=target)
    return findings


def distances() -> dict[str, Distance]:
    """All three, from features."""

    def pytorch_fid(x: Features, y: Features) -> float:
        return pytorch_fid_distance(moments(x), moments(y))

    def torchmetrics(x: Features, y: Features) -> float:
        sets = [torch.from_numpy(rows) for rows in (x, y)]
        return torchmetrics_distance(sets[0].mean(0), sets[0].T.cov(), sets[1].mean(0), sets[1].T.cov())

    return {OURS: frechet_distance, PYTORCH_FID: pytorch_fid, TORCHMETRICS: torchmetrics}


def from_features(x: Features, y: Features) -> dict[str, Callable[[], float]]:
    return {name: partial(distance, x, y) for name, distance in distances().items()}


def from_moments(x: Features, y: Features) -> dict[str, Callable[[], float]]:
    """The same distance where means and covariances are known already."""
    ours = [FrechetMoments(x.shape[1]) for _ in range(2)]
    for stream, rows in zip(ours, (x, y), strict=True):
        stream.update(rows)
    known = [moments(rows) for rows in (x, y)]
    tensors = [torch.from_numpy(part) for one in known for part in one]
    return {
        OURS: partial(ours[0].distance, ours[1]),
        PYTORCH_FID: partial(pytorch_fid_distance, *known),
        TORCHMETRICS: partial(torchmetrics_distance, *tensors),
    }


def pytorch_fid_distance(x: Moments, y: Moments) -> float:
    """As pytorch-fid 0.3: the root of the product, its imaginary part left away."""
    root = sqrtm(x.covariance @ y.covariance)
    shift = x.mean - y.mean
    return float(shift @ shift + np.trace(x.covariance) + np.trace(y.covariance) - 2 * np.trace(root.real))


def torchmetrics_distance(mean_x: Tensor, covariance_x: Tensor, mean_y: Tensor, covariance_y: Tensor) -> float:
    from torchmetrics.image.fid import _compute_fid  # here, because it takes seconds to import; after that nothing

    return float(_compute_fid(mean_x, covariance_x, mean_y, covariance_y))


def exact_distance(x: Features, y: Features) -> float:
    """The distance of float64 features, computed with 50 digits and rounded; of singular covariances too."""
    with mpmath.workdps(DIGITS):
        centred, means, traces = [], [], mpmath.mpf(0)
        for rows in (x, y):
            matrix = mpmath.matrix(rows.tolist())
            mean = [mpmath.fsum(matrix[:, k]) / matrix.rows for k in range(matrix.cols)]
            for i in range(matrix.rows):
                for k in range(matrix.cols):
                    matrix[i, k] = (matrix[i, k] - mean[k]) / mpmath.sqrt(matrix.rows - 1)
            centred.append(matrix)
            means.append(mean)
            traces += mpmath.fsum(value**2 for value in matrix)
        # Not the eigenvalues of S_x S_y, which would be sought without its symmetry: R_x R_y^T with S = R^T R.
        root = mpmath.fsum(mpmath.svd_r(centred[0] * centred[1].T, compute_uv=False))
        shift = mpmath.fsum((a - b) ** 2 for a, b in zip(*means, strict=True))
        return float(shift + traces - 2 * root)


def small_case(kind: str, size: FrechetSize, seed: int) -> tuple[Features, Features]:
    """Two small sets of one of KINDS."""
    rng = np.random.default_rng(seed)
    shape = (size.exact_samples, size.exact_width)
    x, y = rng.standard_normal(shape), 1.2 * rng.standard_normal(shape) + 0.3
    if kind == UNEVEN:
        scale = np.logspace(0, -3, size.exact_width)
        return x * scale, y * scale
    few = size.exact_width // 2 + 1
    return (x[:few], y[:few]) if kind == DEFICIENT else (x, y)


def correct_digits(value: float, exact: float) -> float:
    """Decimal digits that agree."""
    error = abs(value - exact) / abs(exact)
    return min(MOST_DIGITS, -math.log10(error)) if error else MOST_DIGITS


def random_features(samples: int, width: int) -> tuple[Features, Features]:
    """Correlated Gaussians, whose covariances have condition numbers as features have them."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((width, width)) / math.sqrt(width)
    return rng.standard_normal((samples, width)) @ mix, 1.1 * rng.standard_normal((samples, width)) @ mix + 0.1


def moments(features: Features) -> Moments:
    return Moments(features.mean(axis=0), np.cov(features, rowvar=False))


def _add_turns(findings: Findings, sizes: Sizes, what: str, variants: dict[str, Callable[[], float]]) -> None:
    cpu = torch.device("cpu")
    runs: dict[str, Timed] = {name: timed(variant, cpu) for name, variant in variants.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamplesWarning)
        turns = take_turns(runs, sizes.repetitions, sizes.warmup, f"Frechet, {what}")
    for name, seconds in turns.items():
        findings.add(GROUP, f"{what}: {name}", seconds, "s")
    for name in (PYTORCH_FID, TORCHMETRICS):
        ratio = ratios(turns[name], turns[OURS])
        findings.add(GROUP, f"{what}: {name} / ours", ratio, "x", at_least=FASTER_AT_LEAST)
