"""Pictures: side by side under labels, in grids, and to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from video_mirai.media.pixels import as_rgb

LABEL_PIXELS = 14
BACKGROUND = 24


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Writes one (H, W, 3) uint8 picture; the suffix chooses the format."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def side_by_side(videos: Sequence[np.ndarray | Tensor], labels: Sequence[str], scale: int = 1) -> np.ndarray:
    """Videos of equal shape in one row, a label over each.

    Args:
        videos: each (T, H, W, C) uint8 or (T, C, H, W) float in [-1, 1].
        labels: one per video; cut off where wider than the video.
        scale: whole-number enlargement (nearest neighbour), so that small frames leave room for words.

    Returns (T, H', W', 3) uint8.
    """
    if len(videos) != len(labels) or not videos:
        raise ValueError(f"side_by_side needs one label per video; got {len(videos)} videos, {len(labels)} labels.")
    columns = [_enlarge(as_rgb(video), scale) for video in videos]
    shapes = {column.shape for column in columns}
    if len(shapes) > 1:
        raise ValueError(f"side_by_side needs videos of one shape (T, H, W, 3); got {sorted(shapes)}.")
    num_frames, height, width, _ = columns[0].shape
    titled = []
    for column, label in zip(columns, labels, strict=True):
        strip = np.broadcast_to(_label_strip(label, width), (num_frames, LABEL_PIXELS, width, 3))
        titled.append(np.concatenate([strip, column], axis=1))
        titled.append(np.full((num_frames, height + LABEL_PIXELS, 2, 3), BACKGROUND, np.uint8))
    return np.concatenate(titled[:-1], axis=2)


def image_grid(images: np.ndarray | Tensor, columns: int, gap: int = 2, scale: int = 1) -> np.ndarray:
    """Pictures in rows of `columns`: (N, H, W, C) uint8 or (N, C, H, W) float in [-1, 1] becomes (H', W', 3) uint8."""
    tiles = _enlarge(as_rgb(images), scale)
    num_images, height, width, _ = tiles.shape
    if num_images == 0 or columns < 1:
        raise ValueError(f"image_grid needs pictures and columns >= 1; got {num_images} pictures, columns={columns}.")
    rows = -(-num_images // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), BACKGROUND, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def _enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


def _label_strip(label: str, width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, LABEL_PIXELS), (BACKGROUND,) * 3)
    ImageDraw.Draw(strip).text((2, 1), label, fill=(230, 230, 230), font=ImageFont.load_default(size=10))
    return np.asarray(strip)
