"""Pictures of pieces of video in rows, each with its name and a value underneath."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PICTURE_WIDTH, PICTURE_HEIGHT = 192, 108  # pixels
COLUMNS = 6
GAP = 6
LINE_HEIGHT = 14
FONT_SIZE = 11
BACKGROUND, INK = 24, 230  # grey levels


class Tile(NamedTuple):
    """pictures: of `fit_picture`, side by side; those of a sheet have equally many. None: it could not be read."""

    pictures: Sequence[np.ndarray | None]
    name: str
    value: str


def contact_sheet(title: str, tiles: Sequence[Tile]) -> np.ndarray:
    """(H, W, 3) uint8: the title, and the tiles in rows."""
    tile_width = PICTURE_WIDTH * len(tiles[0].pictures)
    tile_height = PICTURE_HEIGHT + 2 * LINE_HEIGHT
    columns = max(1, COLUMNS * PICTURE_WIDTH // tile_width)
    rows = math.ceil(len(tiles) / columns)
    width = columns * (tile_width + GAP) + GAP
    sheet = Image.new("RGB", (width, LINE_HEIGHT + GAP + rows * (tile_height + GAP) + GAP), (BACKGROUND,) * 3)
    font = ImageFont.load_default(size=FONT_SIZE)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2), cut_to_width(title, width - 2 * GAP, font), fill=(INK,) * 3, font=font)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = GAP + column * (tile_width + GAP), LINE_HEIGHT + GAP + row * (tile_height + GAP)
        for place, picture in enumerate(tile.pictures):
            if picture is not None:
                sheet.paste(Image.fromarray(picture), (left + place * PICTURE_WIDTH, top))
        for line, text in enumerate((tile.name, tile.value)):
            place_of_text = (left, top + PICTURE_HEIGHT + line * LINE_HEIGHT)
            draw.text(place_of_text, cut_to_width(text, tile_width, font), fill=(INK,) * 3, font=font)
    return np.asarray(sheet)


def fit_picture(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) uint8, whole, in the midst of (PICTURE_HEIGHT, PICTURE_WIDTH, 3)."""
    height, width, _ = frame.shape
    scale = min(PICTURE_HEIGHT / height, PICTURE_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.new("RGB", (PICTURE_WIDTH, PICTURE_HEIGHT), (BACKGROUND * 2,) * 3)
    left, top = (PICTURE_WIDTH - size[0]) // 2, (PICTURE_HEIGHT - size[1]) // 2
    picture.paste(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR), (left, top))
    return np.asarray(picture)


def cut_to_width(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text's end, as far as it fits into so many pixels: names differ at their end."""
    text = text.encode("utf-8", "replace").decode()  # a file name may be no Unicode
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"...{text}") > width:
        text = text[1:]
    return f"...{text}"
