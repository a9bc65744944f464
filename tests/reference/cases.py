"""Input recipes for values.json (numpy only): call a function, get the arrays its value was computed on."""

import numpy as np


def n256_d64():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 64))
    return x, 1.2 * rng.standard_normal((256, 64)) + 0.3


def n64_d400_rank_deficient():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((64, 400))
    return x, rng.standard_normal((64, 400)) * np.linspace(0.5, 2.0, 400) + 0.1


def identical_n256_d64():
    x, _ = n256_d64()
    return x, x.copy()


def tiny_d1():
    rng = np.random.default_rng(3)
    return rng.standard_normal((10, 1)), 0.5 * rng.standard_normal((7, 1)) + 1.0


def unequal_n_d32():
    rng = np.random.default_rng(5)
    return rng.standard_normal((100, 32)), 0.8 * rng.standard_normal((37, 32)) - 0.2


def disjoint_rank1_d3():
    t = np.arange(6.0)[:, None]
    return t * np.array([[1.0, 0, 0]]), t * np.array([[0, 2.0, 0]])


def frames_pair():
    """Two (T, C, H, W) = (4, 3, 32, 32) float64 clips in [0, 1]."""
    rng = np.random.default_rng(10)
    a = rng.random((4, 3, 32, 32))
    return a, np.clip(a + 0.1 * rng.standard_normal(a.shape), 0.0, 1.0)


def frame_features():
    """(frames, features) = (12, 32) for subject consistency."""
    rng = np.random.default_rng(12)
    base = rng.standard_normal(32)
    return np.stack([base + 0.15 * k * rng.standard_normal(32) for k in range(12)])
