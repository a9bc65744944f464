"""What is known about scenes: scores of the state that frames show, and the rows that have a state but no model."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from video_mirai.data.scenes import ScenesConfig, occluder_span
from video_mirai.evaluation.generation import StoredClip
from video_mirai.evaluation.metric_table import state_metrics
from video_mirai.evaluation.row_scores import VideoScores
from video_mirai.evaluation.state_metrics import (
    ReadState,
    TrueState,
    constant_velocity_state,
    hide_occluded,
    last_motion,
    match_sprites,
    scene_metrics,
    state_curves,
)
from video_mirai.evaluation.state_reader import StateReader


class StateScores(NamedTuple):
    """numbers: of `state_metrics`. curves: of `state_curves`, (T,)."""

    numbers: dict[str, float]
    curves: dict[str, np.ndarray]


class SceneRows:
    """Scores states against the truth.

    Args:
        radius: pixels beyond which a sprite counts as lost. patience: frames a hidden one has to come back in.
    """

    def __init__(self, scenes: ScenesConfig, radius: float, patience: int) -> None:
        self.radius = radius
        self._patience = patience
        self._scenes = scenes
        self._reader = StateReader(scenes, max_sprites=scenes.num_sprites + 2)
        self._keys = [metric.key for metric in state_metrics(radius)]

    def score(self, frames: np.ndarray, state: dict[str, np.ndarray]) -> StateScores:
        """Scores of (T, H, W, 3) uint8 frames that ought to show the last T states of `state`."""
        return self._compare(self._reader.read(frames.astype(np.float64) / 255), _true_state(state, len(frames)))

    def reader_floor(self, clip: int, truth: StoredClip, history_frames: int) -> VideoScores:
        """What the reader makes of the true frames: no model can be seen to do better."""
        found = self.score(truth.frames[history_frames:], truth.state)
        return VideoScores(clip, truth.name, found.curves, found.numbers, {})

    def constant_velocity(self, clip: int, truth: StoredClip, history_frames: int) -> VideoScores:
        """Every sprite carried straight on, with bounces, from what the reader sees in the given frames."""
        horizon = len(truth.frames) - history_frames
        given = {key: value if key == "identity" else value[:history_frames] for key, value in truth.state.items()}
        seen = match_sprites(
            _true_state(given, history_frames),
            self._reader.read(truth.frames[:history_frames].astype(np.float64) / 255),
        )
        position, velocity = last_motion(seen.position)
        identity = np.array([_latest(track) for track in seen.identity.T])
        found = np.isfinite(position).all(axis=1)
        carried = constant_velocity_state(
            position[found], velocity[found], identity[found], horizon, self._reader.walls
        )
        shown = hide_occluded(carried, occluder_span(self._scenes), self._scenes.sprite_size)
        found = self._compare(shown, _true_state(truth.state, horizon))
        return VideoScores(clip, truth.name, found.curves, found.numbers, {})

    def _compare(self, read: ReadState, truth: TrueState) -> StateScores:
        found = scene_metrics(truth, read, self._reader.walls, radius=self.radius, patience=self._patience)
        curves = state_curves(truth, match_sprites(truth, read), radius=self.radius)
        return StateScores({key: float(found._asdict()[key]) for key in self._keys}, curves._asdict())


def _true_state(state: dict[str, np.ndarray], num_frames: int) -> TrueState:
    """Of the last num_frames frames."""
    return TrueState(state["position"][-num_frames:], state["identity"], state["visible_fraction"][-num_frames:])


def _latest(identities: Iterable[int]) -> int:
    """The last identity that was read, -1 for none."""
    return next((int(identity) for identity in reversed(list(identities)) if identity >= 0), -1)
