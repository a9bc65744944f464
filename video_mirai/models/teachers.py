"""Encoders that say what a state should already know: non-causal DiTs, causal ones, the student's own average."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from video_mirai.flow.path import interpolate
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.ops.masks import chunk_causal_mask


class TeacherEncoder(Protocol):
    """Features without gradient on the student's token grid.

    feature_dim: their width D_teacher; reads_pixels: it wants the video, where there is one; network: what computes
    them, for counting.
    """

    feature_dim: int
    reads_pixels: ClassVar[bool]
    network: nn.Module

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns per latent frame of the given size; they have to be the student's."""

    def encode(self, latents: Tensor, context: Tensor | None, video: Tensor | None = None) -> Tensor:
        """(B, F, C, H, W) -> (B, F, N, D_teacher); video (B, T, 3, H, W): the same clip, where the data has it."""


@dataclass
class TeacherConfig:
    """Where the teacher comes from and where it is read.

    Attributes:
        kind: "dit" (non-causal, sees the whole clip), "causal_dit" (one that was trained causally, read with its own
            causal mask), "ema" (the student's own moving average, causal) or "encoder" (a pretrained image or video
            encoder of transformers that reads pixels).
        checkpoint: a run folder, its export, or asset:<name>; of an encoder a local folder or a hub id; "ema" has none.
        layer: block after which its residual stream is read: below 1 a fraction of its depth, else its number from 1.
        sigma: noise level at which it reads the clip; at 0 it has no reason to look beyond the frame itself.
        untrained: random weights, from the run's seed, in the checkpoint's architecture.
        image_size: height and width that an encoder reads; None = what it was trained on.
    """

    kind: str = "dit"
    checkpoint: str = ""
    layer: float = 0.5
    sigma: float = 0.0
    untrained: bool = False
    image_size: int | None = None


class Visibility(NamedTuple):
    """Of a causal reader: what `chunk_causal_mask` takes."""

    chunk_frames: int
    window_frames: int | None
    sink_frames: int


def resolve_layer(setting: str, value: float, num_layers: int) -> int:
    """A block's number from 1: `value` itself, or below 1 that fraction of the depth, at least the first.

    Raises:
        ValueError: no such block; `setting` is the key that the message names.
    """
    if 0 < value < 1:
        return max(1, round(value * num_layers))
    if not 1 <= value <= num_layers or value != int(value):
        raise ValueError(
            f"{setting}={value:g}: its layers go from 1 to {num_layers}, or give a fraction of its depth below 1."
        )
    return int(value)


class DiTTeacher:
    """A frozen CausalVideoDiT; without a `visibility` every feature has seen the whole clip.

    A teacher that sees the future must never run at inference. It draws its noise from a generator of its own.
    """

    reads_pixels: ClassVar[bool] = False

    def __init__(
        self,
        network: CausalVideoDiT,
        layer: float,
        sigma: float,
        generator: torch.Generator | None,
        visibility: Visibility | None = None,
    ) -> None:
        if not 0.0 <= sigma <= 1.0:
            raise ValueError(f"foresight.teacher.sigma={sigma} must lie in [0, 1].")
        self.layer = resolve_layer("foresight.teacher.layer", layer, network.config.num_layers)
        self.network = network.eval().requires_grad_(False)
        del self.network.blocks[self.layer :]  # what lies above the layer that is read would run for nothing
        self.sigma = sigma
        self.generator = generator
        self.visibility = visibility
        self.feature_dim: int = network.config.num_attention_heads * network.config.attention_head_dim

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Its own patch grid."""
        return self.network.grid(height, width)

    @torch.no_grad()
    def encode(self, latents: Tensor, context: Tensor | None, video: Tensor | None = None) -> Tensor:
        """(B, F, C, H, W) -> (B, F, N, D): the residual stream after the chosen layer."""
        frames = latents.shape[1]
        sigmas = torch.full(latents.shape[:2], self.sigma, device=latents.device)
        if self.sigma:
            noise = torch.randn(latents.shape, generator=self.generator, device=latents.device, dtype=latents.dtype)
            latents = interpolate(latents, noise, sigmas)
        mask = None
        if self.visibility is not None:
            tokens = self.network.tokens_per_frame(*latents.shape[-2:])
            chunk_frames, window_frames, sink_frames = self.visibility
            mask = chunk_causal_mask(
                frames,
                tokens,
                chunk_frames,
                window_frames=window_frames,
                sink_frames=sink_frames,
                device=latents.device,
            )
        output = self.network(latents, sigmas, context, mask=mask, capture=(self.layer,))
        return rearrange(output.hidden[self.layer], "b (f n) d -> b f n d", f=frames)


class AverageTeacher(DiTTeacher):
    """The student's own moving average, read causally: it moves with training (Mirai-E, arXiv 2601.14671).

    Its weights are the average's own tensors, so it takes no memory, and is saved and resumed with them.
    """

    def follow(self, average: dict[str, Tensor]) -> None:
        """Read through these tensors, {the student's parameter name: averaged weight}, from now on.

        Raises:
            ValueError: they are sharded.
        """
        if any(isinstance(weight, DTensor) for weight in average.values()):
            raise ValueError("foresight.teacher.kind=ema reads whole weights, these are sharded; take another kind.")
        own = self.network.state_dict().keys()
        self.network.load_state_dict({name: average[name] for name in own}, assign=True)
        self.network.requires_grad_(False)
