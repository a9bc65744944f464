"""The straight path between data and noise (Lipman et al. 2023, arXiv 2210.02747, conditional OT path).

Sigma is the noise level in [0, 1], per frame: 0 is data, 1 is noise.
"""

from torch import Tensor


def interpolate(data: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x + sigma noise.

    Args:
        data, noise: (B, F, C, H, W).
        sigmas: (B, F).
    """
    sigma = per_frame(sigmas, data)
    return (1 - sigma) * data + sigma * noise


def velocity_target(data: Tensor, noise: Tensor) -> Tensor:
    """Velocity d x_sigma / d sigma of the straight path; the same for every sigma."""
    return noise - data


def data_from_velocity(x: Tensor, velocity: Tensor, sigmas: Tensor) -> Tensor:
    """The data a velocity points at: x - sigma v."""
    return x - per_frame(sigmas, x) * velocity


def velocity_from_data(x: Tensor, data: Tensor, sigmas: Tensor, sigma_floor: float) -> Tensor:
    """Velocity that leads from x at sigma to `data` at 0; below the floor it stays bounded.

    Training and rollouts keep above the floor, so that it only matters for passes over clean frames, whose output
    nobody uses.
    """
    return (x - data) / per_frame(sigmas, x).clamp_min(sigma_floor)


def per_frame(sigmas: Tensor, like: Tensor) -> Tensor:
    """(B, F) -> (B, F, 1, 1, 1), checked against a (B, F, C, H, W) tensor."""
    if sigmas.shape != like.shape[:2]:
        raise ValueError(f"sigmas are one per frame: expected {tuple(like.shape[:2])}, got {tuple(sigmas.shape)}.")
    return sigmas[:, :, None, None, None].to(like.dtype)
