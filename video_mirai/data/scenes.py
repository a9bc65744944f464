"""Synthetic scenes with known state: sprites that move, bounce, pass behind a bar and keep their identity.

Picture coordinates and drawing: see sprites.py. The background is black. A position is the centre of mass of a sprite's
ink, and the ink stays inside the picture: positions run from sprite_size / 2 to the picture's side minus sprite_size /
2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.sprites import PALETTE, Sprite, draw_sprite, load_sprites

OCCLUDER_GREY = 0.35  # of 1
HIDDEN_BELOW = 0.1  # a sprite with less of its ink than this showing counts as hidden
SPLITS = {"train": 0, "val": 1, "test": 2}


@dataclass
class ScenesConfig:
    """What a set of scenes shows.

    num_clips: clips in an epoch. num_frames: frames of a clip. height, width: pixels.
    num_sprites: sprites in every clip, of different identities; of different colours too where there are enough
        colours.
    sprites: "drawn" (six shapes), "discs" (one of them: identity is colour alone) or "digits" (scikit-learn's, one
        image a digit).
    sprite_size: side of the square that holds a sprite's ink, pixels.
    min_speed, max_speed: speed is uniform between them, pixels per frame.
    max_angle: direction of motion, degrees: at most so far from the horizontal. 90 is any direction; less than that
        makes every sprite cross the occluder.
    occluder_width: width of the grey bar in the middle of the picture, drawn over the sprites, pixels; 0 is no bar.
    colours: names from sprites.PALETTE.
    fps: frame rate that the clips claim to have.
    seed, split: with the clip's number (and the epoch, for split "train" alone) they fix the clip.
    """

    num_clips: int = 1024
    num_frames: int = 16
    height: int = 32
    width: int = 32
    num_sprites: int = 1
    sprites: str = "drawn"
    sprite_size: float = 10.0
    min_speed: float = 0.5
    max_speed: float = 2.0
    max_angle: float = 90.0
    occluder_width: int = 0
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow", "magenta", "cyan", "white")
    fps: float = 10.0
    seed: int = 0
    split: str = "train"


class Motion(NamedTuple):
    """position (T, K, 2), pixels; velocity (T, K, 2), pixels per frame."""

    position: np.ndarray
    velocity: np.ndarray


class Scenes(Dataset[VideoSample]):
    """Map-style data set of scenes, drawn when asked for; nothing is stored.

    A sample has video (T, 3, H, W) in [-1, 1] and
        state["position"] (T, K, 2): x and y, pixels.
        state["velocity"] (T, K, 2): pixels per frame, at that instant.
        state["identity"] (K,) int64: shape number x number of colours + colour number; `identity_names` names them.
        state["visible_fraction"] (T, K): share of the ink hidden neither by the bar nor by another sprite.
        state["visible"] (T, K) bool: visible_fraction is at least HIDDEN_BELOW.
    Later sprites are drawn over earlier ones; sprites pass through each other. The initial state does not depend on
    num_frames: a longer clip of the same number begins with the shorter one. The keyword arguments are ScenesConfig's.
    """

    def __init__(
        self,
        num_clips: int = ScenesConfig.num_clips,
        num_frames: int = ScenesConfig.num_frames,
        *,
        height: int = ScenesConfig.height,
        width: int = ScenesConfig.width,
        num_sprites: int = ScenesConfig.num_sprites,
        sprites: str = ScenesConfig.sprites,
        sprite_size: float = ScenesConfig.sprite_size,
        min_speed: float = ScenesConfig.min_speed,
        max_speed: float = ScenesConfig.max_speed,
        max_angle: float = ScenesConfig.max_angle,
        occluder_width: int = ScenesConfig.occluder_width,
        colours: Sequence[str] = ScenesConfig.colours,
        fps: float = ScenesConfig.fps,
        seed: int = ScenesConfig.seed,
        split: str = ScenesConfig.split,
    ) -> None:
        self.config = ScenesConfig(
            num_clips, num_frames, height, width, num_sprites, sprites, sprite_size, min_speed, max_speed, max_angle,
            occluder_width, tuple(colours), fps, seed, split,
        )  # fmt: skip
        check_config(self.config)
        self.sprites: tuple[Sprite, ...] = load_sprites(sprites)
        self.identity_names = name_identities(self.config)
        if num_sprites > len(self.identity_names):
            raise ValueError(
                f"num_sprites={num_sprites} is more than the {len(self.identity_names)} identities; add colours."
            )
        self.fps = fps

    def __len__(self) -> int:
        return self.config.num_clips

    def __getitem__(self, key: int | ClipKey) -> VideoSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        config = self.config
        if not 0 <= index < config.num_clips:
            raise IndexError(f"clip {index} is not in 0..{config.num_clips - 1}.")
        split_epoch = epoch if config.split == "train" else 0
        generator = np.random.default_rng([config.seed, SPLITS[config.split], split_epoch, index])
        identity = draw_identities(config, len(self.sprites), generator)
        motion = draw_motion(config, generator)
        video, visible_fraction = self._draw(identity, motion.position)
        return VideoSample(
            video=video,
            state={
                "position": torch.from_numpy(motion.position).float(),
                "velocity": torch.from_numpy(motion.velocity).float(),
                "identity": torch.from_numpy(identity),
                "visible": torch.from_numpy(visible_fraction >= HIDDEN_BELOW),
                "visible_fraction": torch.from_numpy(visible_fraction).float(),
            },
            name=f"scene-{config.split}-{index:06d}",
            index=index,
        )

    def _draw(self, identity: np.ndarray, position: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Video (T, 3, H, W) in [-1, 1] and visible fraction (T, K)."""
        config = self.config
        num_frames, num_sprites = position.shape[:2]
        frames = np.zeros((num_frames, 3, config.height, config.width))
        free = np.ones((num_frames, config.height, config.width))  # share of each pixel that nothing in front covers
        span = occluder_span(config)
        if span is not None:
            free[:, :, span[0] : span[1]] = 0
            frames[:, :, :, span[0] : span[1]] = OCCLUDER_GREY
        visible_fraction = np.ones((num_frames, num_sprites))
        for k in reversed(range(num_sprites)):  # front to back
            shape, colour = divmod(int(identity[k]), len(config.colours))
            ink = draw_sprite(self.sprites[shape], config.sprite_size, position[:, k], config.height, config.width)
            shown = ink * free
            visible_fraction[:, k] = shown.sum((1, 2)) / ink.sum((1, 2))
            frames += shown[:, None] * np.array(PALETTE[config.colours[colour]])[:, None, None]
            free = free - shown
        return torch.from_numpy(frames.astype(np.float32) * 2 - 1), visible_fraction


def check_config(config: ScenesConfig) -> None:
    """Raises ValueError naming the first value that cannot be drawn."""
    for name, count in (
        ("num_clips", config.num_clips),
        ("num_frames", config.num_frames),
        ("num_sprites", config.num_sprites),
        ("height", config.height),
        ("width", config.width),
    ):
        if count < 1:
            raise ValueError(f"{name}={count} must be at least 1.")
    if config.split not in SPLITS:
        raise ValueError(f"split={config.split!r} is unknown; known: {', '.join(SPLITS)}.")
    if config.seed < 0:
        raise ValueError(f"seed={config.seed} must not be negative.")
    if config.fps <= 0:
        raise ValueError(f"fps={config.fps} must be positive.")
    if not 0 <= config.min_speed <= config.max_speed:
        raise ValueError(f"0 <= min_speed={config.min_speed} <= max_speed={config.max_speed} does not hold.")
    if not 0 <= config.max_angle <= 90:
        raise ValueError(f"max_angle={config.max_angle} must be between 0 and 90 degrees.")
    unknown = [name for name in config.colours if name not in PALETTE]
    if unknown or not config.colours or len(set(config.colours)) < len(config.colours):
        raise ValueError(f"colours={config.colours} must be different names out of {', '.join(PALETTE)}.")
    if not 2 <= config.sprite_size < min(config.height, config.width):
        raise ValueError(
            f"sprite_size={config.sprite_size} must be at least 2 and less than the picture's sides "
            f"({config.width} x {config.height})."
        )
    span = occluder_span(config)
    if config.occluder_width < 0 or (span is not None and min(span[0], config.width - span[1]) < config.sprite_size):
        raise ValueError(
            f"occluder_width={config.occluder_width} must leave sprite_size={config.sprite_size} pixels at both sides "
            f"of the bar in a picture {config.width} wide: every sprite starts clear of it."
        )


def occluder_span(config: ScenesConfig) -> tuple[int, int] | None:
    """First column of the bar and the column after its last one; None without a bar."""
    if config.occluder_width == 0:
        return None
    left = (config.width - config.occluder_width) // 2
    return left, left + config.occluder_width


def position_bounds(config: ScenesConfig) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (x, y) that a position takes, pixels: where the ink touches the walls."""
    half = config.sprite_size / 2
    return np.array([half, half]), np.array([config.width - half, config.height - half])


def name_identities(config: ScenesConfig) -> tuple[str, ...]:
    """ "colour shape" of every identity, in order."""
    return tuple(f"{colour} {sprite.name}" for sprite in load_sprites(config.sprites) for colour in config.colours)


def draw_identities(config: ScenesConfig, num_shapes: int, generator: np.random.Generator) -> np.ndarray:
    """(num_sprites,) int64, all different; of different colours while there are enough."""
    num_colours = len(config.colours)
    if config.num_sprites <= num_colours:
        colours = generator.permutation(num_colours)[: config.num_sprites]
        shapes = generator.integers(num_shapes, size=config.num_sprites)
        return (shapes * num_colours + colours).astype(np.int64)
    return generator.permutation(num_shapes * num_colours)[: config.num_sprites].astype(np.int64)


def draw_motion(config: ScenesConfig, generator: np.random.Generator) -> Motion:
    """Uniform start (clear of the bar), uniform speed and direction, followed for num_frames."""
    low, high = position_bounds(config)
    num_sprites = config.num_sprites
    start = generator.uniform(low, high, size=(num_sprites, 2))
    span = occluder_span(config)
    if span is not None:
        half = config.sprite_size / 2
        room_left, room_right = span[0] - half - low[0], high[0] - span[1] - half
        along = generator.uniform(0, room_left + room_right, size=num_sprites)
        start[:, 0] = np.where(along < room_left, low[0] + along, span[1] + half + along - room_left)
    speed = generator.uniform(config.min_speed, config.max_speed, size=num_sprites)
    angle = np.deg2rad(generator.uniform(-config.max_angle, config.max_angle, size=num_sprites))
    heading = generator.choice([-1.0, 1.0], size=num_sprites)
    velocity = np.stack([heading * speed * np.cos(angle), speed * np.sin(angle)], axis=-1)
    return bounce(start, velocity, np.arange(config.num_frames), low, high)


def bounce(start: np.ndarray, velocity: np.ndarray, steps: np.ndarray, low: np.ndarray, high: np.ndarray) -> Motion:
    """Exact straight motion with elastic reflection: the unfolded path, folded back into [low, high].

    Args:
        start, velocity: (K, 2), inside [low, high].
        steps: (T,) times, frames.
        low, high: (2,), low < high.
    """
    span = high - low
    phase = np.mod(start - low + velocity * steps[:, None, None], 2 * span)  # (T, K, 2)
    position = high - np.abs(phase - span)
    # At the very moment of contact the velocity already points away from the wall, for both directions of travel.
    unreflected = np.where(velocity >= 0, phase < span, (phase > 0) & (phase <= span))
    return Motion(position, np.where(unreflected, velocity, -velocity))
