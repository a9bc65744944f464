"""What is measured of a piece of video, and which pieces are near duplicates."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from video_mirai.data.clip_quality import (
    CODE_BITS,
    SIDE,
    ClipQuality,
    code_distance,
    laplacian,
    measure_quality,
    near_duplicates,
    perceptual_hash,
)


def flat(*levels: float) -> np.ndarray:
    """Frames (T, SIDE, SIDE, 3), each of one grey."""
    return np.broadcast_to(np.array(levels)[:, None, None, None], (len(levels), SIDE, SIDE, 3)).astype(np.uint8)


def picture(seed: int) -> np.ndarray:
    """(SIDE, SIDE) luma of patches with soft edges."""
    patches = np.random.default_rng(seed).uniform(30, 220, (9, 9))
    places = np.linspace(0, 8, SIDE)
    low = places.astype(int).clip(0, 7)
    share = places - low
    rows = patches[low] * (1 - share)[:, None] + patches[low + 1] * share[:, None]
    return (rows[:, low] * (1 - share) + rows[:, low + 1] * share).astype(np.float32)


def clip(seed: int, num_frames: int = 12) -> np.ndarray:
    frames = np.stack([np.roll(picture(seed), frame, axis=1) for frame in range(num_frames)])
    return frames[..., None].repeat(3, 3).astype(np.uint8)


def blocks_of(frames: np.ndarray, length: int) -> Iterator[np.ndarray]:
    for start in range(0, len(frames), length):
        yield frames[start : start + length]


def measure(frames: np.ndarray) -> ClipQuality:
    return measure_quality([frames], len(frames))


def bits(first: np.ndarray, second: np.ndarray) -> int:
    return (perceptual_hash(first) ^ perceptual_hash(second)).bit_count()


def test_luma_and_motion_are_means_in_grey_levels() -> None:
    quality = measure(flat(10, 20, 40, 50))
    assert quality.luma == pytest.approx(30, rel=1e-5)
    assert quality.motion == pytest.approx(40 / 3, rel=1e-5)
    assert quality.detail == pytest.approx(0, abs=1e-3)
    assert quality.dark_share == 0.5  # 10 and 20 are below 32


def test_colours_are_weighted_as_the_eye_sees_them() -> None:
    frames = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    for channel in range(3):
        frames[channel, ..., channel] = 100
    lumas = [measure(frames[channel : channel + 1]).luma for channel in range(3)]
    assert lumas == pytest.approx([29.9, 58.7, 11.4], rel=1e-4)


def test_a_single_frame_has_no_motion() -> None:
    assert measure(flat(10)).motion == 0


def test_detail_is_the_variance_of_the_laplacian() -> None:
    lumas = np.random.default_rng(0).uniform(0, 255, (2, 5, 6))
    expected = np.zeros((2, 3, 4))
    for row in range(3):
        for column in range(4):
            around = lumas[:, row, column + 1] + lumas[:, row + 2, column + 1]
            around += lumas[:, row + 1, column] + lumas[:, row + 1, column + 2]
            expected[:, row, column] = around - 4 * lumas[:, row + 1, column + 1]
    np.testing.assert_allclose(laplacian(lumas), expected)
    checkered = np.indices((SIDE, SIDE)).sum(0) % 2 * 255
    frames = np.broadcast_to(checkered[None, ..., None], (1, SIDE, SIDE, 3)).astype(np.uint8)
    assert measure(frames).detail == pytest.approx((4 * 255) ** 2, rel=1e-3)
    assert measure(frames).detail > 1000 * measure(clip(0)).detail


@pytest.mark.parametrize("length", [1, 5, 12])
def test_blocks_do_not_matter(length: int) -> None:
    frames = clip(3)
    whole, parts = measure(frames), measure_quality(blocks_of(frames, length), 12)
    assert parts == pytest.approx(whole, rel=1e-6)
    assert parts.code == whole.code


def test_what_keeps_a_picture_recognisable_hardly_changes_its_hash() -> None:
    generator = np.random.default_rng(0)
    for seed in range(10):
        frame = picture(seed)
        assert bits(frame, frame * 0.8 + 20) == 0
        assert bits(frame, frame + generator.normal(0, 4, frame.shape).astype(np.float32)) <= 4
        halved = frame.reshape(64, 2, 64, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
        assert bits(frame, halved) <= 4


def test_other_pictures_have_other_hashes() -> None:
    hashes = [perceptual_hash(picture(seed)) for seed in range(30)]
    distances = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 12
    assert np.mean(distances) == pytest.approx(32, abs=2)


def test_the_distance_is_the_mean_over_four_frames() -> None:
    first, second = measure(clip(0)).code, measure(clip(1)).code
    assert code_distance(first, first) == 0
    assert code_distance(0, 2**CODE_BITS - 1) == 64
    assert code_distance(0, 0b1011) == 0.75
    assert code_distance(first, second) > 12


def test_the_hashed_frames_are_spread_over_the_piece() -> None:
    frames = np.concatenate([clip(seed, 5) for seed in range(4)])
    code = measure(frames).code
    for place, seed in enumerate(reversed(range(4))):
        expected = perceptual_hash(clip(seed, 5)[2, ..., 0].astype(np.float32))
        assert ((code >> 64 * place) ^ expected) % 2**64 == 0


codes = st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, CODE_BITS - 1), max_size=12)), max_size=25)


@settings(deadline=None, derandomize=True)
@given(codes, st.sampled_from([0.0, 0.5, 1.0, 2.5]))
def test_near_duplicates_are_those_of_comparing_all_pairs(made_of: list[tuple[int, list[int]]], limit: float) -> None:
    generator = np.random.default_rng(0)
    bases = [int.from_bytes(generator.bytes(CODE_BITS // 8), "big") for _ in range(4)]
    listed = []
    for base, flipped in made_of:
        code = bases[base]
        for bit in flipped:
            code ^= 1 << bit
        listed.append(code)
    expected: list[int | None] = []
    for number, code in enumerate(listed):
        kept = (other for other in range(number) if expected[other] is None)
        expected.append(next((other for other in kept if code_distance(code, listed[other]) <= limit), None))
    assert near_duplicates(listed, limit) == expected


def test_any_distance_can_be_asked_for() -> None:
    assert near_duplicates([0, 2**CODE_BITS - 1, 5], 64) == [None, 0, 0]
    assert near_duplicates([], 6) == []
