"""ODE solvers along the straight path, from noise at the first sigma to data at sigma 0."""

from collections.abc import Callable
from itertools import pairwise

from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

VelocityFn = Callable[[Tensor, Tensor], Tensor]  # (x, sigma: scalar) -> velocity like x
Solver = Callable[[VelocityFn, Tensor, Tensor], Tensor]  # (velocity_of, x, sigmas: (steps + 1,), the last 0) -> data


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


def solve_unipc(velocity_of: VelocityFn, x: Tensor, sigmas: Tensor) -> Tensor:
    """diffusers' UniPC, second order with one pass per step; what Wan itself is sampled with."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    return _solve_with(scheduler, velocity_of, x, sigmas)


def solve_flow_match(velocity_of: VelocityFn, x: Tensor, sigmas: Tensor) -> Tensor:
    """diffusers' FlowMatchEulerDiscreteScheduler; the same steps as `euler`."""
    return _solve_with(FlowMatchEulerDiscreteScheduler(), velocity_of, x, sigmas)


def _solve_with(
    scheduler: UniPCMultistepScheduler | FlowMatchEulerDiscreteScheduler,
    velocity_of: VelocityFn,
    x: Tensor,
    sigmas: Tensor,
) -> Tensor:
    """The scheduler's steps at our own sigmas, which are shifted already; it appends the final 0 itself."""
    scheduler.set_timesteps(sigmas=sigmas[:-1].double().cpu().numpy(), device=x.device)
    for timestep, sigma in zip(scheduler.timesteps, sigmas[:-1], strict=True):
        x = scheduler.step(velocity_of(x, sigma), timestep, x).prev_sample
    return x


SOLVERS: dict[str, Solver] = {
    "euler": solve_euler,
    "heun": solve_heun,
    "unipc": solve_unipc,
    "flow_match": solve_flow_match,
}
