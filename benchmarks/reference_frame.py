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
from video_mirai.training.estimate import forward_flops, rollout_cost, size_of

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
    def tokens_per_frame(self) -> int:
        """Of the latents' patches."""
        height, width = self.history.shape[-2:]
        return (height // self.patch) * (width // self.patch)

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


def make_reference(size: PeerSize, width: int, num_layers: int, history_frames: int, device: torch.device) -> Reference:
    """Random latents and text; a frame's time does not depend on them."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, history_frames, size.channels, size.latent_size, size.latent_size)
    history = torch.randn(shape, generator=generator, device=device)
    context = torch.randn(1, size.context_tokens, size.text_dim, generator=generator, device=device)
    return Reference(width, num_layers, size.num_steps, size.head_dim, size.patch, history, context)


class OurFrames:
    """The library's own rollout, and the same model without a cache; random weights, the same in every variant."""

    def __init__(self, reference: Reference, variant: OurVariant) -> None:
        self._reference = reference
        self._settings = replace(reference.settings, **variant.changes)
        torch.manual_seed(0)
        self._model = CausalVideoDiT(**reference.architecture, attention_backend=variant.backend)
        self._model.to(reference.history.device).eval()

    def start(self, state: RolloutState | None = None) -> Iterator[Tensor]:
        """With a state that was filled before, no history is read."""
        reference = self._reference
        history = reference.history[:, :0] if state is not None and state.cache is not None else reference.history
        noise = reference.noise()
        return rollout(self._model, history, self._settings, noise, context=reference.context, state=state)

    @torch.no_grad()
    def start_without_cache(self) -> Iterator[Tensor]:
        """The same noise; every denoising step runs over the whole window again, and nothing is committed."""
        reference, history = self._reference, self._reference.history
        frames, device, noise = history.shape[1] + 1, history.device, reference.noise()
        mask = chunk_causal_mask(frames, self._model.tokens_per_frame(*history.shape[-2:]), 1, device=device)
        while True:
            frame = reference.new_frame(noise)
            for sigma, sigma_next in pairwise(reference.sigmas):
                sigmas = torch.zeros(1, frames, device=device)
                sigmas[:, -1] = sigma
                given = torch.cat([history, frame], dim=1)
                velocity = self._model(given, sigmas, reference.context, mask=mask).velocity[:, -1:]
                frame = euler_step(frame, velocity, sigma, sigma_next)
            history = torch.cat([history, frame], dim=1)[:, 1:]
            yield frame


def cached_frame_flops(reference: Reference) -> float:
    """Counted: a frame's denoising passes and its commit, each beside the whole window.

    What the model makes of text and noise levels is the same for all frames, and counts as nothing.
    """
    context_tokens = reference.context.shape[1]
    return rollout_cost(
        _meta_model(reference), reference.settings, reference.tokens_per_frame, context_tokens
    ).flops_per_frame


def recomputed_frame_flops(reference: Reference) -> float:
    """Counted: a frame's denoising passes, each over the window and the frame."""
    frames = reference.history.shape[1] + 1
    tokens = frames * reference.tokens_per_frame
    return reference.num_steps * forward_flops(
        size_of(_meta_model(reference)), tokens, frames, reference.context.shape[1]
    )


def _meta_model(reference: Reference) -> CausalVideoDiT:
    with torch.device("meta"):
        return CausalVideoDiT(**reference.architecture)
