"""Noise on history frames: one function for training and for rollout, so that the two can't differ."""

import torch
from torch import Tensor

from video_mirai.flow.path import interpolate


def noise_history(latents: Tensor, sigmas: Tensor, noise: Tensor) -> Tensor:
    """History frames as the model sees them: slightly noised, and told so through their sigmas.

    A model trained on perfect history has never seen its own errors; a little noise on what it looks back at
    teaches it to correct them (GameNGen, arXiv 2408.14837, section 3.2.1).

    Args:
        latents: (B, F, C, H, W), clean.
        sigmas: (B, F); 0 leaves a frame as it is.
        noise: standard normal, like latents.
    """
    return interpolate(latents, noise, sigmas)


def sample_history_sigmas(shape: tuple[int, int], maximum: float, generator: torch.Generator) -> Tensor:
    """(B, F) history sigmas for training: uniform in [0, maximum], one level per clip.

    Rollout uses one level for all frames too, so a clip in training shares one.
    """
    level = torch.rand((shape[0], 1), generator=generator, device=generator.device) * maximum
    return level.expand(shape)
