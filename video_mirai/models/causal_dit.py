"""Wan 2.1's video diffusion transformer, made causal: per-frame noise levels, masks, and a key/value cache."""

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTimeTextImageEmbedding
from einops import rearrange
from torch import Tensor, nn

from video_mirai.flow.path import velocity_from_data
from video_mirai.models.cache import KVCache
from video_mirai.models.causal_block import (
    CachedLayer,
    CacheSlot,
    CausalBlock,
    PassPlan,
    Shared,
    autocasts,
    product_dtype,
)
from video_mirai.models.compiled_pass import CompiledPasses
from video_mirai.models.layer_cache import Commit
from video_mirai.models.modulation import Conditioning
from video_mirai.ops.attention import prepare_mask
from video_mirai.ops.rope import rope_factors

TIMESTEPS_PER_SIGMA = 1000.0
PREDICTION_TYPES = ("velocity", "data")


class DiTOutput(NamedTuple):
    """velocity like the latents; hidden: {layer: (B, F*N, D)}, the residual stream after each captured layer."""

    velocity: Tensor
    hidden: dict[int, Tensor]


class CausalVideoDiT(ModelMixin, ConfigMixin):
    """Architecture and parameter names of diffusers' WanTransformer3DModel (Wan 2.1 text-to-video).

    Args are WanTransformer3DModel's, and:
        text_dim: None builds no text embedder and no cross-attention.
        prediction_type: what the output layer predicts, "velocity" or "data"; data is converted, so that callers
            always get a velocity.
        sigma_floor: smallest sigma that conversion divides by; nothing is trained below it.
        attention_backend: a name of diffusers' attention dispatcher, or "matmul" (fast on CPUs for short clips).
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns: ClassVar[list[str]] = ["patch_embedding", "condition_embedder", "norm"]
    _no_split_modules: ClassVar[list[str]] = ["CausalBlock"]
    _keep_in_fp32_modules: ClassVar[list[str]] = [
        "time_embedder",
        "scale_shift_table",
        "norm1",
        "norm2",
        "norm3",
        "norm_q",
        "norm_k",
    ]
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = ["norm_added_q"]
    _repeated_blocks: ClassVar[list[str]] = ["CausalBlock"]

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int | None = 16,
        text_dim: int | None = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        prediction_type: str = "velocity",
        sigma_floor: float = 0.02,
        attention_backend: str = "native",
    ) -> None:
        super().__init__()
        if image_dim is not None or added_kv_proj_dim is not None:
            raise ValueError("image-to-video weights (image_dim) are not supported; give the image as history instead.")
        if patch_size[0] != 1:
            raise ValueError(f"patch_size={tuple(patch_size)}: frames carry one sigma each, so its first number is 1.")
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"unknown prediction_type {prediction_type!r}; known: {', '.join(PREDICTION_TYPES)}.")
        width = num_attention_heads * attention_head_dim
        self.patch_embedding = nn.Conv3d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = WanTimeTextImageEmbedding(
            width, time_freq_dim=freq_dim, time_proj_dim=6 * width, text_embed_dim=text_dim or 1
        )
        if text_dim is None:
            del self.condition_embedder.text_embedder
        self.blocks = nn.ModuleList(
            CausalBlock(width, ffn_dim, num_attention_heads, cross_attn_norm, eps, has_context=text_dim is not None)
            for _ in range(num_layers)
        )
        self.norm_out = FP32LayerNorm(width, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(width, (out_channels or in_channels) * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        self.gradient_checkpointing = False
        self._compiled: CompiledPasses | None = None

    def tokens_per_frame(self, height: int, width: int) -> int:
        """Tokens of one latent frame of the given height and width."""
        rows, columns = self.grid(height, width)
        return rows * columns

    def compiled_passes(self) -> CompiledPasses:
        """What a cache needs (`KVCache.compiled`) for its passes to be compiled; the same again for every cache."""
        if self._compiled is None:
            self._compiled = CompiledPasses(self.blocks, self.config.attention_backend)
        return self._compiled

    def forward(
        self,
        latents: Tensor,
        sigmas: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        commit_frames: int = 0,
        commit_first: bool = False,
        after_commit: bool = False,
        capture: Sequence[int] = (),
    ) -> DiTOutput:
        """Velocity of every frame given, or of those not committed.

        Args:
            latents: (B, F, C, H, W).
            sigmas: (B, F) in [0, 1].
            context: (B, L, D_text), or (B, F, L, D_text) for one per frame; None for a model without text.
            mask: (queries, keys) bool, True = may attend, the cached keys first and in temporal order;
                None = every token may attend to every token given and cached.
            positions: (F,) temporal positions; None = 0..F-1, or following the cache.
            cache: past frames; read in every layer.
            commit_frames: so many of the first frames given are written to the cache, whatever their sigma.
            commit_first: two passes in one: the committed frames see the cache and themselves, those after them the
                cache as the commit leaves it, and themselves. Takes neither mask nor positions.
            after_commit: only the frames after the committed ones are returned, and the last layer does without the
                others, but for their keys and values. With commit_first, or where all frames are committed.
            capture: layers (1-based) whose residual stream is returned.
        """
        self._check(latents, sigmas, context, cache, commit_frames, capture)
        _check_commit(latents.shape[1], commit_frames, commit_first, after_commit, mask, positions)
        rows, columns = self.grid(*latents.shape[-2:])
        commit = cache.plan_commit(commit_frames, rows, columns) if cache is not None and commit_frames else None
        rope = self._rope(latents, positions, cache, commit if commit_first else None)
        if cache is not None and mask is not None:
            mask = cache.in_slot_order(mask)

        hidden = self.patch_embedding(
            rearrange(latents, "b f c h w -> b c f h w").to(self.patch_embedding.weight.dtype)
        )
        hidden = rearrange(hidden, "b d f h w -> b (f h w) d").contiguous()  # (B, F*N, D)
        dtype = product_dtype(hidden)
        if autocasts(hidden):
            hidden = hidden.float()  # the residual stream; autocast casts the products alone
        conditioning = self._condition(sigmas, hidden.dtype, cache)
        # A cache that knows all layers' keys of this context makes the embedding superfluous.
        if context is not None and not (cache is not None and cache.context.turn_to(context, len(self.blocks))):
            context = self.condition_embedder.text_embedder(context)
        prepared = prepare_mask(mask, self.config.attention_backend, dtype)

        skipped = commit_frames if after_commit else 0
        shared = Shared(conditioning.of_frames, context, rope, prepared, self.config.attention_backend)
        layers: list[CachedLayer] = []
        compiled = None
        if cache is not None:
            plan = PassPlan(cache.tokens_per_frame, cache.frames, commit, commit_first)
            layers = _layers_of(cache, latents.shape[1], plan, skipped, conditioning)
            if _is_steady(cache, plan, mask, capture):
                compiled = cache.compiled
        if compiled is not None:
            hidden, captured = self._run_compiled(compiled, hidden, shared, layers), dict[int, Tensor]()
        else:
            hidden, captured = self._run_blocks(hidden, shared, layers, capture)
        if cache is not None and commit is not None:
            cache.advance(commit)
        conditioning = conditioning.after(skipped)
        return DiTOutput(self._velocity(hidden, conditioning, latents[:, skipped:], sigmas[:, skipped:]), captured)

    def _run_blocks(
        self, hidden: Tensor, shared: Shared, layers: list[CachedLayer], capture: Sequence[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The residual stream after all blocks, and after those asked for; layers: of the cache, if there is one."""
        captured: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            if layers:
                hidden = block(hidden, shared, layers[index])
            elif self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = self._gradient_checkpointing_func(block, hidden, shared)
            else:
                hidden = block(hidden, shared)
            if index + 1 in capture:
                captured[index + 1] = hidden
        return hidden, captured

    def _run_compiled(
        self, compiled: CompiledPasses, hidden: Tensor, shared: Shared, layers: list[CachedLayer]
    ) -> Tensor:
        known = [block.known(shared, layer) for block, layer in zip(self.blocks, layers, strict=True)]  # type: ignore[operator]
        return compiled(hidden, shared.rope, known, [layer.slot for layer in layers])

    def _rope(self, latents: Tensor, positions: Tensor | None, cache: KVCache | None, first: Commit | None) -> Tensor:
        """Rotation of every token. Positions not given follow the frames held, after a first commit those held then."""
        frames, device = latents.shape[1], latents.device
        rows, columns = self.grid(*latents.shape[-2:])
        if positions is not None or cache is None:
            positions = torch.arange(frames, device=device) if positions is None else positions
            return rope_factors(positions, rows, columns, self.config.attention_head_dim)
        end = cache.frames + frames
        positions = torch.arange(cache.frames, end, device=device)
        if first is not None:
            evicted = cache.frames + first.num_frames - first.held_frames
            positions[first.num_frames :] -= evicted
        return cache.rope(positions, end, rows, columns)

    def _condition(self, sigmas: Tensor, dtype: torch.dtype, cache: KVCache | None) -> Conditioning:
        """What noise levels (B, F) say to every layer; a cache remembers it."""
        if cache is None or torch.is_grad_enabled():
            return self._embed_sigmas(sigmas, dtype)
        return cache.sigmas.recall(sigmas, lambda distinct: self._embed_sigmas(distinct, dtype))

    def _embed_sigmas(self, sigmas: Tensor, dtype: torch.dtype) -> Conditioning:
        """Per frame; broadcast over tokens later."""
        embedder = self.condition_embedder
        timesteps = embedder.timesteps_proj(TIMESTEPS_PER_SIGMA * sigmas.float().flatten())
        emb = embedder.time_embedder(timesteps.to(embedder.time_embedder.linear_1.weight.dtype)).to(dtype)
        frames = sigmas.shape[1]
        projected = embedder.time_proj(embedder.act_fn(emb))
        projected = rearrange(projected, "(b f) (six d) -> b f six d", f=frames, six=6)
        emb = rearrange(emb, "(b f) d -> b f 1 d", f=frames)
        shift, scale = (self.scale_shift_table[:, None] + emb).chunk(2, dim=2)
        return Conditioning(shift, 1 + scale, projected, {})

    def _velocity(self, hidden: Tensor, conditioning: Conditioning, latents: Tensor, sigmas: Tensor) -> Tensor:
        """Output layer: norm, per-frame shift and scale, projection, un-patching, conversion to velocity."""
        frames = latents.shape[1]
        rows, columns = self.grid(*latents.shape[-2:])
        hidden = hidden.unflatten(1, (frames, rows * columns))
        hidden = (self.norm_out(hidden.float()) * conditioning.scale + conditioning.shift).to(hidden.dtype)
        _, patch_rows, patch_columns = self.config.patch_size
        prediction = rearrange(
            self.proj_out(hidden),
            "b f (h w) (p q c) -> b f c (h p) (w q)",
            h=rows,
            w=columns,
            p=patch_rows,
            q=patch_columns,
        )
        if self.config.prediction_type == "data":
            return velocity_from_data(latents, prediction.float(), sigmas, self.config.sigma_floor).to(latents.dtype)
        return prediction

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns of a latent frame of the given height and width."""
        _, patch_rows, patch_columns = self.config.patch_size
        if height % patch_rows or width % patch_columns:
            raise ValueError(f"latents of {height}x{width} do not divide into {patch_rows}x{patch_columns} patches.")
        return height // patch_rows, width // patch_columns

    def _check(
        self,
        latents: Tensor,
        sigmas: Tensor,
        context: Tensor | None,
        cache: KVCache | None,
        commit_frames: int,
        capture: Sequence[int],
    ) -> None:
        if latents.ndim != 5 or latents.shape[2] != self.config.in_channels:
            raise ValueError(f"latents: expected (B, F, {self.config.in_channels}, H, W), got {tuple(latents.shape)}.")
        if sigmas.shape != latents.shape[:2]:
            raise ValueError(f"sigmas: expected {tuple(latents.shape[:2])}, got {tuple(sigmas.shape)}.")
        if (context is None) != (self.config.text_dim is None):
            wanted = "no context" if self.config.text_dim is None else f"context of width {self.config.text_dim}"
            raise ValueError(f"this model takes {wanted}, got {None if context is None else tuple(context.shape)}.")
        if commit_frames and (cache is None or not 0 < commit_frames <= latents.shape[1]):
            raise ValueError(
                f"commit_frames={commit_frames} needs a cache and at most the {latents.shape[1]} frames given."
            )
        unknown = [layer for layer in capture if not 1 <= layer <= self.config.num_layers]
        if unknown:
            raise ValueError(f"capture={tuple(capture)}: layers go from 1 to {self.config.num_layers}.")


def _is_steady(cache: KVCache, plan: PassPlan, mask: Tensor | None, capture: Sequence[int]) -> bool:
    """Whether it is one of the passes that a rollout with a full window consists of, again and again."""
    is_a_chunk = plan.commit is None or plan.commit_first
    return cache.is_full and is_a_chunk and mask is None and not capture and not torch.is_grad_enabled()


def _layers_of(
    cache: KVCache, frames: int, plan: PassPlan, skipped: int, conditioning: Conditioning
) -> list[CachedLayer]:
    """The cache's layers, with room for a pass of so many frames; in the last one the skipped ones end."""
    end = plan.held_frames + frames
    if plan.commit is not None and plan.commit_first:
        committed = plan.commit.num_frames
        end = max(plan.held_frames + committed, plan.commit.held_frames + frames - committed)
    if not torch.is_grad_enabled():
        cache.make_room(end)
    last = len(cache.layers) - 1
    slots = [CacheSlot(layer, plan, skipped if index == last else 0) for index, layer in enumerate(cache.layers)]
    return [CachedLayer(index, slot, cache.context, conditioning.blocks) for index, slot in enumerate(slots)]


def _check_commit(
    frames: int,
    commit_frames: int,
    commit_first: bool,
    after_commit: bool,
    mask: Tensor | None,
    positions: Tensor | None,
) -> None:
    if commit_first and (mask is not None or positions is not None or not commit_frames):
        raise ValueError("commit_first goes with commit_frames, and with neither mask nor positions.")
    if after_commit and not (commit_first or commit_frames == frames):
        raise ValueError("after_commit goes with commit_first, or with all frames committed.")
