import pytest
import torch

from video_mirai.flow.history import noise_history, sample_history_sigmas
from video_mirai.flow.path import data_from_velocity, interpolate, velocity_from_data, velocity_target
from video_mirai.flow.schedule import SigmaSampling, denoising_sigmas, sample_sigmas, shift_sigmas


def data_and_noise() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 2, 3, 4, 2, 2, generator=generator)
    return data, noise, torch.rand(2, 3, generator=generator)


def test_path_runs_from_data_to_noise():
    data, noise, _ = data_and_noise()
    assert torch.equal(interpolate(data, noise, torch.zeros(2, 3)), data)
    assert torch.equal(interpolate(data, noise, torch.ones(2, 3)), noise)


def test_velocity_and_data_predictions_are_the_same_statement():
    data, noise, sigmas = data_and_noise()
    x, velocity = interpolate(data, noise, sigmas), velocity_target(data, noise)
    torch.testing.assert_close(data_from_velocity(x, velocity, sigmas), data)
    torch.testing.assert_close(velocity_from_data(x, data, sigmas, sigma_floor=1e-4), velocity, atol=1e-4, rtol=1e-4)


def test_velocity_from_data_stays_bounded_at_sigma_zero():
    data, noise, _ = data_and_noise()
    velocity = velocity_from_data(noise, data, torch.zeros(2, 3), sigma_floor=0.1)
    torch.testing.assert_close(velocity, (noise - data) / 0.1)


def test_sigmas_of_the_wrong_shape_are_refused_with_both_shapes():
    data, noise, _ = data_and_noise()
    with pytest.raises(ValueError, match=r"expected \(2, 3\), got \(2, 1\)"):
        interpolate(data, noise, torch.zeros(2, 1))


@pytest.mark.parametrize("density", ["uniform", "logit_normal"])
def test_sampled_sigmas_lie_in_the_unit_interval_and_repeat_with_the_seed(density):
    settings = SigmaSampling(density=density, shift=3.0)
    first, again = (sample_sigmas((64, 5), settings, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (64, 5) and first.min() >= 0 and first.max() <= 1


def test_shift_moves_sigmas_towards_noise_and_keeps_the_ends():
    sigmas = torch.linspace(0, 1, 5)
    shifted = shift_sigmas(sigmas, 5.0)
    assert shifted[0] == 0 and shifted[-1] == 1
    assert (shifted[1:-1] > sigmas[1:-1]).all()


def test_self_forcing_timesteps_come_out_of_four_steps_and_shift_five():
    """1000, 750, 500, 250 warped by shift 5 (Self Forcing, arXiv 2506.08009)."""
    expected = torch.tensor([1.0, 0.9375, 0.8333, 0.625, 0.0])
    torch.testing.assert_close(denoising_sigmas(4, 5.0), expected, atol=1e-4, rtol=0)


def test_unknown_density_lists_the_known_ones():
    with pytest.raises(ValueError, match="uniform, logit_normal"):
        sample_sigmas((1,), SigmaSampling(density="beta"), torch.Generator())


def test_history_noise_of_level_zero_changes_nothing():
    data, noise, _ = data_and_noise()
    assert torch.equal(noise_history(data, torch.zeros(2, 3), noise), data)


def test_history_sigmas_are_one_level_per_clip_below_the_maximum():
    sigmas = sample_history_sigmas((50, 4), 0.3, torch.Generator().manual_seed(0))
    assert (sigmas == sigmas[:, :1]).all() and sigmas.max() <= 0.3 and sigmas.std() > 0.05
