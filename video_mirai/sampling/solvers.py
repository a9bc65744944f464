"""ODE solver steps along the straight path: (x, velocity, sigma, sigma_next) -> x at sigma_next."""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

VelocityFn = Callable[[Tensor, Tensor], Tensor]  # (x, sigma: scalar) -> velocity like x


def euler_step(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """First order: x + (sigma_next - sigma) v."""
    return x + (sigma_next - sigma) * velocity


def solve_euler(velocity_of: VelocityFn, x: Tensor, sigmas: Tensor) -> Tensor:
    """One model pass per step."""
    for sigma, sigma_next in pairwise(sigmas):
        x = euler_step(x, velocity_of(x, sigma), sigma, sigma_next)
    return x


def solve_heun(velocity_of: VelocityFn, x: Tensor, sigmas: Tensor) -> Tensor:
    """Second order, two passes per step; the last step to sigma 0 is Euler's (Karras et al. 2022, algorithm 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        velocity = velocity_of(x, sigma)
        ahead = euler_step(x, velocity, sigma, sigma_next)
        if sigma_next > 0:
            velocity = (velocity + velocity_of(ahead, sigma_next)) / 2
        x = euler_step(x, velocity, sigma, sigma_next)
    return x


SOLVERS: dict[str, Callable[[VelocityFn, Tensor, Tensor], Tensor]] = {"euler": solve_euler, "heun": solve_heun}
