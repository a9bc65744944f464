"""The engine of a rollout: one chunk after another from noise, through a cache, in as few passes as can be."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from video_mirai.flow.history import noise_history
from video_mirai.models.cache import KVCache
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.sampling.guidance import View, combine_views, for_all_views
from video_mirai.sampling.solvers import Solver
from video_mirai.sampling.state import Generators, Pending, RolloutState

ContextFn = Callable[[int, int], Tensor]  # (number of the first frame, number of frames) -> context


class NonFiniteLatents(ArithmeticError):
    """A chunk holds NaN or infinite numbers. frame: the first such frame of those generated, counted from 0."""

    def __init__(self, frame: int) -> None:
        super().__init__(
            f"generated frame {frame} holds numbers that are NaN or infinite; another seed, precision fp32 or other "
            f"weights may help."
        )
        self.frame = frame


class ChunkStream:
    """Model, cache, noise and context of one running rollout.

    The newest chunk waits (`state.pending`) until the next one begins: then one pass commits it and takes the first
    denoising step of the next, in place of two.
    """

    def __init__(
        self,
        model: CausalVideoDiT,
        state: RolloutState,
        generator: Generators,
        context: "ChunkContext",
        *,
        views: tuple[View, ...],
        solver: Solver,
        sigmas: Tensor,
        fuse_commit: bool,
        autocast_dtype: torch.dtype,
    ) -> None:
        assert state.cache is not None, "rollout() allocates it"
        self._model = model
        self._state = state
        self._cache: KVCache = state.cache
        self._generator = generator
        self._context = context
        self._views = views
        self._solver = solver
        self._sigmas = sigmas
        self._fuse_commit = fuse_commit
        self._autocast_dtype = autocast_dtype
        self._frames_generated = 0
        # Inference mode spares views their bookkeeping; but training uses again what sharded weights are gathered into.
        is_sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        self._without_autograd = torch.no_grad if is_sharded else torch.inference_mode

    def take(self, chunk: Tensor) -> None:
        """A chunk of history (B, F, C, H, W)."""
        self._commit_pending()
        self._state.pending = Pending(chunk, self._context.next(chunk.shape[1]))

    @torch.no_grad()
    def generate(self, shape: tuple[int, ...]) -> Tensor:
        """The next chunk, of shape (B, F, C, H, W); NonFiniteLatents where it is none."""
        context = self._context.next(shape[1])
        if not self._can_fuse(context):
            self._commit_pending()
        clean = self._take_pending()

        def velocity_of(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal clean
            first, clean = clean, None
            sigmas = sigma.expand(shape[:2])
            if first is None:
                return self._velocity(x, sigmas, context)
            return self._commit_and_step(first, x, sigmas, context)

        chunk = self._solver(velocity_of, self._noise(shape), self._sigmas)
        self._check_finite(chunk)
        self._state.pending = Pending(chunk, context)
        self._frames_generated += shape[1]
        return chunk

    def _can_fuse(self, context: Tensor | None) -> bool:
        pending = self._state.pending
        if pending is None or not self._fuse_commit:
            return False
        return context is pending.context or can_join(pending.context, context)

    @torch.no_grad()
    def _commit_pending(self) -> None:
        """In a pass of its own."""
        clean = self._take_pending()
        if clean is not None:
            frames, sigmas, context = clean
            self._forward(frames, sigmas, context, commit_frames=frames.shape[1], commit_first=False)

    def _take_pending(self) -> "tuple[Tensor, Tensor, Tensor | None] | None":
        """Frames and sigmas of every view, and the context of one; seen through the history noise of training."""
        pending, self._state.pending = self._state.pending, None
        if pending is None:
            return None
        levels = torch.tensor([view.history_sigma for view in self._views], device=pending.latents.device)
        sigmas = levels.repeat_interleave(len(pending.latents))[:, None].expand(-1, pending.latents.shape[1])
        frames = for_all_views(pending.latents, self._views)
        if levels.any():
            noise = for_all_views(self._noise(pending.latents.shape), self._views)
            frames = noise_history(frames, sigmas, noise)
        return frames, sigmas, pending.context

    def _velocity(self, x: Tensor, sigmas: Tensor, context: Tensor | None) -> Tensor:
        """Reads the cache, never writes it."""
        frames, levels = (for_all_views(part, self._views) for part in (x, sigmas))
        return combine_views(self._forward(frames, levels, context, commit_frames=0, commit_first=False), self._views)

    def _commit_and_step(
        self, clean: tuple[Tensor, Tensor, Tensor | None], x: Tensor, sigmas: Tensor, context: Tensor | None
    ) -> Tensor:
        """One pass that commits the clean chunk and gives the velocity of the next, which sees it."""
        clean_frames, clean_sigmas, clean_context = clean
        count = clean_frames.shape[1]
        frames = torch.cat([clean_frames, for_all_views(x, self._views)], dim=1)
        levels = torch.cat([clean_sigmas, for_all_views(sigmas, self._views)], dim=1)
        if context is not clean_context:
            assert context is not None and clean_context is not None
            context = join_contexts(clean_context, count, context, x.shape[1])
        velocity = self._forward(frames, levels, context, commit_frames=count, commit_first=True)
        return combine_views(velocity, self._views)

    def _forward(
        self, frames: Tensor, sigmas: Tensor, context: Tensor | None, *, commit_frames: int, commit_first: bool
    ) -> Tensor:
        dtype = self._autocast_dtype
        autocast = torch.autocast(frames.device.type, dtype=dtype, enabled=dtype != torch.float32)
        with self._without_autograd(), autocast:
            output = self._model(
                frames,
                sigmas,
                self._context.of_all_views(context),
                cache=self._cache,
                commit_frames=commit_frames,
                commit_first=commit_first,
                after_commit=commit_frames > 0,
            )
        return output.velocity.to(frames.dtype)

    def _check_finite(self, chunk: Tensor) -> None:
        is_finite = chunk.isfinite().transpose(0, 1).flatten(1).all(dim=1)  # (F,)
        if not is_finite.all():
            raise NonFiniteLatents(self._frames_generated + int(is_finite.logical_not().nonzero()[0]))

    def _noise(self, shape: Sequence[int]) -> Tensor:
        """Drawn on the generator's own device, so that a CPU generator gives every device the same noise."""

        def draw(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device).to(self._model.device)

        if isinstance(self._generator, torch.Generator):
            return draw(self._generator, tuple(shape))
        return torch.stack([draw(generator, tuple(shape[1:])) for generator in self._generator])


class ChunkContext:
    """The context of one chunk after another, and of every view of a chunk."""

    def __init__(self, source: Tensor | ContextFn | None, null_context: Tensor | None, views: tuple[View, ...]) -> None:
        self._source = source
        self._null_context = null_context
        self._views = views
        self._frames_done = 0
        self._viewed: tuple[Tensor, Tensor] | None = None

    def next(self, num_frames: int) -> Tensor | None:
        """Of the next frames: the same tensor as before where it is the same for all frames."""
        start, end = self._frames_done, self._frames_done + num_frames
        self._frames_done = end
        if self._source is None:
            return None
        if callable(self._source):
            return self._source(start, num_frames)
        if self._source.ndim == 3:
            return self._source
        if end > self._source.shape[1]:
            raise ValueError(
                f"the context is given for {self._source.shape[1]} frames, but frame {end} is to be generated; give "
                f"one for every frame of the history and of the rollout, in whole chunks."
            )
        return self._source[:, start:end]

    def of_all_views(self, context: Tensor | None) -> Tensor | None:
        """(views * B, ...); the very same tensor again for the same context, which the cache remembers by it."""
        if context is None or len(self._views) == 1:
            return context
        if self._viewed is None or self._viewed[0] is not context:
            empty = torch.zeros_like(context) if self._null_context is None else self._null_context.expand_as(context)
            parts = [context if view.has_context else empty for view in self._views]
            self._viewed = (context, torch.cat(parts))
        return self._viewed[1]


def can_join(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two chunks' contexts have as many tokens for a frame, so that one pass can take both."""
    return one is not None and other is not None and one.shape[-2:] == other.shape[-2:]


def join_contexts(one: Tensor, one_frames: int, other: Tensor, other_frames: int) -> Tensor:
    """(B, F1 + F2, L, D) of two chunks' contexts, each (B, L, D) or (B, F, L, D)."""
    parts = [
        context if context.ndim == 4 else context[:, None].expand(-1, frames, -1, -1)
        for context, frames in ((one, one_frames), (other, other_frames))
    ]
    return torch.cat(parts, dim=1)
