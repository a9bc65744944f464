"""The rule by which an encoder's grid becomes the student's."""

import pytest
import torch

from video_mirai.models.token_grid import nearest_frames, resample_grid, space_weights, time_weights


@pytest.mark.parametrize("given, wanted", [(4, 4), (7, 3), (37, 8), (2, 5), (1, 4), (16, 16)])
def test_weights_sum_to_one_and_mirror(given, wanted):
    weights = space_weights(given, wanted)
    assert weights.shape == (wanted, given)
    torch.testing.assert_close(weights.sum(1), torch.ones(wanted, dtype=torch.float64))
    torch.testing.assert_close(weights, weights.flip(0, 1))


def test_equal_grids_stay_as_they_are():
    assert torch.equal(space_weights(4, 4), torch.eye(4, dtype=torch.float64))
    assert torch.equal(time_weights(3, [0, 2, 4, 6]), torch.eye(3, dtype=torch.float64))


def test_a_coarser_grid_is_the_area_mean_and_a_finer_one_bilinear():
    assert space_weights(4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    torch.testing.assert_close(space_weights(3, 2)[0], torch.tensor([2 / 3, 1 / 3, 0], dtype=torch.float64))
    picture = torch.rand(1, 1, 3, 5)
    expected = torch.nn.functional.interpolate(picture, (6, 7), mode="bilinear")
    features = resample_grid(
        picture.permute(0, 2, 3, 1)[:, None], torch.eye(1), space_weights(3, 6), space_weights(5, 7)
    )
    torch.testing.assert_close(features[:, 0, :, :, 0], expected[:, 0], atol=1e-6, rtol=1e-6)


def test_a_latent_frame_is_the_mean_of_the_steps_that_cover_its_pixel_frames():
    # Two steps of 4.5 frames each; the first latent frame is one pixel frame, the others four.
    first, second, third = time_weights(2, [0, 1, 5, 9]).tolist()
    assert first == [1, 0] and third == [0, 1]
    assert second == pytest.approx([3.5 / 4, 0.5 / 4])


@pytest.mark.parametrize("given, wanted, expected", [(4, 4, [0, 1, 2, 3]), (2, 4, [0, 0, 1, 1]), (8, 4, [1, 3, 5, 7])])
def test_frames_are_spread_evenly(given, wanted, expected):
    assert nearest_frames(given, wanted).tolist() == expected
