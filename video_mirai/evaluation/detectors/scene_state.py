"""`state`: what scenes are known to show, read back from the frames; no network, and every number has a meaning."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from video_mirai.data.scenes import ScenesConfig
from video_mirai.evaluation.detectors.base import check_clips, check_output
from video_mirai.evaluation.state_metrics import FREEZE_MIN_STEP, ReadState
from video_mirai.evaluation.state_reader import StateReader

# More sprites than there should be show duplicates as well.
EXTRA_SPRITES = 2
# What scenes are drawn, not what they look like.
OTHER_SETTINGS = ("num_clips", "num_frames", "split", "seed")


class SceneState:
    """Twelve numbers of the sprites that the state reader finds in a clip, lengths in sprite sizes, shares in [0, 1].

    Number of sprites: mean and deviation over frames, and change from frame to frame. Position: mean and deviation of x
    and of y. Step from frame to frame: mean and deviation of its length, and mean length of its change. Share of steps
    in which a sprite keeps its identity; share in which it stands still.
    """

    name = "state"
    label = "fd_state"
    preprocessing = "read at the frames' own size, which must be the scenes'"
    feature_dim = 12

    def __init__(self, scenes: ScenesConfig, clip_frames: int) -> None:
        if clip_frames < 3:
            raise ValueError(f"clip_frames={clip_frames}: state needs at least 3 frames, for a change of motion.")
        self.clip_frames = clip_frames
        # It has no weights: what it reads is decided by what the scenes look like.
        look = {
            key: value
            for key, value in asdict(scenes).items()
            if key not in ("num_clips", "num_frames", "split", "seed")
        }
        self.sha256 = hashlib.sha256(json.dumps(look, sort_keys=True).encode()).hexdigest()
        self._reader = StateReader(scenes, max_sprites=scenes.num_sprites + EXTRA_SPRITES)
        self._size = scenes.sprite_size

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        states = [self._reader.read(clip.astype(np.float32) / 255) for clip in clips]
        return check_output(self, np.stack([describe_state(state, self._size) for state in states]), len(clips))


def describe_state(state: ReadState, sprite_size: float) -> NDArray[np.float64]:
    """(12,) as `SceneState` says; 0 where a clip has nothing to measure."""
    seen = state.identity >= 0
    count = seen.sum(axis=1)
    position = state.position[seen] / sprite_size  # (readings, 2)
    steps, kept, changes = [], [], []
    before: dict[int, NDArray[np.float64]] = {}  # by reading of the frame before: its step
    for frame in range(len(count) - 1):
        here, there = np.flatnonzero(seen[frame]), np.flatnonzero(seen[frame + 1])
        offset = state.position[frame + 1, there] - state.position[frame, here][:, None]  # (here, there, 2)
        rows, columns = linear_sum_assignment(np.linalg.norm(offset, axis=-1))
        pairs = zip(here[rows].tolist(), there[columns].tolist(), offset[rows, columns], strict=True)
        after: dict[int, NDArray[np.float64]] = {}
        for reading, next_reading, step in pairs:
            after[next_reading] = step / sprite_size
            steps.append(float(np.linalg.norm(step)))
            kept.append(state.identity[frame, reading] == state.identity[frame + 1, next_reading])
            if reading in before:
                changes.append(float(np.linalg.norm(after[next_reading] - before[reading])))
        before = after
    length = np.array(steps) / sprite_size
    still = np.array(steps) < FREEZE_MIN_STEP
    centre = (position.mean(axis=0), position.std(axis=0)) if len(position) else (np.zeros(2), np.zeros(2))
    return np.array([
        count.mean(), count.std(), np.abs(np.diff(count)).mean(),
        *centre[0], *centre[1],
        _mean(length), float(length.std()) if len(length) else 0.0, _mean(changes),
        _mean(kept), _mean(still),
    ])  # fmt: skip


def _mean(values: Sequence[float] | NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
