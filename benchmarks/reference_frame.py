"""The rollout that all are measured with, ours with and without a cache, and the arithmetic of one frame."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.sizes import PeerSize
from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.ops.masks import chunk_causal_mask
from video_mirai.sampling.rollout import RolloutSettings, RolloutState, rollout
from video_mirai.sampling.solvers import euler_step
from video_mirai.training.estimate import forward_flops, size_of

SEED = 2  # of the noise that frames start from


@dataclass(frozen=True)
class Reference:
    """What every variant generates: one clip, a frame at a time, after as many frames as the window holds.

    Attributes:
        history: (1, F, C, H, W).
        context: (1, L, D_text), text that all of them attend to.
    """

    width: int
    num_layers: int
    num_steps: int
    head_dim: int
    patch: int
    history: Tensor
    context: Tensor

    @property
    def architecture(self) -> dict:
        """Keyword arguments of Wan's transformer, which ours and the peers take."""
        channels = self.history.shape[2]
        return {
            "patch_size": (1, self.patch, self.patch),
            "num_attention_heads": self.width // self.head_dim,
            "attention_head_dim": self.head_dim,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": self.context.shape[-1],
            "ffn_dim": 4 * self.width,
            "num_layers": self.num_layers,
        }

    @property
    def sigmas(self) -> Tensor:
        """(num_steps + 1,) noise levels, from 1 to 0."""
        return denoising_sigmas(self.num_steps, self.settings.shift, self.history.device)

    @property
    def settings(self) -> RolloutSettings:
        """Of our rollout: no sink, and a window as long as the history."""
        return RolloutSettings(num_steps=self.num_steps, window_frames=self.history.shape[1])

    def noise(self) -> torch.Generator:
        """Of the frames; the same for all."""
        return torch.Generator(self.history.device).manual_seed(SEED)

    def new_frame(self, generator: torch.Generator) -> Tensor:
        """(1, 1, C, H, W) noise."""
        return torch.randn(1, 1, *self.history.shape[2:], generator=generator, device=self.history.device)


@dataclass(frozen=True)
class OurVariant:
    """backend: of attention; changes: fields of RolloutSettings that differ from the reference's."""

    backend: str = "native"
    changes: dict = field(default_factory=dict)


def make_reference(
    size: PeerSize, width: int, num_layers: int, history_frames: int, device: torch.device
) -> Reference:
    """Random latents and text; a frame's time does not depend on them."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, history_frames, size.channels, size.latent_size, size.latent_size)
    history = torch.randn(shape, generator=generator, device=device)
    context = torch.randn(1, size.context_tokens, size.text_dim, generator=generator, device=device)
    return Reference(width, num_layers, size.num_steps, size.head_dim, size.patch, history, context)


def make_our_model(reference: Reference, backend: str = "native") -> CausalVideoDiT:
    """Random weights, always the same."""
    torch.manual_seed(0)
    model = CausalVideoDiT(**reference.architecture, attention_backend=backend)
    return model.to(reference.history.device).eval()


def our_frames(reference: Reference, variant: OurVariant, state: RolloutState | None = None) -> Iterator[Tensor]:
    """The library's own rollout; with a state that was filled before, no history is read."""
    model = make_our_model(reference, variant.backend)
    settings = replace(reference.settings, **variant.changes)
    history = reference.history
    if state is not None and state.cache is not None:
        history = history[:, :0]
    return rollout(model, history, settings, reference.noise(), context=reference.context, state=state)


@torch.no_grad()
def frames_without_cache(reference: Reference, variant: OurVariant) -> Iterator[Tensor]:
    """The same model and noise; every denoising step runs over the whole window again, and nothing is committed."""
    model = make_our_model(reference, variant.backend)
    generator, history = reference.noise(), reference.history
    frames, device = history.shape[1] + 1, history.device
    tokens = model.tokens_per_frame(*history.shape[-2:])
    mask = chunk_causal_mask(frames, tokens, 1, device=device)
    while True:
        frame = reference.new_frame(generator)
        for sigma, sigma_next in pairwise(reference.sigmas):
            sigmas = torch.zeros(1, frames, device=device)
            sigmas[:, -1] = sigma
            given = torch.cat([history, frame], dim=1)
            velocity = model(given, sigmas, reference.context, mask=mask).velocity[:, -1:]
            frame = euler_step(frame, velocity, sigma, sigma_next)
        history = torch.cat([history, frame], dim=1)[:, 1:]
        yield frame


def pass_flops(reference: Reference, frames: int, past_frames: int) -> float:
    """Counted FLOPs of one pass over `frames` that attend to themselves and to `past_frames` in a cache."""
    with torch.device("meta"):
        model = CausalVideoDiT(**reference.architecture)
    tokens_per_frame = model.tokens_per_frame(*reference.history.shape[-2:])
    tokens = frames * tokens_per_frame
    counted = forward_flops(size_of(model), tokens, frames, reference.context.shape[1])
    return counted + 4.0 * reference.num_layers * reference.width * tokens * past_frames * tokens_per_frame


def cached_frame_flops(reference: Reference) -> float:
    """A frame's denoising passes and its commit pass, each of one frame beside the whole window."""
    return (reference.num_steps + 1) * pass_flops(reference, 1, reference.history.shape[1])


def recomputed_frame_flops(reference: Reference) -> float:
    """A frame's denoising passes, each over the window and the frame."""
    return reference.num_steps * pass_flops(reference, reference.history.shape[1] + 1, 0)
