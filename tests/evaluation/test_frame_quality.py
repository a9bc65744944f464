import numpy as np
import pytest
from reference_values import CASES, VALUES, close

from video_mirai.evaluation.frame_quality import (
    PSNR_CEILING,
    exposure,
    flicker,
    frame_differences,
    freeze_fraction,
    psnr,
    saturation,
    sharpness,
    ssim,
)


def random_frames(num_frames=4, size=16, seed=0):
    return np.random.default_rng(seed).random((num_frames, size, size, 3))


def reference_pair():
    return [frames.transpose(0, 2, 3, 1) for frames in CASES["frames_pair"]()]


def test_psnr_and_ssim_meet_the_reference():
    a, b = reference_pair()
    assert close(psnr(a, b).mean(), VALUES["paired"]["frames_pair"]["psnr_mean_of_frames"])
    expected = VALUES["paired"]["frames_pair"]["ssim_torchmetrics_default_per_frame"]
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-6)


def test_equal_frames_reach_the_psnr_ceiling_and_full_ssim():
    frames = random_frames()
    assert (psnr(frames, frames) == PSNR_CEILING).all()
    np.testing.assert_allclose(ssim(frames, frames), 1)


def test_psnr_of_a_known_error_is_exact_per_frame():
    frames = 0.5 * random_frames(2)
    worse = frames + np.array([0.1, 0.01])[:, None, None, None]
    np.testing.assert_allclose(psnr(frames, worse), [20, 40], atol=1e-6)


def test_one_frame_is_enough_for_psnr_and_ssim():
    frames = random_frames(1)
    assert psnr(frames, frames).shape == ssim(frames, frames).shape == (1,)


def test_frozen_video_has_no_flicker_and_is_all_freeze():
    frozen = np.repeat(random_frames(1), 5, axis=0)
    assert flicker(frozen) == 1
    assert freeze_fraction(frozen) == 1
    half = np.concatenate([frozen, np.clip(frozen + 0.1, 0, 1)[:1], frozen[:1]])
    assert freeze_fraction(half) == pytest.approx(4 / 6)


def test_flicker_of_a_known_difference():
    frames = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 0.25), np.zeros((8, 8, 3))])
    np.testing.assert_allclose(frame_differences(frames), [0.25, 0.25])
    assert flicker(frames) == pytest.approx(0.75)


def test_exposure_and_saturation_of_known_colours():
    frames = np.zeros((3, 8, 8, 3))
    frames[0] = 0.5
    frames[1] = [1, 0, 0]
    frames[2, :4] = 1
    np.testing.assert_allclose(exposure(frames).mean, [0.5, 0.299, 0.5])
    np.testing.assert_allclose(exposure(frames).deviation, [0, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(saturation(frames).mean, [0, 1, 0])


def test_blur_lowers_sharpness_and_flat_frames_have_none():
    frames = random_frames(1)
    blurred = (frames + np.roll(frames, 1, axis=1) + np.roll(frames, 1, axis=2)) / 3
    assert sharpness(blurred)[0] < 0.5 * sharpness(frames)[0]
    np.testing.assert_allclose(sharpness(np.full((2, 8, 8, 3), 0.3)), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.zeros((4, 3, 16, 16)), "expected .frames, height, width, 3."),
        (np.zeros((0, 16, 16, 3)), "at least 1"),
        (np.zeros((4, 0, 16, 3)), "expected .frames, height, width, 3."),
        ([np.zeros((16, 16, 3)), np.zeros((16, 20, 3))], "different shapes"),
        (np.zeros((4, 16, 16, 3), np.uint8), "divide by 255"),
        (np.full((4, 16, 16, 3), -1.0), r"values in \[0, 1\]"),
        (np.full((4, 16, 16, 3), np.nan), r"values in \[0, 1\]"),
        (np.zeros((5, 16, 16, 3)), "differ in shape"),
        (np.zeros((4, 8, 16, 3)), "differ in shape"),
    ],
)
def test_wrong_frames_are_one_clear_line(frames, words):
    with pytest.raises(ValueError, match=words):
        psnr(random_frames(), frames)


def test_frames_smaller_than_the_ssim_window_and_single_frames_are_refused():
    small = random_frames(size=10)
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(small, small)
    with pytest.raises(ValueError, match="at least 2"):
        flicker(random_frames(1))
