"""What a piece of video looks like, in a few numbers, and a code that near duplicates have nearly in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import dctn

SIDE = 128  # pixels; frames are measured at SIDE x SIDE, whatever their size is
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue (ITU-R BT.601)
DARK_LUMA = 32  # a pixel below is dark
HASHED_FRAMES = 4  # of a piece, evenly spaced
HASH_SIDE = 8  # so 64 bits a frame
CODE_BITS = HASHED_FRAMES * HASH_SIDE**2
DCT_SIDE = 32  # pixels; the frame before its cosine transform


class ClipQuality(NamedTuple):
    """Means over the frames of a piece; luma in grey levels, 0 to 255.

    motion: of the absolute difference of luma between a frame and the next; 0 for a single frame.
    luma: of the luma.
    dark_share: of the share of pixels darker than DARK_LUMA, in [0, 1].
    detail: of the variance of the Laplacian of the luma.
    code: CODE_BITS bits, the `perceptual_hash` of HASHED_FRAMES frames one after the other.
    """

    motion: float
    luma: float
    dark_share: float
    detail: float
    code: int


def measure_quality(blocks: Iterable[np.ndarray], num_frames: int) -> ClipQuality:
    """Measures the frames of a piece as they come; blocks: each (T, SIDE, SIDE, 3) uint8, num_frames in all."""
    hashed = [num_frames * (2 * turn + 1) // (2 * HASHED_FRAMES) for turn in range(HASHED_FRAMES)]
    hashes: dict[int, int] = {}  # by frame
    motion = luma = dark = detail = 0.0  # sums over the frames
    last = np.empty((0, SIDE, SIDE), np.float32)
    first = 0
    for block in blocks:
        lumas = block.astype(np.float32) @ LUMA_WEIGHTS  # (T, SIDE, SIDE)
        motion += float(np.abs(np.diff(np.concatenate([last, lumas]), axis=0)).mean((1, 2)).sum())
        luma += float(lumas.mean((1, 2)).sum())
        dark += float((lumas < DARK_LUMA).mean((1, 2)).sum())
        detail += float(laplacian(lumas).var((1, 2)).sum())
        for frame in set(hashed) & set(range(first, first + len(lumas))):
            hashes[frame] = perceptual_hash(lumas[frame - first])
        last = lumas[-1:]
        first += len(lumas)
    assert first == num_frames, "num_frames is not what the blocks hold"
    code = 0
    for frame in hashed:
        code = code << HASH_SIDE**2 | hashes[frame]
    return ClipQuality(motion / max(1, num_frames - 1), luma / num_frames, dark / num_frames, detail / num_frames, code)


def laplacian(lumas: np.ndarray) -> np.ndarray:
    """The sum of a pixel's four neighbours less four times itself: (T, H, W) becomes (T, H - 2, W - 2)."""
    vertical = lumas[:, :-2, 1:-1] + lumas[:, 2:, 1:-1]
    horizontal = lumas[:, 1:-1, :-2] + lumas[:, 1:-1, 2:]
    return vertical + horizontal - 4 * lumas[:, 1:-1, 1:-1]


def perceptual_hash(luma: np.ndarray) -> int:
    """64 bits of a frame (SIDE, SIDE): which of its 8 x 8 lowest frequencies lie above their median.

    Brightness, contrast, size and compression hardly change it.
    Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", DCT based hash: the
    cosine transform of 32 x 32 pixels, coefficients 1 to 8 in both directions.
    """
    pooled = luma.reshape(DCT_SIDE, SIDE // DCT_SIDE, DCT_SIDE, SIDE // DCT_SIDE).mean((1, 3))
    low = dctn(pooled, norm="ortho")[1 : HASH_SIDE + 1, 1 : HASH_SIDE + 1]
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def code_distance(code: int, other: int) -> float:
    """How many of 64 bits two pieces' frames differ in, on average."""
    return (code ^ other).bit_count() / HASHED_FRAMES


def near_duplicates(codes: Sequence[int], max_distance: float) -> list[int | None]:
    """For each code the number of the first earlier one that is kept and at most max_distance away; None: it is kept.

    Exact without comparing all pairs: codes that differ in at most k bits are equal in one of k + 1 parts at least, so
    that only those which share a part are compared.
    """
    max_bits = int(max_distance * HASHED_FRAMES)
    num_parts = min(max_bits, CODE_BITS) + 1
    edges = [CODE_BITS * part // num_parts for part in range(num_parts + 1)]
    kept: dict[tuple[int, int], list[int]] = {}  # numbers of codes by (part, its bits)
    originals: list[int | None] = []
    for number, code in enumerate(codes):
        parts = [(part, code >> edges[part] & (1 << edges[part + 1] - edges[part]) - 1) for part in range(num_parts)]
        candidates = {other for part in parts for other in kept.get(part, ())}
        near = [other for other in candidates if (codes[other] ^ code).bit_count() <= max_bits]
        originals.append(min(near, default=None))
        if not near:
            for part in parts:
                kept.setdefault(part, []).append(number)
    return originals
