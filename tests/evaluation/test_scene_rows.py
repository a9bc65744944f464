import numpy as np
import pytest

from video_mirai.data.scenes import Scenes
from video_mirai.evaluation.generation import StoredClip
from video_mirai.evaluation.held_out import HeldOut
from video_mirai.evaluation.metric_table import state_metrics
from video_mirai.evaluation.scene_rows import SceneRows

HISTORY = 4


@pytest.fixture(scope="module")
def scene() -> tuple[SceneRows, StoredClip]:
    scenes = Scenes(1, 20, height=32, width=32, num_sprites=1, sprite_size=8.0, occluder_width=0)
    return SceneRows(scenes.config, radius=4.0, patience=8), HeldOut(scenes, [0], []).read(0)


def test_reader_on_true_frames_is_the_floor(scene: tuple[SceneRows, StoredClip]) -> None:
    rows, truth = scene
    numbers = rows.reader_floor(0, truth, HISTORY).numbers
    assert numbers["position_error"] < 0.5 and numbers["identity_persistence"] == 1
    assert list(numbers) == [metric.key for metric in state_metrics(4.0)]


def test_constant_velocity_keeps_up_with_a_sprite_that_does_so_and_loses_to_nobody_who_copies(
    scene: tuple[SceneRows, StoredClip],
) -> None:
    rows, truth = scene
    carried = rows.constant_velocity(0, truth, HISTORY).numbers
    frozen = truth.frames.copy()
    frozen[HISTORY:] = frozen[HISTORY - 1]
    copied = rows.score(frozen[HISTORY:], truth.state).numbers
    assert carried["position_error"] < 0.5 * copied["position_error"]
    assert carried["identity_persistence"] == 1


def test_constant_velocity_sees_the_given_frames_alone(scene: tuple[SceneRows, StoredClip]) -> None:
    rows, truth = scene
    dark = truth._replace(frames=np.where(np.arange(20)[:, None, None, None] < HISTORY, truth.frames, 0))
    expected = rows.constant_velocity(0, truth, HISTORY).numbers
    np.testing.assert_equal(rows.constant_velocity(0, dark, HISTORY).numbers, expected)


def test_a_sprite_that_was_never_seen_is_missing(scene: tuple[SceneRows, StoredClip]) -> None:
    rows, truth = scene
    numbers = rows.constant_velocity(0, truth._replace(frames=np.zeros_like(truth.frames)), HISTORY).numbers
    assert numbers["missing_share"] == 1


def test_curves_say_when_a_copied_frame_loses_its_sprite(scene: tuple[SceneRows, StoredClip]) -> None:
    rows, truth = scene
    frozen = truth.frames.copy()
    frozen[HISTORY:] = frozen[HISTORY - 1]
    numbers, curves = rows.score(frozen[HISTORY:], truth.state)
    assert all(len(curve) == 20 - HISTORY for curve in curves.values())
    assert curves["position_error"].mean() == pytest.approx(numbers["position_error"])
    assert 0 < curves["on_track"].sum() == numbers["first_step_beyond"] < 20 - HISTORY
    assert (np.diff(curves["on_track"]) <= 0).all()
