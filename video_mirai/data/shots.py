"""Where one shot ends and the next begins, from small frames as they come.

Every method gives N scores for N frames: score i says how surely a transition runs from frame i to frame i + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from video_mirai.data.transnet import load_transnet

HEIGHT, WIDTH = 27, 48  # pixels of the frames that are looked at, whatever their size is; TransNetV2's

REGIONS = 3  # the picture is looked at in 3 x 3 parts, so that the same colours elsewhere are a change
BINS = 8  # of each of red, green, blue
NEIGHBOURS = 5  # changes before and after that a cut has to stand out from

Scores = Callable[[Iterable[np.ndarray]], np.ndarray]  # blocks of (T, HEIGHT, WIDTH, 3) uint8 to (N,) float32


class Method(NamedTuple):
    """threshold: a score above it is a transition, unless another is asked for; load: takes the device's name."""

    threshold: float
    load: Callable[[str], Scores]


def shots_between(scores: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """The shots, each from its first frame to just before its end.

    A run of scores above the threshold is one transition. After a hard cut, a single score, the next shot starts at
    once; the frames in the midst of a longer transition belong to no shot.
    """
    in_transition = np.concatenate([[False], scores > threshold, [False]])
    starts, ends = np.flatnonzero(np.diff(in_transition)).reshape(-1, 2).T  # of the runs, half-open
    first_frames = [0, *ends.tolist()]
    end_frames = [*(starts + 1).tolist(), len(scores)]
    return [(first, end) for first, end in zip(first_frames, end_frames, strict=True) if first < end]


def histogram_scores(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """By how much a change of colours stands out from the changes around it, in [-1, 1].

    A change is the share of pixels whose colour, of BINS^3, the next frame does not have in the same part of the
    picture. From it the second largest of the NEIGHBOURS changes before and after is taken: in fast motion all are
    large, and a cut that has another one near it still stands out.
    """
    changes = np.array([*_changes(blocks), 0.0], np.float32)  # the last frame has no next one
    padded = np.pad(changes, NEIGHBOURS, mode="constant")
    around = [padded[offset : offset + len(changes)] for offset in range(2 * NEIGHBOURS + 1) if offset != NEIGHBOURS]
    return changes - np.sort(np.stack(around), axis=0)[-2]


def _changes(blocks: Iterable[np.ndarray]) -> Iterator[float]:
    last = None
    for block in blocks:
        histograms = colour_histograms(block)
        if last is not None:
            histograms = np.concatenate([last, histograms])
        last = histograms[-1:]
        yield from np.abs(np.diff(histograms, axis=0)).sum((1, 2)) / 2 / REGIONS**2


def colour_histograms(frames: np.ndarray) -> np.ndarray:
    """Shares of the colours in each part of frames (T, H, W, 3) uint8: (T, REGIONS^2, BINS^3), each part's sum is 1."""
    num_frames, height, width, _ = frames.shape
    levels = frames.astype(np.int64) * BINS >> 8
    colours = (levels[..., 0] * BINS + levels[..., 1]) * BINS + levels[..., 2]
    rows, columns = np.arange(height) * REGIONS // height, np.arange(width) * REGIONS // width
    parts = rows[:, None] * REGIONS + columns  # (H, W)
    places = (np.arange(num_frames)[:, None, None] * REGIONS**2 + parts) * BINS**3 + colours
    counts = np.bincount(places.ravel(), minlength=num_frames * REGIONS**2 * BINS**3)
    pixels = np.bincount(parts.ravel())  # of each part
    return (counts.reshape(num_frames, REGIONS**2, BINS**3) / pixels[:, None]).astype(np.float32)


METHODS: dict[str, Method] = {
    "histogram": Method(0.15, lambda device: histogram_scores),
    "transnet": Method(0.5, load_transnet),
}
