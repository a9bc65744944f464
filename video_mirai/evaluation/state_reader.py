"""Reads the state back from frames of scenes, without a network.

Weighted least squares: in every frame the (colour, shape, position) whose template, with a free contrast, explains most
of the picture is the first sprite; its pixels are then left out and the next one is looked for. The bar's columns have
weight 0, so half a sprite is matched by the half that shows. Generated frames are imperfect, hence the free contrast
(faded and blurred sprites) and least squares over whole templates (noise). What it can't tell apart on true frames is
its floor: measure_floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from video_mirai.data.batch import VideoSample
from video_mirai.data.scenes import ScenesConfig, occluder_span, position_bounds
from video_mirai.data.sprites import PALETTE, draw_sprite, load_sprites
from video_mirai.evaluation.state_metrics import (
    ReadState,
    TrueState,
    Walls,
    match_sprites,
    position_errors,
    scene_metrics,
)

PHASES = (0.0, 0.5)  # px; templates stand on a grid of half pixels, a parabola does the rest
MIN_CONTRAST = 0.4  # of a sprite's own brightness
MIN_VISIBLE = 0.3  # of a sprite's energy outside the bar and outside sprites found before
MIN_FIT = 0.75  # share of the picture's energy under the template that the template explains
INK_EDGE = 0.05  # coverage from which a pixel belongs to a sprite that was found
FRAMES_AT_ONCE = 16


class Floor(NamedTuple):
    """The reader's own error on true frames, clearly visible sprites only.

    position_error: mean, pixels. position_error_max: pixels. missing_share, identity_accuracy: of all (frame, sprite)
        pairs.
    count_error: mean number of sprites too many or too few per frame.
    """

    position_error: float
    position_error_max: float
    missing_share: float
    identity_accuracy: float
    count_error: float


class _Best(NamedTuple):
    """The best explanation of each of T frames; all (T,), positions (T, 2) in pixels."""

    accepted: Tensor
    shape: Tensor
    colour: Tensor
    position: Tensor


class _Coarse(NamedTuple):
    """colour (T,) and pixel (T, 2), column and row, of the best explanation at reduced size."""

    colour: Tensor
    pixel: Tensor


class StateReader:
    """Reader for the scenes of one config: their sprites, size, colours and bar.

    Args:
        scenes: what was drawn, or what the frames imitate.
        max_sprites: at most so many are read from a frame; two more than there should be shows duplicates as well.
    """

    def __init__(self, scenes: ScenesConfig, max_sprites: int) -> None:
        self.scenes = scenes
        self.max_sprites = max_sprites
        self.walls = Walls(*position_bounds(scenes))
        self._sprites = load_sprites(scenes.sprites)
        self._colours = torch.tensor([PALETTE[name] for name in scenes.colours], dtype=torch.float32)
        self._directions = F.normalize(self._colours, dim=1)
        self._brightness = self._colours.norm(dim=1)
        # Sprites are first found where they measure about 4 pixels, in a smaller picture, then at full size near there.
        self._shrink = max(1, int(scenes.sprite_size / 4))
        self._small_templates = self._build_templates(scenes.sprite_size / self._shrink, (0.0,))
        self._templates = self._build_templates(scenes.sprite_size, PHASES)
        faintest = (MIN_CONTRAST * self._brightness.min()) ** 2
        self._least_energy = faintest * MIN_VISIBLE * self._templates.square().sum((1, 2, 3)).min()

    def read(self, frames: np.ndarray) -> ReadState:
        """Positions and identities in frames (T, H, W, 3) in [0, 1], best explained sprite first."""
        expected = (self.scenes.height, self.scenes.width, 3)
        if frames.ndim != 4 or frames.shape[1:] != expected:
            raise ValueError(f"frames must be (T, {', '.join(map(str, expected))}), got {frames.shape}.")
        if not np.issubdtype(frames.dtype, np.floating):
            raise ValueError(f"frames must be floats in [0, 1], got {frames.dtype}; divide bytes by 255.")
        position = np.full((len(frames), self.max_sprites, 2), np.nan)
        identity = np.full((len(frames), self.max_sprites), -1, dtype=np.int64)
        for start in range(0, len(frames), FRAMES_AT_ONCE):
            rows = slice(start, start + FRAMES_AT_ONCE)
            picture = torch.from_numpy(np.ascontiguousarray(frames[rows], dtype=np.float32)).permute(0, 3, 1, 2)
            self._read_some(picture, position[rows], identity[rows])
        return ReadState(position, identity)

    def _read_some(self, picture: Tensor, position: np.ndarray, identity: np.ndarray) -> None:
        """Fills position and identity from picture (T, 3, H, W)."""
        weight = torch.ones_like(picture[:, :1])
        span = occluder_span(self.scenes)
        if span is not None:
            weight[..., span[0] : span[1]] = 0
        rows = torch.arange(len(picture))  # frames in which something may be left
        for sprite in range(self.max_sprites):
            left = (picture[rows].square() * weight[rows]).sum((1, 2, 3))
            rows = rows[left >= self._least_energy]
            if len(rows) == 0:
                return
            best = self._refine(picture[rows], weight[rows], self._locate(picture[rows], weight[rows]))
            rows = rows[best.accepted]
            best = _Best(*(values[best.accepted] for values in best))
            position[rows.numpy(), sprite] = best.position.numpy()
            identity[rows.numpy(), sprite] = (best.shape * len(self._colours) + best.colour).numpy()
            self._leave_out(weight, rows, best)

    def _locate(self, picture: Tensor, weight: Tensor) -> _Coarse:
        """The best colour and whole-pixel position in every frame of picture (T, 3, H, W), in a smaller picture."""
        small = F.avg_pool2d(picture * weight, self._shrink, ceil_mode=True)
        small_weight = F.avg_pool2d(weight, self._shrink, ceil_mode=True)
        pad = self._small_templates.shape[-1] // 2
        products = F.conv2d(small.flatten(0, 1)[:, None], self._small_templates, padding=pad)
        products = torch.einsum("tkshw,ck->tcshw", products.unflatten(0, (-1, 3)), self._directions)
        energy = F.conv2d(small_weight, self._small_templates.square(), padding=pad)[:, None]
        brightness = self._brightness[:, None, None, None]
        gain = _explained(products, energy, self._small_templates, brightness)  # (T, colours, shapes, h, w)
        rows, columns = small.shape[-2:]
        index = gain.flatten(1).argmax(dim=1)
        corner = torch.stack([index % columns, index // columns % rows], dim=1) * self._shrink
        return _Coarse(index // gain[0, 0].numel(), corner + self._shrink // 2)

    def _refine(self, picture: Tensor, weight: Tensor, coarse: _Coarse) -> _Best:
        """The best shape and sub-pixel position near the coarse one, and whether it explains enough to be a sprite."""
        num_frames = len(picture)
        reach = self._shrink + 1
        side = self._templates.shape[-1]
        margin = side // 2 + reach
        around = torch.arange(2 * margin + 1)
        columns = (coarse.pixel[:, 0, None] + around)[:, None, :]  # in the padded picture, from margin to the left
        rows = (coarse.pixel[:, 1, None] + around)[:, :, None]
        frame = torch.arange(num_frames)[:, None, None]
        projection = torch.einsum("tkhw,tk->thw", picture * weight, self._directions[coarse.colour])
        # avg_pool2d's ceil_mode may point to a pixel just outside, hence the wider border on the far sides.
        border = (margin, margin + self._shrink, margin, margin + self._shrink)
        patch = F.pad(projection, border)[frame, rows, columns]
        patch_weight = F.pad(weight[:, 0], border)[frame, rows, columns]
        products = F.conv2d(patch[:, None], self._templates)
        energy = F.conv2d(patch_weight[:, None], self._templates.square())
        brightness = self._brightness[coarse.colour][:, None, None, None]
        gain = _half_pixel_grid(_explained(products, energy, self._templates, brightness))  # (T, shapes, n, n)
        num_steps = gain.shape[-1]
        peak, index = gain.flatten(1).max(dim=1)
        shape, row, column = index // num_steps**2, index // num_steps % num_steps, index % num_steps
        surface = gain[torch.arange(num_frames), shape]
        steps = torch.arange(num_frames)
        x = (column + _parabola_offset(surface[steps, row], column)) / 2 + 0.5
        y = (row + _parabola_offset(surface[steps, :, column], row)) / 2 + 0.5
        position = coarse.pixel - reach + torch.stack([x, y], dim=1)
        accepted = (peak > 0) & (peak >= MIN_FIT * self._energy_under(picture, weight, shape, position))
        return _Best(accepted, shape, coarse.colour, position)

    def _energy_under(self, picture: Tensor, weight: Tensor, shape: Tensor, position: Tensor) -> Tensor:
        """(T,) weighted energy of the picture where the template has ink."""
        ink = self._draw(shape, position)
        return (picture.square() * weight * ink[:, None]).sum((1, 2, 3))

    def _leave_out(self, weight: Tensor, rows: Tensor, best: _Best) -> None:
        """Takes the pixels of sprites that were found out of those rows of weight (T, 1, H, W)."""
        ink = self._draw(best.shape, best.position)[:, None]
        weight[rows] *= ink < INK_EDGE

    def _draw(self, shape: Tensor, position: Tensor) -> Tensor:
        """Ink (T, H, W) of one sprite per frame."""
        ink = torch.zeros(len(shape), self.scenes.height, self.scenes.width)
        for number in shape.unique().tolist():
            here = shape == number
            drawn = draw_sprite(
                self._sprites[number],
                self.scenes.sprite_size,
                position[here].double().numpy(),
                self.scenes.height,
                self.scenes.width,
            )
            ink[here] = torch.from_numpy(drawn).float()
        return ink

    def _build_templates(self, size: float, phases: tuple[float, ...]) -> Tensor:
        """Every shape at every phase, centred in an odd square: (shapes * phases in y * phases in x, 1, side, side)."""
        side = 2 * math.ceil(size / 2 + max(phases) - 0.5) + 1
        centres = np.array([(side / 2 + x, side / 2 + y) for y in phases for x in phases])
        drawn = [draw_sprite(sprite, size, centres, side, side) for sprite in self._sprites]
        return torch.from_numpy(np.concatenate(drawn)).float()[:, None]


def true_state(sample: VideoSample) -> TrueState:
    """The state of a Scenes sample as arrays."""
    state = sample["state"]
    return TrueState(state["position"].numpy(), state["identity"].numpy(), state["visible_fraction"].numpy())


def measure_floor(reader: StateReader, samples: Sequence[VideoSample]) -> Floor:
    """The reader's error on the true frames of Scenes samples."""
    errors, right, counts = [], [], []
    for sample in samples:
        truth = true_state(sample)
        read = reader.read(frames_of(sample))
        matched = match_sprites(truth, read)
        error = position_errors(truth, matched)
        judged = ~np.isnan(error)
        errors.append(error[judged])
        right.append((matched.identity == truth.identity)[judged])
        counts.append(scene_metrics(truth, read, reader.walls, radius=np.inf, patience=0).count_error)
    error = np.concatenate(errors)
    found = error[np.isfinite(error)]
    return Floor(
        position_error=float(found.mean()),
        position_error_max=float(found.max()),
        missing_share=float(np.isinf(error).mean()),
        identity_accuracy=float(np.concatenate(right).mean()),
        count_error=float(np.mean(counts)),
    )


def frames_of(sample: VideoSample) -> np.ndarray:
    """A sample's video as frames (T, H, W, 3) in [0, 1]."""
    return (sample["video"].movedim(1, -1) * 0.5 + 0.5).numpy()


def _explained(products: Tensor, energy: Tensor, templates: Tensor, brightness: Tensor) -> Tensor:
    """Energy of the picture that a sprite explains with its best contrast; 0 where it is too faint or too little shows.

    Args:
        products: (..., templates, H, W), the picture along the colour's direction times the template, summed with the
            weight.
        energy: (..., templates, H, W), the squared template, summed with the weight.
        templates: (templates, 1, side, side).
        brightness: of the colour, broadcast.
    """
    seen_enough = energy >= MIN_VISIBLE * templates.square().sum((1, 2, 3))[:, None, None]
    amplitude = torch.minimum(products * torch.where(seen_enough, 1 / energy, 0.0), brightness)
    gain = amplitude * (2 * products - amplitude * energy)
    return gain.masked_fill_(amplitude < MIN_CONTRAST * brightness, 0.0)


def _half_pixel_grid(gain: Tensor) -> Tensor:
    """(T, shapes * phases, H, W) to (T, shapes, 2H, 2W); entry (i, j) stands at y = (i + 1) / 2, x likewise."""
    return rearrange(gain, "t (s py px) h w -> t s (h py) (w px)", py=len(PHASES), px=len(PHASES))


def _parabola_offset(values: Tensor, peak: Tensor) -> Tensor:
    """Top of the parabola through the peak and its neighbours, in steps from the peak: values (T, n), peak (T,)."""
    last = values.shape[1] - 1
    centre = values.gather(1, peak[:, None])[:, 0]
    before = values.gather(1, (peak - 1).clamp(min=0)[:, None])[:, 0]
    after = values.gather(1, (peak + 1).clamp(max=last)[:, None])[:, 0]
    curvature = before - 2 * centre + after
    inner = (peak > 0) & (peak < last) & (before > 0) & (after > 0) & (curvature < 0)
    return torch.where(inner, (0.5 * (before - after) / curvature.clamp(max=-1e-12)).clamp(-0.5, 0.5), 0.0)
