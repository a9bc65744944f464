"""Endless generation: denoise a chunk from noise and the KV cache, commit it, yield it, go on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from video_mirai.flow.history import noise_history
from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.cache import KVCache
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.sampling.solvers import SOLVERS

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class RolloutSettings:
    """How to generate; chunk, window and sink as the model was trained.

    Attributes:
        num_steps: denoising steps per chunk.
        shift: time shift of the denoising sigmas.
        chunk_frames: frames denoised together.
        window_frames: history frames attended to, besides the sink.
        history_sigma: noise level given to history frames, and told to the model; 0 = clean.
        precision: "fp32", or "bf16" for autocast around the model.
    """

    num_steps: int = 8
    shift: float = 1.0
    solver: str = "euler"
    chunk_frames: int = 1
    window_frames: int = 8
    sink_frames: int = 0
    history_sigma: float = 0.0
    precision: str = "fp32"


@dataclass
class RolloutState:
    """What a rollout needs to go on later; filled in by the rollout it is given to."""

    cache: KVCache | None = None


def rollout(
    model: CausalVideoDiT,
    history: Tensor,
    settings: RolloutSettings,
    generator: torch.Generator | Sequence[torch.Generator],
    *,
    context: Tensor | None = None,
    state: RolloutState | None = None,
) -> Iterator[Tensor]:
    """Generate chunks for ever, at the same memory and time each.

    Args:
        history: (B, F, C, H, W) clean latents to continue; F may be 0, or any number.
        generator: one, or one per sample; with one per sample a batch equals each sample alone.
        context: (B, L, D_text), the same for every chunk; or (B, F, L, D_text), one for each frame, those of `history`
            first, and as many as are going to be generated: ValueError where they run out.
        state: a state that an earlier rollout filled in; then `history` is only what came since (F = 0: nothing).

    Yields:
        (B, chunk_frames, C, H, W), denoised and already committed to the cache.
    """
    _check(model, history, settings, generator)
    model.eval()
    state = state if state is not None else RolloutState()
    if state.cache is None:
        tokens = model.tokens_per_frame(*history.shape[-2:])
        state.cache = KVCache.allocate(model, len(history), tokens, settings.sink_frames, settings.window_frames)
    stream = _Stream(model, settings, generator, context, state.cache)
    for chunk in _history_chunks(history, settings.chunk_frames):
        stream.commit(chunk)
    shape = (len(history), settings.chunk_frames, *history.shape[2:])
    while True:
        chunk = stream.denoise(shape)
        stream.commit(chunk)
        yield chunk


class _Stream:
    """Model, cache and noise source of one running rollout."""

    def __init__(
        self,
        model: CausalVideoDiT,
        settings: RolloutSettings,
        generator: torch.Generator | Sequence[torch.Generator],
        context: Tensor | None,
        cache: KVCache,
    ) -> None:
        self._model = model
        self._settings = settings
        self._generator = generator
        self._context = context
        self._cache = cache
        self._frames_done = 0  # committed by this stream, history included
        self._sigmas = denoising_sigmas(settings.num_steps, settings.shift, device=model.device)
        self._autocast_dtype = PRECISIONS[settings.precision]

    @torch.no_grad()
    def denoise(self, shape: tuple[int, ...]) -> Tensor:
        """From pure noise to a clean chunk; reads the cache, never writes it."""

        def velocity_of(x: Tensor, sigma: Tensor) -> Tensor:
            return self._forward(x, sigma.expand(shape[:2]), commit_frames=0)

        return SOLVERS[self._settings.solver](velocity_of, self._noise(shape), self._sigmas)

    @torch.no_grad()
    def commit(self, chunk: Tensor) -> None:
        """Write a clean chunk's keys and values, seen through the history noise that training used."""
        sigma = self._settings.history_sigma
        sigmas = torch.full(chunk.shape[:2], sigma, device=chunk.device)
        if sigma:
            chunk = noise_history(chunk, sigmas, self._noise(chunk.shape))
        self._forward(chunk, sigmas, commit_frames=chunk.shape[1])
        self._frames_done += chunk.shape[1]

    def _context_of(self, num_frames: int) -> Tensor | None:
        """The context of the next frames."""
        if self._context is None or self._context.ndim == 3:
            return self._context
        end = self._frames_done + num_frames
        if end > self._context.shape[1]:
            raise ValueError(
                f"the context is given for {self._context.shape[1]} frames, but frame {end} is to be generated; give "
                f"one for every frame of the history and of the rollout, in whole chunks."
            )
        return self._context[:, self._frames_done : end]

    def _forward(self, x: Tensor, sigmas: Tensor, commit_frames: int) -> Tensor:
        dtype = self._autocast_dtype
        with torch.autocast(x.device.type, dtype=dtype, enabled=dtype != torch.float32):
            context = self._context_of(x.shape[1])
            output = self._model(x, sigmas, context, cache=self._cache, commit_frames=commit_frames)
        return output.velocity.to(x.dtype)

    def _noise(self, shape: Sequence[int]) -> Tensor:
        device, dtype = self._model.device, torch.float32
        if isinstance(self._generator, torch.Generator):
            return torch.randn(tuple(shape), generator=self._generator, device=device, dtype=dtype)
        rows = [
            torch.randn(tuple(shape[1:]), generator=generator, device=device, dtype=dtype)
            for generator in self._generator
        ]
        return torch.stack(rows)


def _history_chunks(history: Tensor, chunk_frames: int) -> list[Tensor]:
    """History in chunks; a remainder comes first, so that the newest frames sit in whole chunks."""
    frames = history.shape[1]
    first = frames % chunk_frames
    chunks = [history[:, :first]] if first else []
    return chunks + [history[:, start : start + chunk_frames] for start in range(first, frames, chunk_frames)]


def _check(
    model: CausalVideoDiT,
    history: Tensor,
    settings: RolloutSettings,
    generator: torch.Generator | Sequence[torch.Generator],
) -> None:
    if history.ndim != 5 or history.shape[2] != model.config.in_channels:
        raise ValueError(f"history: expected (B, F, {model.config.in_channels}, H, W), got {tuple(history.shape)}.")
    if not isinstance(generator, torch.Generator) and len(generator) != len(history):
        raise ValueError(f"{len(generator)} generators for a batch of {len(history)}; give one, or one per sample.")
    if settings.solver not in SOLVERS:
        raise ValueError(f"unknown solver {settings.solver!r}; known: {', '.join(SOLVERS)}.")
    if settings.precision not in PRECISIONS:
        raise ValueError(f"unknown precision {settings.precision!r}; known: {', '.join(PRECISIONS)}.")
    if settings.chunk_frames < 1:
        raise ValueError(f"chunk_frames={settings.chunk_frames} must be at least 1.")
    if not 0.0 <= settings.history_sigma < 1.0:
        raise ValueError(f"history_sigma={settings.history_sigma} must lie in [0, 1).")
