import torch
from tiny_models import NUM_LAYERS, random_latents, tiny_model

from inspect_teacher import SIGMAS, future_sensitivity


def test_every_layer_and_sigma_gets_a_number_and_a_full_mask_lets_the_future_in():
    table = future_sensitivity(tiny_model(), random_latents(4), kept_frames=2, seed=0)
    assert table.shape == (NUM_LAYERS, len(SIGMAS))
    assert (table > 0).all()


def test_an_unchanged_future_changes_nothing():
    latents = random_latents(4, batch=1).expand(2, -1, -1, -1, -1)
    table = future_sensitivity(tiny_model(), latents, kept_frames=2, seed=0)
    torch.testing.assert_close(table, torch.zeros_like(table), atol=1e-5, rtol=0)
