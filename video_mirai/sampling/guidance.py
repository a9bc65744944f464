"""Guidance: several views of the same chunk in one batch and one cache, combined into one velocity.

    v = v_full + (g - 1) (v_full - v_without_context) + (h - 1) (v_full - v_with_noisier_history)

The second term is classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), the third guidance on history,
whose weaker view sees its history through more noise (Song et al. 2025, arXiv 2502.06764, section 4.3).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class GuidanceConfig:
    """How far to move away from the weaker views; scale 1 = not at all, and no view of its own.

    Attributes:
        context_scale: g, for models with a context that was left out now and then in training.
        history_scale: h.
        history_sigma: noise level of the history in the weaker view; above the rollout's own.
    """

    context_scale: float = 1.0
    history_scale: float = 1.0
    history_sigma: float = 0.5


class View(NamedTuple):
    """One way to look at a chunk. weight: its share of the velocity; all weights add up to 1."""

    weight: float
    has_context: bool
    history_sigma: float


def guidance_views(config: GuidanceConfig, history_sigma: float) -> tuple[View, ...]:
    """The full view first, then those that the scales ask for; history_sigma is the rollout's own level."""
    context_push, history_push = config.context_scale - 1, config.history_scale - 1
    views = [View(1 + context_push + history_push, True, history_sigma)]
    if context_push:
        views.append(View(-context_push, False, history_sigma))
    if history_push:
        views.append(View(-history_push, True, config.history_sigma))
    return tuple(views)


def for_all_views(x: Tensor, views: tuple[View, ...]) -> Tensor:
    """(B, ...) -> (views * B, ...), the same for every view."""
    return x if len(views) == 1 else x.repeat(len(views), *[1] * (x.ndim - 1))


def combine_views(velocity: Tensor, views: tuple[View, ...]) -> Tensor:
    """(views * B, ...) -> (B, ...), weighted."""
    if len(views) == 1:
        return velocity
    weights = torch.tensor([view.weight for view in views], device=velocity.device, dtype=velocity.dtype)
    return torch.einsum("v,v...->...", weights, velocity.unflatten(0, (len(views), -1)))
