"""Sprites of the synthetic scenes: ink templates, their colours, and anti-aliased drawing at sub-pixel positions.

Picture coordinates: x to the right and y downwards, in pixels; pixel (row i, column j) covers [j, j+1] x [i, i+1], so
that its centre is (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

# Far apart in direction from black, so that the colour survives anti-aliasing, blur and fading.
PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.2, 0.9, 0.2),
    "blue": (0.25, 0.4, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "magenta": (1.0, 0.2, 0.9),
    "cyan": (0.1, 0.9, 0.9),
    "white": (1.0, 1.0, 1.0),
}
CELLS = 32  # template cells along a side of a drawn sprite
SUPERSAMPLING = 8  # samples along a side of a cell


class Sprite(NamedTuple):
    """One template.

    ink: (rows, columns) float64 in [0, 1].
    centroid: (x, y) of the ink's centre of mass, in cells. It is the point that a position refers to.
    half_extent: largest distance from the centroid to an edge of the ink, along x or y, in cells. Drawing scales it to
        half the sprite's size, so that ink never reaches further than size / 2 from the position.
    """

    name: str
    ink: np.ndarray
    centroid: tuple[float, float]
    half_extent: float


def load_sprites(kind: str) -> tuple[Sprite, ...]:
    """The sprites of a set, in the order of their class number; ValueError for an unknown set or a missing package."""
    if kind not in SPRITE_SETS:
        raise ValueError(f"sprites={kind!r} is unknown; known: {', '.join(sorted(SPRITE_SETS))}.")
    return SPRITE_SETS[kind]()


def draw_sprite(sprite: Sprite, size: float, centres: np.ndarray, height: int, width: int) -> np.ndarray:
    """Coverage of every pixel by the sprite's ink: the exact integral of the template over the pixel's square.

    Args:
        size: side of the square around the position that holds the ink, in pixels.
        centres: (T, 2), x and y of the centroid, in pixels.

    Returns:
        (T, height, width) float64 in [0, 1].
    """
    cell = size / 2 / sprite.half_extent  # pixels
    rows = _overlaps(centres[:, 1], sprite.ink.shape[0], sprite.centroid[1], cell, height)  # (T, height, rows)
    columns = _overlaps(centres[:, 0], sprite.ink.shape[1], sprite.centroid[0], cell, width)  # (T, width, columns)
    return rows @ sprite.ink @ columns.transpose(0, 2, 1)


def _overlaps(centre: np.ndarray, num_cells: int, centroid: float, cell: float, num_pixels: int) -> np.ndarray:
    """Length of the overlap of every pixel with every cell along one axis: (T, num_pixels, num_cells), in pixels."""
    start = centre[:, None, None] + (np.arange(num_cells) - centroid) * cell  # (T, 1, num_cells)
    pixel = np.arange(num_pixels, dtype=np.float64)[:, None]
    return np.clip(np.minimum(pixel + 1, start + cell) - np.maximum(pixel, start), 0, None)


def _measure(name: str, ink: np.ndarray) -> Sprite:
    columns, rows = ink.sum(0), ink.sum(1)
    x = float((columns * (np.arange(len(columns)) + 0.5)).sum() / columns.sum())
    y = float((rows * (np.arange(len(rows)) + 0.5)).sum() / rows.sum())
    used_columns, used_rows = np.flatnonzero(columns), np.flatnonzero(rows)
    half_extent = max(x - used_columns[0], used_columns[-1] + 1 - x, y - used_rows[0], used_rows[-1] + 1 - y)
    return Sprite(name, ink, (x, y), float(half_extent))


@lru_cache(maxsize=1)
def _drawn_sprites() -> tuple[Sprite, ...]:
    steps = CELLS * SUPERSAMPLING
    axis = (np.arange(steps) + 0.5) / steps * 2 - 1
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    shapes = {
        "disc": radius <= 1,
        "square": np.ones_like(radius, dtype=bool),
        "triangle": np.abs(x) <= (y + 1) / 2,
        "cross": (np.abs(x) <= 0.3) | (np.abs(y) <= 0.3),
        "ring": (radius <= 1) & (radius >= 0.55),
        "diamond": np.abs(x) + np.abs(y) <= 1,
    }
    return tuple(
        _measure(name, inside.reshape(CELLS, SUPERSAMPLING, CELLS, SUPERSAMPLING).mean((1, 3)))
        for name, inside in shapes.items()
    )


@lru_cache(maxsize=1)
def _digit_sprites() -> tuple[Sprite, ...]:
    """Of every digit in scikit-learn's set, the image nearest to the digit's mean: one appearance per identity."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            f"sprites='digits' needs scikit-learn ({error}); run 'pip install scikit-learn' or choose sprites='drawn'."
        ) from error
    digits = load_digits()
    images = digits.images / 16.0  # (1797, 8, 8)
    sprites = []
    for label in range(10):
        of_label = images[digits.target == label]
        distance = np.square(of_label - of_label.mean(0)).sum((1, 2))
        sprites.append(_measure(str(label), of_label[distance.argmin()]))
    return tuple(sprites)


def _discs() -> tuple[Sprite, ...]:
    """One shape, so that identity is colour alone."""
    return _drawn_sprites()[:1]


SPRITE_SETS: dict[str, Callable[[], tuple[Sprite, ...]]] = {
    "drawn": _drawn_sprites,
    "discs": _discs,
    "digits": _digit_sprites,
}
