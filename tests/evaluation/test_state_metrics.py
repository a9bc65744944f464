import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from video_mirai.data.scenes import Scenes, ScenesConfig, occluder_span
from video_mirai.evaluation.state_metrics import (
    ReadState,
    TrueState,
    Walls,
    constant_velocity_state,
    copy_last_state,
    count_errors,
    find_occlusions,
    first_step_beyond,
    frozen_share,
    hide_occluded,
    last_motion,
    match_sprites,
    position_errors,
    scene_metrics,
    state_curves,
    velocity_errors,
    wall_penetration,
)
from video_mirai.evaluation.state_reader import StateReader, frames_of, measure_floor, true_state

WALLS = Walls(np.array([0.0, 0.0]), np.array([40.0, 20.0]))
FRAMES = 10


def two_sprites() -> TrueState:
    """Sprite 7 moves right by 2 px a frame at y = 5, sprite 3 left by 1 px a frame at y = 15."""
    time = np.arange(FRAMES, dtype=float)
    first = np.stack([2 * time + 1, np.full(FRAMES, 5.0)], axis=1)
    second = np.stack([30 - time, np.full(FRAMES, 15.0)], axis=1)
    return TrueState(np.stack([first, second], axis=1), np.array([7, 3]), np.ones((FRAMES, 2)))


def perfect_reading(truth: TrueState) -> ReadState:
    """In the other order than the truth, hidden sprites left out."""
    shown = truth.visible_fraction >= 0.1
    position = np.where(shown[..., None], truth.position, np.nan)
    identity = np.where(shown, truth.identity, -1)
    return ReadState(position[:, ::-1], identity[:, ::-1])


def hidden_from_3_to_6(truth: TrueState) -> TrueState:
    fraction = truth.visible_fraction.copy()
    fraction[3:7, 0] = 0
    fraction[[2, 7], 0] = 0.3
    return truth._replace(visible_fraction=fraction)


def test_a_perfect_reading_has_no_error() -> None:
    truth = hidden_from_3_to_6(two_sprites())
    metrics = scene_metrics(truth, perfect_reading(truth), WALLS, radius=1, patience=2)
    assert metrics.position_error == metrics.velocity_error == metrics.count_error == metrics.missing_share == 0
    assert metrics.first_step_beyond == FRAMES
    assert (metrics.identity_persistence, metrics.identity_switches, metrics.frozen_share) == (1, 0, 0)
    assert (metrics.num_occlusions, metrics.reemerged_share, metrics.replaced_share) == (1, 1, 0)
    assert metrics.reemergence_delay == metrics.reemergence_distance == metrics.wall_penetration == 0


def test_position_error_and_its_first_step_beyond_the_radius_are_the_hand_computed_ones() -> None:
    truth = two_sprites()
    read = perfect_reading(truth)
    read.position[4, 1] += [3.0, 4.0]  # the reading's sprite 1 is the true sprite 0
    errors = position_errors(truth, match_sprites(truth, read))
    assert errors[4, 0] == 5 and errors.sum() == 5
    assert first_step_beyond(errors, 4.9) == 4
    assert first_step_beyond(errors, 5.1) == FRAMES
    velocity = velocity_errors(truth, match_sprites(truth, read))
    np.testing.assert_allclose(velocity[[3, 4], 0], 5)
    assert velocity.sum() == pytest.approx(10)


def test_curves_leave_hidden_sprites_out_and_are_lost_for_good() -> None:
    truth = hidden_from_3_to_6(two_sprites())
    truth = TrueState(truth.position[:, :1], truth.identity[:1], truth.visible_fraction[:, :1])
    read = perfect_reading(truth)
    position, identity = read.position.copy(), read.identity.copy()
    position[8] += [3, 4]
    identity[8] = 5
    position[9], identity[9] = np.nan, -1
    curves = state_curves(truth, match_sprites(truth, ReadState(position, identity)), radius=4)
    nothing = [np.nan] * 6
    np.testing.assert_array_equal(curves.position_error, [0, 0, *nothing, 5, np.nan])
    np.testing.assert_array_equal(curves.identity_persistence, [1, 1, *nothing, 0, 0])
    np.testing.assert_array_equal(curves.on_track, [1] * 8 + [0, 0])


def test_a_missing_sprite_is_counted_and_beyond_every_radius() -> None:
    truth = two_sprites()
    read = perfect_reading(truth)
    read.identity[6, 0], read.position[6, 0] = -1, np.nan
    assert first_step_beyond(position_errors(truth, match_sprites(truth, read)), 1e9) == 6
    assert count_errors(truth, read).tolist() == [0] * 6 + [-1] + [0] * 3
    assert scene_metrics(truth, read, WALLS, radius=1, patience=2).missing_share == 1 / (2 * FRAMES)


def test_a_sprite_too_many_is_counted_and_a_partly_visible_one_may_be_read_or_not() -> None:
    truth = two_sprites()
    truth.visible_fraction[2, 0] = 0.3
    assert not count_errors(truth, perfect_reading(truth)).any()
    assert not count_errors(truth, ReadState(truth.position[:, 1:], np.full((FRAMES, 1), 3)))[2]
    doubled = perfect_reading(truth)
    doubled = ReadState(np.tile(doubled.position, (1, 2, 1)), np.tile(doubled.identity, (1, 2)))
    assert (count_errors(truth, doubled) == 2).all()


def test_swapped_identities_show_as_a_switch_of_each_sprite() -> None:
    truth = two_sprites()
    read = perfect_reading(truth)
    read.identity[6:] = read.identity[6:, ::-1].copy()
    metrics = scene_metrics(truth, read, WALLS, radius=1, patience=2)
    assert metrics.position_error == 0
    assert metrics.identity_switches == 2
    assert metrics.identity_persistence == pytest.approx(0.6)


def test_a_frozen_video_is_detected() -> None:
    truth = two_sprites()
    frozen = copy_last_state(truth.position[0], truth.identity, FRAMES)
    metrics = scene_metrics(truth, frozen, WALLS, radius=3, patience=2)
    assert metrics.frozen_share == 1
    assert metrics.velocity_error == pytest.approx(1.5)
    assert metrics.first_step_beyond == 2
    assert metrics.identity_persistence == 1


def test_frozen_share_ignores_sprites_that_stand_still_in_truth() -> None:
    truth = two_sprites()
    truth.position[:, 1] = truth.position[0, 1]
    frozen = match_sprites(truth, copy_last_state(truth.position[0], truth.identity, FRAMES))
    assert frozen_share(truth, frozen) == 1
    assert np.isnan(frozen_share(truth._replace(position=frozen.position), frozen))


def test_reemergence_late_and_elsewhere_is_measured() -> None:
    truth = hidden_from_3_to_6(two_sprites())
    read = perfect_reading(truth)
    read.identity[7:9, 1], read.position[7:9, 1] = -1, np.nan  # must show at 8, shows at 9
    read.position[9, 1] += [0.0, 3.0]
    (occlusion,) = find_occlusions(truth, read, match_sprites(truth, read), patience=1)
    assert (occlusion.sprite, occlusion.hidden_from, occlusion.emerges_from, occlusion.emerges_by) == (0, 3, 7, 8)
    assert (occlusion.reemerged, occlusion.delay, occlusion.distance) == (True, 1, 3)
    (impatient,) = find_occlusions(truth, read, match_sprites(truth, read), patience=0)
    assert not impatient.reemerged and np.isnan(impatient.delay) and not impatient.replaced


def test_reemergence_too_early_has_a_negative_delay() -> None:
    truth = hidden_from_3_to_6(two_sprites())
    read = perfect_reading(truth)
    read.identity[5:7, 1], read.position[5:7, 1] = 7, truth.position[5:7, 0]
    (occlusion,) = find_occlusions(truth, read, match_sprites(truth, read), patience=1)
    assert (occlusion.reemerged, occlusion.delay, occlusion.distance) == (True, -2, 0)


def test_another_sprite_coming_out_is_a_replacement() -> None:
    truth = hidden_from_3_to_6(two_sprites())
    read = perfect_reading(truth)
    read.identity[7:, 1] = 5
    (occlusion,) = find_occlusions(truth, read, match_sprites(truth, read), patience=1)
    assert not occlusion.reemerged and occlusion.replaced


def test_a_sprite_that_never_vanished_has_not_reemerged() -> None:
    truth = hidden_from_3_to_6(two_sprites())
    frozen = copy_last_state(truth.position[0], truth.identity, FRAMES)
    assert not find_occlusions(truth, frozen, match_sprites(truth, frozen), patience=1)[0].reemerged


def test_wall_penetration_is_the_distance_beyond_the_walls() -> None:
    read = ReadState(np.array([[[43.0, 24.0], [5.0, 5.0], [-1.0, 5.0], [np.nan, np.nan]]]), np.array([[1, 2, 3, -1]]))
    np.testing.assert_allclose(wall_penetration(read, WALLS), [5, 0, 1])


def test_constant_velocity_with_bounces_continues_the_truth() -> None:
    state = Scenes(1, 40, num_sprites=2, height=24, width=24)[0]["state"]
    position, velocity = state["position"].double().numpy(), state["velocity"].double().numpy()
    low, high = np.full(2, 5.0), np.full(2, 19.0)
    carried = constant_velocity_state(position[9], velocity[9], state["identity"].numpy(), 30, Walls(low, high))
    np.testing.assert_allclose(carried.position, position[10:], atol=1e-3)


def test_last_motion_comes_from_the_last_two_neighbouring_frames_seen() -> None:
    gone = [np.nan, np.nan]
    track = np.array([[[0.0, 0.0]], [[1.0, 2.0]], [[3.0, 2.0]], [gone], [gone]])
    position, velocity = last_motion(track)
    np.testing.assert_allclose(velocity, [[2, 0]])
    np.testing.assert_allclose(position, [[7, 2]])
    position, velocity = last_motion(np.array([[[4.0, 4.0]], [gone]]))
    np.testing.assert_allclose((position, velocity), [[[4, 4]], [[0, 0]]])


def test_a_baseline_does_not_show_what_the_bar_hides() -> None:
    state = ReadState(np.array([[[10.0, 5.0], [13.0, 5.0], [17.5, 5.0]]]), np.array([[1, 2, 3]]))
    assert hide_occluded(state, (8, 18), 8).identity.tolist() == [[1, -1, 3]]
    assert hide_occluded(state, None, 8) is state


def test_different_lengths_and_equal_sprites_are_refused() -> None:
    truth = two_sprites()
    read = perfect_reading(truth)
    with pytest.raises(ValueError, match="10 frames, the reading has 9"):
        match_sprites(truth, ReadState(read.position[1:], read.identity[1:]))
    with pytest.raises(ValueError, match="two sprites are the same"):
        match_sprites(truth._replace(identity=np.array([3, 3])), read)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"colours": ("white",)},
        {"num_sprites": 2, "height": 48, "width": 48},
        {"occluder_width": 10, "max_angle": 45.0},
        {"sprites": "discs", "height": 16, "width": 32, "sprite_size": 6.0, "occluder_width": 12, "max_angle": 30.0},
        {"sprites": "digits"},
    ],
    ids=["plain", "white", "two", "occluder", "discs", "digits"],
)
def test_the_reader_finds_true_sprites_to_a_fraction_of_a_pixel(settings: dict[str, object]) -> None:
    if settings.get("sprites") == "digits":
        pytest.importorskip("sklearn")
    config = dataclasses.replace(ScenesConfig(num_clips=6, num_frames=16, split="val"), **settings)
    scenes = Scenes(**dataclasses.asdict(config))
    floor = measure_floor(StateReader(config, config.num_sprites + 2), [scenes[index] for index in range(6)])
    assert floor.position_error < 0.1
    assert floor.identity_accuracy > 0.98
    assert floor.missing_share < 0.01
    assert floor.count_error < 0.05


def test_the_reader_still_finds_noisy_blurred_and_faded_sprites() -> None:
    scenes = Scenes(4, 12, split="val")
    reader = StateReader(scenes.config, 3)
    generator = np.random.default_rng(0)
    for index in range(4):
        sample = scenes[index]
        frames = 0.8 * gaussian_filter(frames_of(sample), (0, 1, 1, 0))
        frames = np.clip(frames + 0.05 * generator.standard_normal(frames.shape), 0, 1)
        metrics = scene_metrics(true_state(sample), reader.read(frames), reader.walls, radius=1, patience=0)
        assert metrics.first_step_beyond == 12
        assert metrics.position_error < 0.5


def test_nothing_is_read_from_empty_noisy_or_undefined_frames() -> None:
    config = ScenesConfig(occluder_width=10)
    noise = np.random.default_rng(0).uniform(0, 0.2, (4, 32, 32, 3))
    reader = StateReader(config, 3)
    for frames in (np.zeros((4, 32, 32, 3)), noise, np.full((4, 32, 32, 3), np.nan)):
        assert (reader.read(frames).identity == -1).all()


def test_the_reader_refuses_frames_of_another_size_or_type() -> None:
    reader = StateReader(ScenesConfig(), 2)
    with pytest.raises(ValueError, match=r"\(T, 32, 32, 3\)"):
        reader.read(np.zeros((4, 3, 32, 32)))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        reader.read(np.zeros((4, 32, 32, 3), dtype=np.uint8))


def test_a_frozen_rollout_fails_permanence_when_read_from_pixels() -> None:
    scenes = Scenes(1, 60, occluder_width=10, max_angle=10, min_speed=1, split="val")
    sample = scenes[0]
    reader = StateReader(scenes.config, 2)
    frames = frames_of(sample)
    truth = true_state(sample)
    assert scene_metrics(truth, reader.read(frames), reader.walls, radius=2, patience=3).reemerged_share == 1
    frozen = np.repeat(frames[:1], len(frames), axis=0)
    metrics = scene_metrics(truth, reader.read(frozen), reader.walls, radius=2, patience=3)
    assert metrics.num_occlusions >= 1 and metrics.reemerged_share == 0
    assert occluder_span(scenes.config) == (11, 21)
