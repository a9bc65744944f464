"""Flow matching on data: teacher forcing, diffusion forcing, and the bidirectional objective of teachers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from video_mirai.flow.history import noise_history, sample_history_sigmas
from video_mirai.flow.path import interpolate, velocity_target
from video_mirai.flow.schedule import SigmaSampling, sample_sigmas
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.objectives.foresight import ForesightConfig, ForesightTargets, supervise
from video_mirai.ops.masks import chunk_causal_mask, teacher_forcing_mask


@dataclass
class ObjectiveConfig:
    """What is denoised given what.

    Attributes:
        kind: "teacher_forcing" (clean history beside noisy targets, one pass), "diffusion_forcing" (every chunk noised
            by itself, Chen et al. 2024, arXiv 2407.01392), or "bidirectional" (every token sees every token).
        chunk_frames: latent frames denoised together; 1 = frame-wise.
        window_frames: history frames a chunk may attend to; None = all.
        loss_weighting: "velocity" (1) or "data" (sigma^2: the error of the data it points at).
        history_sigma_max: teacher forcing noises its history up to this level, and tells the model.
        context_dropout: share of the clips that train without their context (zeros in its place), which guidance on
            the context needs; 0.1 is usual.
    """

    kind: str = "teacher_forcing"
    chunk_frames: int = 1
    window_frames: int | None = None
    sink_frames: int = 0
    loss_weighting: str = "velocity"
    sigma: SigmaSampling = field(default_factory=SigmaSampling)
    history_sigma_max: float = 0.0
    context_dropout: float = 0.0


class Arrangement(NamedTuple):
    """One student pass: frames given, their sigmas (B, K), positions (K,), mask, and how many are history."""

    frames: Tensor
    sigmas: Tensor
    positions: Tensor
    mask: Tensor | None
    history_frames: int


class Diagnosis(NamedTuple):
    """Per frame: sigma (B, F), and mean squared velocity error, unweighted (B, F)."""

    sigmas: Tensor
    loss: Tensor


class Objective(nn.Module):
    """Owns what trains, student and predictor; this is what Accelerate wraps."""

    def __init__(
        self,
        student: CausalVideoDiT,
        config: ObjectiveConfig,
        predictor: nn.ModuleDict | None = None,
        foresight: ForesightConfig | None = None,
    ) -> None:
        """predictor: {supervised layer of the student: ForesightPredictor}, of a foresight config's layers."""
        super().__init__()
        if config.kind not in ARRANGEMENTS:
            raise ValueError(f"unknown objective {config.kind!r}; known: {', '.join(ARRANGEMENTS)}.")
        if not 0 <= config.context_dropout < 1:
            raise ValueError(f"context_dropout={config.context_dropout} must lie in [0, 1).")
        if config.loss_weighting not in LOSS_WEIGHTINGS:
            raise ValueError(f"unknown loss_weighting {config.loss_weighting!r}; known: {', '.join(LOSS_WEIGHTINGS)}.")
        self.student = student
        self.predictor = predictor
        self.config = config
        self.foresight = foresight

    def forward(
        self,
        latents: Tensor,
        context: Tensor | None,
        generator: torch.Generator,
        foresight: ForesightTargets | None = None,
    ) -> dict[str, Tensor]:
        """Loss terms of one batch.

        Args:
            latents: (B, F, C, H, W), clean.
            generator: all noise and sigmas come from it.
            foresight: the teacher's targets; needed when there is a predictor.

        Returns:
            {"total": to minimise, "flow": ..., "foresight": ... with a predictor}, scalars; parts unweighted.
        """
        if context is not None and self.config.context_dropout:
            context = drop_contexts(context, self.config.context_dropout, generator)
        sigmas, error, hidden = self._denoise(latents, context, generator)
        weights = LOSS_WEIGHTINGS[self.config.loss_weighting](sigmas)
        flow = (weights * error).mean()
        if self.predictor is None or self.foresight is None:
            return {"total": flow, "flow": flow.detach()}
        if foresight is None:
            raise ValueError("this objective has a predictor: give it the teacher's targets.")
        chunk_frames = self.config.chunk_frames
        if self.foresight.tap == "clean":  # the last chunk has no clean copy
            foresight = foresight.first_chunks(latents.shape[1] // chunk_frames - 1)
        chunk_shape = (chunk_frames, *self.student.grid(*latents.shape[-2:]))
        loss = supervise(self.predictor, hidden, foresight, self.foresight, chunk_shape)
        weight = self.foresight.weight * foresight.scale
        return {"total": flow + weight * loss, "flow": flow.detach(), "foresight": loss.detach()}

    @torch.no_grad()
    def diagnose(self, latents: Tensor, context: Tensor | None, generator: torch.Generator) -> Diagnosis:
        """Where the error sits: by noise level and by frame position."""
        sigmas, error, _ = self._denoise(latents, context, generator)
        return Diagnosis(sigmas, error)

    def _denoise(
        self, latents: Tensor, context: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """Sigmas and mean squared velocity error per target frame, (B, F) each, and the tapped states by layer."""
        frames = latents.shape[1]
        chunk_sigmas = sample_sigmas((len(latents), frames // self.config.chunk_frames), self.config.sigma, generator)
        # Below its floor a data prediction can't be told from its input.
        sigmas = chunk_sigmas.clamp_min(self.student.config.sigma_floor).repeat_interleave(self.config.chunk_frames, 1)
        noise = torch.randn(latents.shape, generator=generator, device=latents.device, dtype=latents.dtype)
        noisy = interpolate(latents, noise, sigmas)
        tokens = self.student.tokens_per_frame(*latents.shape[-2:])
        given = ARRANGEMENTS[self.config.kind](latents, noisy, sigmas, tokens, self.config, generator)
        if context is not None and context.ndim == 4:  # one per frame: the history's frames have theirs too
            context = torch.cat([context[:, : given.history_frames], context], dim=1)

        capture = () if self.foresight is None else self.foresight.layers(self.student.config.num_layers)
        output = self.student(
            given.frames, given.sigmas, context, mask=given.mask, positions=given.positions, capture=capture
        )
        velocity = output.velocity[:, given.history_frames :].float()
        error = (velocity - velocity_target(latents, noise)).square().mean(dim=(2, 3, 4))
        history_tokens = given.history_frames * tokens
        is_clean_tap = self.foresight is not None and self.foresight.tap == "clean"
        tapped = slice(None, history_tokens) if is_clean_tap else slice(history_tokens, None)
        return sigmas, error, {layer: states[:, tapped] for layer, states in output.hidden.items()}


def drop_contexts(context: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """(B, ...) with the whole context of some clips set to zero (Ho and Salimans 2022, arXiv 2207.12598, alg. 1)."""
    kept = torch.rand(len(context), generator=generator, device=generator.device) >= probability
    return context * kept.to(context).view(-1, *[1] * (context.ndim - 1))


def teacher_forcing(
    clean: Tensor, noisy: Tensor, sigmas: Tensor, tokens: int, config: ObjectiveConfig, generator: torch.Generator
) -> Arrangement:
    """Clean history beside noisy targets: every chunk learns from ground-truth history in one pass."""
    batch, frames = sigmas.shape
    history_frames = frames - config.chunk_frames  # the last chunk is nobody's history
    history = clean[:, :history_frames]
    history_sigmas = sample_history_sigmas((batch, history_frames), config.history_sigma_max, generator)
    noise = torch.randn(history.shape, generator=generator, device=clean.device, dtype=clean.dtype)
    positions = torch.arange(frames, device=clean.device)
    return Arrangement(
        frames=torch.cat([noise_history(history, history_sigmas, noise), noisy], dim=1),
        sigmas=torch.cat([history_sigmas, sigmas], dim=1),
        positions=torch.cat([positions[:history_frames], positions]),
        mask=teacher_forcing_mask(
            frames,
            tokens,
            config.chunk_frames,
            window_frames=config.window_frames,
            sink_frames=config.sink_frames,
            device=clean.device,
        ),
        history_frames=history_frames,
    )


def diffusion_forcing(
    clean: Tensor, noisy: Tensor, sigmas: Tensor, tokens: int, config: ObjectiveConfig, generator: torch.Generator
) -> Arrangement:
    """Noisy history: every chunk attends to the noised chunks before it."""
    frames = clean.shape[1]
    mask = chunk_causal_mask(
        frames,
        tokens,
        config.chunk_frames,
        window_frames=config.window_frames,
        sink_frames=config.sink_frames,
        device=clean.device,
    )
    return Arrangement(noisy, sigmas, torch.arange(frames, device=clean.device), mask, history_frames=0)


def bidirectional(
    clean: Tensor, noisy: Tensor, sigmas: Tensor, tokens: int, config: ObjectiveConfig, generator: torch.Generator
) -> Arrangement:
    """Every token sees every token; chunks keep their own sigmas, so that clean ones inform noisy ones."""
    return Arrangement(noisy, sigmas, torch.arange(clean.shape[1], device=clean.device), None, history_frames=0)


ARRANGEMENTS: dict[str, Callable[..., Arrangement]] = {
    "teacher_forcing": teacher_forcing,
    "diffusion_forcing": diffusion_forcing,
    "bidirectional": bidirectional,
}

LOSS_WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "velocity": torch.ones_like,
    "data": torch.square,  # |x0 error|^2 = sigma^2 |velocity error|^2
}
