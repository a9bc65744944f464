import numpy as np
import pytest

from video_mirai.data.scenes import Scenes, ScenesConfig
from video_mirai.evaluation.detectors import build_detector
from video_mirai.evaluation.detectors.scene_state import describe_state
from video_mirai.evaluation.state_metrics import ReadState

CONFIG = ScenesConfig(num_clips=4, num_frames=8, split="test")


def clips():
    scenes = Scenes(4, 8, split="test")
    frames = [(scenes[i]["video"].movedim(1, -1) * 0.5 + 0.5).numpy() for i in range(4)]
    return np.stack([np.round(255 * clip) for clip in frames]).astype(np.uint8)


def test_state_of_scenes_has_the_numbers_that_were_drawn():
    detector = build_detector("state", 8, scenes=CONFIG)
    features = detector.features(clips())
    assert features.shape == (4, detector.feature_dim)
    np.testing.assert_allclose(features[:, 0], 1)  # one sprite
    np.testing.assert_allclose(features[:, 10], 1)  # which stays itself
    state = Scenes(4, 8, split="test")[2]["state"]
    speed = np.linalg.norm(np.diff(state["position"][:, 0].numpy(), axis=0), axis=1).mean()
    assert features[2, 7] * CONFIG.sprite_size == pytest.approx(speed, abs=0.15)
    assert detector.label == "fd_state"


def test_frozen_clip_stands_still_and_empty_frames_have_nothing():
    detector = build_detector("state", 8, scenes=CONFIG)
    moving = clips()
    frozen = detector.features(np.repeat(moving[:, :1], 8, axis=1))
    assert (frozen[:, 11] == 1).all()
    assert (frozen[:, 7] == 0).all()
    assert (detector.features(np.zeros_like(moving)) == 0).all()


def test_step_is_followed_from_frame_to_frame_whatever_the_order_of_readings():
    position = np.array([[[2.0, 2], [20, 20]], [[20, 21], [3, 2]], [[4, 2], [20, 22]]])
    identity = np.array([[5, 6], [6, 5], [5, 7]])
    described = describe_state(ReadState(position, identity), sprite_size=1)
    assert described[7] == pytest.approx(1)  # every sprite moves one pixel a frame
    assert described[9] == pytest.approx(0)  # without a change of motion
    assert described[10] == pytest.approx(3 / 4)  # one of four steps changes the identity


def test_hash_says_what_the_scenes_look_like_and_not_which_were_drawn():
    of = [
        build_detector("state", 8, scenes=ScenesConfig(**options)).sha256
        for options in ({}, {"seed": 3}, {"sprite_size": 8})
    ]
    assert of[0] == of[1] != of[2]


def test_without_scenes_there_is_no_state():
    with pytest.raises(ValueError, match="synthetic scenes only"):
        build_detector("state", 8)
    with pytest.raises(ValueError, match="at least 3 frames"):
        build_detector("state", 2, scenes=CONFIG)
    with pytest.raises(ValueError, match="frames must be"):
        build_detector("state", 8, scenes=CONFIG).features(np.zeros((1, 8, 16, 16, 3), np.uint8))
