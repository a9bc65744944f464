"""Which noise levels to train on, and which to visit when generating."""

from dataclasses import dataclass

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor

DENSITIES = {"uniform": "none", "logit_normal": "logit_normal"}


@dataclass
class SigmaSampling:
    """Distribution of training sigmas.

    Attributes:
        density: "uniform" or "logit_normal" (Esser et al. 2024, arXiv 2403.03206, section 3.1).
        shift: time shift; > 1 moves the density towards noise, which longer token sequences need.
    """

    density: str = "logit_normal"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float = 1.0


def sample_sigmas(shape: tuple[int, ...], settings: SigmaSampling, generator: torch.Generator) -> Tensor:
    """Independent sigmas in [0, 1] of the given shape, on the generator's device."""
    if settings.density not in DENSITIES:
        raise ValueError(f"unknown sigma density {settings.density!r}; known: {', '.join(DENSITIES)}.")
    count = int(torch.Size(shape).numel())
    density = compute_density_for_timestep_sampling(
        DENSITIES[settings.density],
        count,
        logit_mean=settings.logit_mean,
        logit_std=settings.logit_std,
        device=generator.device,
        generator=generator,
    )
    return shift_sigmas(density.reshape(shape), settings.shift)


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """sigma' = s sigma / (1 + (s - 1) sigma) (Esser et al. 2024, eq. 23)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def denoising_sigmas(num_steps: int, shift: float, device: torch.device | str | None = None) -> Tensor:
    """(num_steps + 1,) sigmas from 1 down to exactly 0, evenly spaced before the shift."""
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be at least 1.")
    return shift_sigmas(torch.linspace(1.0, 0.0, num_steps + 1, device=device), shift)
