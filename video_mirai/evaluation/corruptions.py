"""Known damage of known strength: what metrics are tried on.

Frames are (T, H, W, 3) floats in [0, 1]; strength 0 changes nothing, more strength changes more. The same seed gives
the same damage.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

# Where a drifting picture goes: a warm grey.
TINT = (0.5, 0.4, 0.3)

Frames = NDArray[np.float64]


class Corruption(NamedTuple):
    """apply: (frames, strength, seed) -> frames. strengths: from weak to strong, in the unit."""

    apply: Callable[[Frames, float, int], Frames]
    strengths: tuple[float, ...]
    unit: str


def add_noise(frames: Frames, strength: float, seed: int) -> Frames:
    """Gaussian noise of so many grey levels, independent in every pixel, frame and channel."""
    noise = np.random.default_rng(seed).standard_normal(frames.shape)
    return np.clip(frames + strength / 255 * noise, 0, 1)


def blur(frames: Frames, strength: float, seed: int) -> Frames:
    """Gaussian blur in space, standard deviation in pixels."""
    return gaussian_filter(frames, (0, strength, strength, 0))


def shuffle_frames(frames: Frames, strength: float, seed: int) -> Frames:
    """Every frame is moved in time by about so many frames: the order of t + uniform(0, strength)."""
    jitter = np.random.default_rng(seed).uniform(0, 1, len(frames))
    return frames[np.argsort(np.arange(len(frames)) + strength * jitter, kind="stable")]


def freeze(frames: Frames, strength: float, seed: int) -> Frames:
    """The last share of the video stands still."""
    moving = max(1, round((1 - strength) * len(frames)))
    return frames[np.minimum(np.arange(len(frames)), moving - 1)]


def swap_identity(frames: Frames, strength: float, seed: int) -> Frames:
    """In the last share of the video red is green, green is blue and blue is red: sprites become other ones."""
    changed = frames.copy()
    first = round((1 - strength) * len(frames))
    changed[first:] = np.roll(frames[first:], 1, axis=-1)
    return changed


def drift_colour(frames: Frames, strength: float, seed: int) -> Frames:
    """The picture turns slowly into a warm grey, by this share in the last frame."""
    share = strength * np.linspace(0, 1, len(frames))[:, None, None, None]
    return (1 - share) * frames + share * np.array(TINT)


CORRUPTIONS = {
    "noise": Corruption(add_noise, (4, 8, 16, 32), "grey levels"),
    "blur": Corruption(blur, (0.5, 1, 2, 4), "px"),
    "shuffle": Corruption(shuffle_frames, (2, 4, 8, 16), "frames"),
    "freeze": Corruption(freeze, (0.25, 0.5, 0.75, 1), "of the video"),
    "swap": Corruption(swap_identity, (0.25, 0.5, 0.75, 1), "of the video"),
    "drift": Corruption(drift_colour, (0.05, 0.1, 0.2, 0.4), "at the end"),
}
