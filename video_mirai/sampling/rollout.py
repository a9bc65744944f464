"""Endless generation: denoise a chunk from noise and the KV cache, yield it, go on."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.cache import CacheSizes, KVCache
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.sampling.guidance import GuidanceConfig, guidance_views
from video_mirai.sampling.solvers import SOLVERS
from video_mirai.sampling.state import Generators, RolloutState
from video_mirai.sampling.stream import ChunkContext, ChunkStream, ContextFn

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class RolloutSettings:
    """How to generate; chunk, window and sink as the model was trained.

    Attributes:
        num_steps: denoising steps per chunk.
        shift: time shift of the denoising sigmas.
        solver: "euler", "heun", or diffusers' "unipc" and "flow_match".
        chunk_frames: frames denoised together.
        window_frames: history frames attended to, besides the sink.
        history_sigma: noise level given to history frames, and told to the model; 0 = clean.
        precision: "fp32", or "bf16" for autocast around the model.
        fuse_commit: one pass commits a chunk and begins the next; false = a pass for each, with the same result.
        compile: whole passes are compiled, once the window is full; the first such chunk takes a minute or so longer.
    """

    num_steps: int = 8
    shift: float = 1.0
    solver: str = "euler"
    chunk_frames: int = 1
    window_frames: int = 8
    sink_frames: int = 0
    history_sigma: float = 0.0
    precision: str = "fp32"
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    fuse_commit: bool = True
    compile: bool = False


def rollout(
    model: CausalVideoDiT,
    history: Tensor,
    settings: RolloutSettings,
    generator: Generators,
    *,
    context: Tensor | ContextFn | None = None,
    null_context: Tensor | None = None,
    state: RolloutState | None = None,
) -> Iterator[Tensor]:
    """Generate chunks for ever, at the same memory and time each.

    Args:
        history: (B, F, C, H, W) clean latents to continue; F may be 0, or any number.
        generator: one, or one per sample; with one per sample a batch equals each sample alone.
        context: (B, L, D_text), the same for every chunk; or (B, F, L, D_text), one for each frame, those of `history`
            first, and as many as are going to be generated: ValueError where they run out; or a function that is asked
            for either before every chunk, with (number of its first frame, number of frames), history counted.
        null_context: what the view without context gets, of a shape that expands to the context's; None = zeros.
        state: a state that an earlier rollout filled in; then `history` is only what came since (F = 0: nothing).

    Yields:
        (B, chunk_frames, C, H, W), denoised.

    Raises:
        NonFiniteLatents: a chunk came out as NaN or infinite numbers.
    """
    _check(model, history, settings, generator)
    model.eval()
    views = guidance_views(settings.guidance, settings.history_sigma)
    state = state if state is not None else RolloutState()
    if state.cache is None:
        sizes = cache_sizes(settings, len(history), model.tokens_per_frame(*history.shape[-2:]))
        state.cache = KVCache.allocate(model, **sizes._asdict())
    else:
        _check_fits(state.cache, settings, len(history), len(views))
    state.cache.compiled = model.compiled_passes() if settings.compile else None
    stream = ChunkStream(
        model,
        state,
        generator,
        ChunkContext(context, null_context, views),
        views=views,
        solver=SOLVERS[settings.solver],
        sigmas=denoising_sigmas(settings.num_steps, settings.shift, device=model.device),
        fuse_commit=settings.fuse_commit,
        autocast_dtype=computed_in(settings),
    )
    for chunk in _history_chunks(history, settings.chunk_frames):
        stream.take(chunk)
    shape = (len(history), settings.chunk_frames, *history.shape[2:])
    while True:
        yield stream.generate(shape)


def cache_sizes(settings: RolloutSettings, num_videos: int, tokens_per_frame: int) -> CacheSizes:
    """Of a rollout's cache, in which every view of a video has a row; ValueError for an unknown precision."""
    rows = num_videos * len(guidance_views(settings.guidance, settings.history_sigma))
    dtype = computed_in(settings)
    return CacheSizes(
        rows,
        tokens_per_frame,
        settings.sink_frames,
        settings.window_frames,
        settings.chunk_frames,
        None if dtype == torch.float32 else dtype,
    )


def computed_in(settings: RolloutSettings) -> torch.dtype:
    """What the precision stands for; ValueError where it is unknown."""
    if settings.precision not in PRECISIONS:
        raise ValueError(f"unknown precision {settings.precision!r}; known: {', '.join(PRECISIONS)}.")
    return PRECISIONS[settings.precision]


def _check_fits(cache: KVCache, settings: RolloutSettings, batch_size: int, num_views: int) -> None:
    if cache.batch_size != num_views * batch_size:
        raise ValueError(
            f"the state holds a batch of {cache.batch_size}, but {batch_size} histories in {num_views} views "
            f"(guidance) are to go on; batch and guidance must be those it was filled with."
        )
    window = cache.capacity_frames - cache.sink_frames
    if (cache.sink_frames, window) != (settings.sink_frames, settings.window_frames):
        raise ValueError(
            f"the state holds sink_frames={cache.sink_frames} and window_frames={window}, but {settings.sink_frames} "
            f"and {settings.window_frames} are asked for; they must be those it was filled with."
        )


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
    generator: Generators,
) -> None:
    if history.ndim != 5 or history.shape[2] != model.config.in_channels:
        raise ValueError(f"history: expected (B, F, {model.config.in_channels}, H, W), got {tuple(history.shape)}.")
    if not isinstance(generator, torch.Generator) and len(generator) != len(history):
        raise ValueError(f"{len(generator)} generators for a batch of {len(history)}; give one, or one per sample.")
    if settings.solver not in SOLVERS:
        raise ValueError(f"unknown solver {settings.solver!r}; known: {', '.join(SOLVERS)}.")
    computed_in(settings)
    if settings.chunk_frames < 1:
        raise ValueError(f"chunk_frames={settings.chunk_frames} must be at least 1.")
    if not 0.0 <= settings.history_sigma < 1.0:
        raise ValueError(f"history_sigma={settings.history_sigma} must lie in [0, 1).")
    guidance = settings.guidance
    if guidance.context_scale != 1 and model.config.text_dim is None:
        raise ValueError(f"guidance.context_scale={guidance.context_scale}: this model has no context to leave out.")
    if guidance.history_scale != 1 and not settings.history_sigma < guidance.history_sigma <= 1:
        raise ValueError(
            f"guidance.history_sigma={guidance.history_sigma} must lie above history_sigma={settings.history_sigma}, "
            f"and at most at 1."
        )
