"""Frozen encoders that read the whole clip, future included, and say what a state should already know."""

from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from video_mirai.flow.path import interpolate
from video_mirai.models.causal_dit import CausalVideoDiT


class TeacherEncoder(Protocol):
    """Frozen, future-aware features on the student's token grid."""

    feature_dim: int

    def tokens_per_frame(self, height: int, width: int) -> int:
        """Tokens the teacher gives per latent frame; has to equal the student's."""

    def encode(self, latents: Tensor, context: Tensor | None) -> Tensor:
        """(B, F, C, H, W) -> (B, F, N, D_teacher), without gradient."""


@dataclass
class TeacherConfig:
    """Where the teacher comes from and where it is read.

    Attributes:
        checkpoint: a run folder, its export, or asset:<name>.
        layer: transformer block (1-based) after which its residual stream is read.
        sigma: noise level at which it reads the clip; at 0 it has no reason to look beyond the frame itself.
    """

    checkpoint: str = ""
    layer: int = 1
    sigma: float = 0.0


class DiTTeacher:
    """A non-causal CausalVideoDiT: full mask, so every feature has seen the whole clip.

    The teacher sees the future, so it must never run at inference. It draws its noise from a generator of its own.
    """

    def __init__(self, model: CausalVideoDiT, layer: int, sigma: float, generator: torch.Generator) -> None:
        if not 1 <= layer <= model.config.num_layers:
            raise ValueError(f"teacher layer {layer}: its layers go from 1 to {model.config.num_layers}.")
        if not 0.0 <= sigma <= 1.0:
            raise ValueError(f"teacher sigma {sigma} must lie in [0, 1].")
        self.model = model.eval().requires_grad_(False)
        del self.model.blocks[layer:]  # what lies above the layer that is read would run for nothing
        self.layer = layer
        self.sigma = sigma
        self.generator = generator
        self.feature_dim: int = model.config.num_attention_heads * model.config.attention_head_dim

    def tokens_per_frame(self, height: int, width: int) -> int:
        """Tokens per latent frame of the teacher's own patch grid."""
        return self.model.tokens_per_frame(height, width)

    @torch.no_grad()
    def encode(self, latents: Tensor, context: Tensor | None) -> Tensor:
        """(B, F, C, H, W) -> (B, F, N, D): the residual stream after the chosen layer."""
        sigmas = torch.full(latents.shape[:2], self.sigma, device=latents.device)
        if self.sigma:
            noise = torch.randn(latents.shape, generator=self.generator, device=latents.device, dtype=latents.dtype)
            latents = interpolate(latents, noise, sigmas)
        output = self.model(latents, sigmas, context, capture=(self.layer,))
        return rearrange(output.hidden[self.layer], "b (f n) d -> b f n d", f=latents.shape[1])
