import dataclasses

import numpy as np
import pytest
import torch
from tiny_training import REPOSITORY

from video_mirai.config import RunConfig, load_config
from video_mirai.data.batch import ClipKey
from video_mirai.data.scenes import HIDDEN_BELOW, OCCLUDER_GREY, Scenes, ScenesConfig, bounce, occluder_span
from video_mirai.data.sprites import PALETTE, draw_sprite, load_sprites

LOW, HIGH = np.array([2.0, 2.0]), np.array([10.0, 6.0])


def ink_of(frames: torch.Tensor) -> np.ndarray:
    """Brightness (T, H, W) of video (T, 3, H, W), 0 for the black background."""
    return ((frames + 1) / 2).sum(1).double().numpy()


def centroid(ink: np.ndarray) -> np.ndarray:
    """(T, 2), x and y, of ink (T, H, W)."""
    rows, columns = np.arange(ink.shape[1]) + 0.5, np.arange(ink.shape[2]) + 0.5
    mass = ink.sum((1, 2))
    return np.stack([(ink.sum(1) * columns).sum(1) / mass, (ink.sum(2) * rows).sum(1) / mass], axis=1)


def test_a_sample_has_the_promised_shapes_and_ranges() -> None:
    sample = Scenes(3, 5, height=24, width=40, num_sprites=2)[1]
    assert sample["video"].shape == (5, 3, 24, 40)
    assert sample["video"].dtype == torch.float32
    assert sample["video"].min() >= -1 and sample["video"].max() <= 1
    state = sample["state"]
    assert state["position"].shape == state["velocity"].shape == (5, 2, 2)
    assert state["identity"].shape == (2,) and state["identity"].dtype == torch.int64
    assert state["visible"].shape == (5, 2) and state["visible"].dtype == torch.bool
    assert sample["index"] == 1


def test_motion_between_walls_is_the_hand_computed_one() -> None:
    motion = bounce(np.array([[9.0, 3.0]]), np.array([[2.0, -1.0]]), np.arange(4), LOW, HIGH)
    np.testing.assert_allclose(motion.position[:, 0], [[9, 3], [9, 2], [7, 3], [5, 4]])
    np.testing.assert_allclose(motion.velocity[:, 0], [[2, -1], [-2, 1], [-2, 1], [-2, 1]])


def test_position_and_velocity_stay_consistent_over_thousands_of_frames() -> None:
    motion = bounce(np.array([[3.3, 4.1]]), np.array([[0.7, -0.4]]), np.arange(5000), LOW, HIGH)
    assert (motion.position >= LOW).all() and (motion.position <= HIGH).all()
    np.testing.assert_allclose(np.abs(motion.velocity), np.broadcast_to([0.7, 0.4], motion.velocity.shape))
    steps, unbounced = np.diff(motion.position, axis=0), motion.velocity[1:] == motion.velocity[:-1]
    np.testing.assert_allclose(steps[unbounced], motion.velocity[:-1][unbounced], atol=1e-9)


@pytest.mark.parametrize("sprites", ["drawn", "digits"])
def test_the_drawn_ink_has_its_centre_of_mass_at_the_position(sprites: str) -> None:
    if sprites == "digits":
        pytest.importorskip("sklearn")
    dataset = Scenes(8, 12, sprites=sprites, min_speed=0.3)
    for index in range(8):
        sample = dataset[index]
        found = centroid(ink_of(sample["video"]))
        np.testing.assert_allclose(found, sample["state"]["position"][:, 0].numpy(), atol=0.05)


def test_discs_differ_in_colour_alone() -> None:
    discs = Scenes(4, 2, sprites="discs", colours=("red", "blue"))
    assert discs.identity_names == ("red disc", "blue disc")
    assert {int(discs[index]["state"]["identity"][0]) for index in range(4)} <= {0, 1}


def test_motion_of_a_tenth_of_a_pixel_changes_the_picture() -> None:
    disc = load_sprites("drawn")[0]
    still, moved = draw_sprite(disc, 8, np.array([[8.0, 8.0], [8.1, 8.0]]), 16, 16)
    assert np.abs(still - moved).sum() > 0.5


def test_ink_does_not_depend_on_where_the_sprite_stands() -> None:
    for sprite in load_sprites("drawn"):
        ink = draw_sprite(sprite, 8, np.array([[8.0, 8.0], [7.37, 8.81], [4.0, 12.0]]), 16, 16)
        np.testing.assert_allclose(ink.sum((1, 2)), ink[0].sum())
        assert ink.max() <= 1 + 1e-9


def test_a_square_covers_the_pixels_it_should() -> None:
    square = load_sprites("drawn")[1]
    ink = draw_sprite(square, 2, np.array([[2.5, 2.0]]), 4, 4)[0]
    np.testing.assert_allclose(ink, [[0, 0, 0, 0], [0, 0.5, 1, 0.5], [0, 0.5, 1, 0.5], [0, 0, 0, 0]], atol=1e-12)


def test_a_clip_depends_on_seed_split_and_index_alone() -> None:
    def first_frames(num_clips: int = 4, num_frames: int = 6, **settings: object) -> torch.Tensor:
        config = dataclasses.replace(ScenesConfig(num_clips, num_frames), **settings)
        return Scenes(**dataclasses.asdict(config))[2]["video"][:6]

    reference = first_frames()
    assert torch.equal(reference, first_frames())
    assert torch.equal(reference, first_frames(num_clips=100, num_frames=9))
    assert not torch.equal(reference, first_frames(seed=1))
    assert not torch.equal(reference, first_frames(split="val"))


def test_another_epoch_brings_another_clip_in_training_only() -> None:
    train, val = Scenes(4, 3), Scenes(4, 3, split="val")
    assert torch.equal(train[1]["video"], train[ClipKey(0, 1)]["video"])
    assert not torch.equal(train[ClipKey(0, 1)]["video"], train[ClipKey(1, 1)]["video"])
    assert torch.equal(val[ClipKey(0, 1)]["video"], val[ClipKey(1, 1)]["video"])


def test_sprites_of_a_clip_differ_in_identity_and_in_colour_while_colours_last() -> None:
    dataset = Scenes(20, 1, num_sprites=3, colours=("red", "green", "blue"))
    for index in range(20):
        identity = dataset[index]["state"]["identity"].numpy()
        assert len(set(identity % 3)) == 3
    crowded = Scenes(20, 1, num_sprites=4, colours=("red", "white"))
    assert all(len(crowded[index]["state"]["identity"].unique()) == 4 for index in range(20))


def test_identity_names_the_colour_that_is_drawn() -> None:
    dataset = Scenes(6, 1)
    for index in range(6):
        sample = dataset[index]
        colour = dataset.identity_names[int(sample["state"]["identity"][0])].split()[0]
        drawn = (sample["video"][0] + 1) / 2
        brightest = drawn[:, drawn.sum(0) == drawn.sum(0).max()][:, 0]
        np.testing.assert_allclose(brightest.numpy(), PALETTE[colour], atol=1e-6)


def test_a_sprite_behind_the_bar_is_hidden_and_comes_back_the_same() -> None:
    dataset = Scenes(10, 60, occluder_width=12, sprite_size=8, min_speed=1, max_angle=20)
    left, right = occluder_span(dataset.config) or (0, 0)
    assert (left, right) == (10, 22)
    for index in range(10):
        sample = dataset[index]
        video, state = sample["video"], sample["state"]
        np.testing.assert_allclose((video[..., left:right] + 1) / 2, OCCLUDER_GREY, atol=1e-6)
        beside = torch.cat([video[..., :left], video[..., right:]], dim=-1)
        shown = ink_of(beside).sum((1, 2))
        np.testing.assert_allclose(shown / shown.max(), state["visible_fraction"][:, 0], atol=0.01)
        assert torch.equal(state["visible"], state["visible_fraction"] >= HIDDEN_BELOW)
        assert state["visible"][0, 0] and not state["visible"].all() and state["visible"][-20:].any()


def test_the_study_hides_its_disc_from_window_and_chunk_but_within_the_reach_of_the_probed_layer() -> None:
    """What the first study rests on, of its own config: window + chunk - 1 <= occlusion < layers x window."""
    config = load_config(RunConfig, REPOSITORY / "configs/train/occlusion_foresight.yaml")
    chunk, window = config.objective.chunk_frames, config.objective.window_frames
    reach = int(config.foresight.student_layers[0]) * window
    scenes = Scenes(**dataclasses.asdict(config.data.scenes) | {"num_clips": 200, "num_frames": 96})
    lengths = []
    for clip in range(len(scenes)):
        visible = scenes[clip]["state"]["visible"][:, 0].numpy()
        changes = np.flatnonzero(np.diff(visible.astype(int)))
        starts, ends = changes[~visible[changes + 1]], changes[visible[changes + 1]]
        lengths += [ends[ends > start][0] - start for start in starts if (ends > start).any()]
    assert len(lengths) > 200
    assert config.objective.sink_frames == 0 and chunk + window < config.data.scenes.num_frames
    assert chunk + window - 1 <= min(lengths) and max(lengths) < reach


def test_a_sprite_covered_by_another_one_is_not_visible() -> None:
    dataset = Scenes(1, 1, num_sprites=2, height=12, width=12, sprite_size=11.5, colours=("red", "green"))
    squares = np.array([len(dataset.config.colours) + 0, len(dataset.config.colours) + 1])
    _, fraction = dataset._draw(squares, np.full((1, 2, 2), 6.0))
    np.testing.assert_allclose(fraction, [[0, 1]], atol=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sprites": "cats"}, "known: digits, discs, drawn"),
        ({"split": "dev"}, "known: train, val, test"),
        ({"num_sprites": 0}, "num_sprites=0"),
        ({"num_sprites": 7, "colours": ("red",)}, "6 identities"),
        ({"sprite_size": 32.0}, "sprite_size=32.0"),
        ({"occluder_width": 20}, "at both sides"),
        ({"min_speed": 3.0}, "max_speed"),
        ({"max_angle": 100.0}, "max_angle"),
        ({"colours": ("beige",)}, "colours"),
        ({"fps": 0.0}, "fps"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_cannot_be_drawn_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(**dataclasses.asdict(dataclasses.replace(ScenesConfig(), **settings)))


def test_a_clip_beyond_the_last_one_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="clip 3"):
        Scenes(3, 2)[3]
