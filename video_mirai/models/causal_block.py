"""One block of CausalVideoDiT: Wan's, with modulation per frame, a mask, and keys and values of past frames."""

from typing import NamedTuple

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanAttention
from einops import rearrange
from torch import Tensor, nn

from video_mirai.models.context_memory import ContextKeys, ContextMemory
from video_mirai.models.layer_cache import Commit, LayerCache
from video_mirai.models.modulation import Modulation
from video_mirai.ops.attention import PreparedMask, attend
from video_mirai.ops.rope import rotate


class PassPlan(NamedTuple):
    """What a pass reads of the cache, and what it writes to it; the same for every layer.

    commit: the first frames given are taken in; None = nothing is.
    commit_first: before the frames after them attend, and they don't attend to those: two passes in one.
    """

    tokens_per_frame: int
    held_frames: int
    commit: Commit | None
    commit_first: bool


class CacheSlot(NamedTuple):
    """One layer's part of the cache in a pass.

    ended_frames: of so many, the committed ones, nothing but keys and values is needed; those after them go on alone.
    """

    cache: LayerCache
    plan: PassPlan
    ended_frames: int


class CachedLayer:
    """A block's part of a cache (layer: 0-based), and what is known of it from earlier passes; the block adds its own.

    No tuple, because what shards weights casts tensors that it finds in tuples: the cache would be written in copies.

    Attributes:
        context: keys and values of the cross-attention.
        modulations: by this pass's noise levels, by layer.
    """

    def __init__(self, layer: int, slot: CacheSlot, context: ContextMemory, modulations: dict[int, Modulation]) -> None:
        self.layer = layer
        self.slot = slot
        self.context = context
        self.modulations = modulations


class Shared(NamedTuple):
    """What all blocks of a pass are given; of_frames (B, F, 6, D), from which each makes its modulation."""

    of_frames: Tensor
    context: Tensor | None
    rope: Tensor
    mask: PreparedMask
    backend: str


class Known(NamedTuple):
    """What noise levels and context are to one block; the same for all passes with these."""

    modulation: Modulation
    context_keys: ContextKeys | None


class Projected(NamedTuple):
    """(B, F*N, heads, head_dim) each; query and rotated are turned to their positions, key is not."""

    query: Tensor
    key: Tensor
    rotated: Tensor
    value: Tensor


class CausalBlock(nn.Module):
    """WanTransformerBlock; what passes have in common, `known`, is apart from what each has to `run`."""

    def __init__(
        self, width: int, ffn_dim: int, num_heads: int, cross_attn_norm: bool, eps: float, *, has_context: bool
    ) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(width, eps, elementwise_affine=False)
        self.attn1 = WanAttention(width, heads=num_heads, dim_head=width // num_heads, eps=eps)
        self.has_context = has_context
        if has_context:
            head_dim = width // num_heads
            self.attn2 = WanAttention(
                width, heads=num_heads, dim_head=head_dim, eps=eps, cross_attention_dim_head=head_dim
            )
            self.norm2 = FP32LayerNorm(width, eps, elementwise_affine=True) if cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(width, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.norm3 = FP32LayerNorm(width, eps, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(self, hidden: Tensor, shared: Shared, cached: CachedLayer | None = None) -> Tensor:
        """(B, F*N, D) -> the same, without the frames that end here."""
        slot = cached.slot if cached is not None else None
        return self.run(hidden, self.known(shared, cached), shared.rope, shared.mask, shared.backend, slot)

    def known(self, shared: Shared, cached: CachedLayer | None) -> Known:
        """Computed, or remembered."""
        keys = self._context_keys(shared.context, cached) if shared.context is not None else None
        return Known(self._modulation(shared.of_frames, cached), keys)

    def run(
        self, hidden: Tensor, known: Known, rope: Tensor, mask: PreparedMask, backend: str, slot: CacheSlot | None
    ) -> Tensor:
        """The same with tensors alone; a slot's cache is written in place."""
        modulation, keys = known
        projected = self._project(hidden, modulation, rope)
        if slot is None:
            mixed = attend(projected.query, projected.rotated, projected.value, mask, backend)
            return self._finish(hidden, modulation, mixed, keys, backend)
        mixed = _attend_with_cache(projected, mask, backend, slot)
        if slot.ended_frames:
            if not mixed.shape[1]:
                return hidden[:, :0]
            frames = hidden.shape[1] // slot.plan.tokens_per_frame
            keys = _of_later_frames(keys, frames, slot.ended_frames, len(hidden)) if keys is not None else None
            hidden, modulation = hidden[:, -mixed.shape[1] :], modulation.after(slot.ended_frames)
        return self._finish(hidden, modulation, mixed, keys, backend)

    def _modulation(self, of_frames: Tensor, cached: CachedLayer | None) -> Modulation:
        """What the noise levels say to all blocks, as this one takes it."""
        if cached is not None and cached.layer in cached.modulations:
            return cached.modulations[cached.layer]
        table = self.scale_shift_table[:, None] + of_frames.float()
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.chunk(6, dim=2)
        modulation = Modulation(shift, 1 + scale, gate, ffn_shift, 1 + ffn_scale, ffn_gate)
        if cached is not None:
            cached.modulations[cached.layer] = modulation
        return modulation

    def _context_keys(self, context: Tensor, cached: CachedLayer | None) -> ContextKeys:
        """Keys and values of the context, (B, L, D) or (B, F, L, D): one for every frame."""
        keys = cached.context.recall(cached.layer) if cached is not None else None
        if keys is None:
            sources = context.flatten(0, 1) if context.ndim == 4 else context
            value = self.attn2.to_v(sources)
            key = self.attn2.norm_k(self.attn2.to_k(sources).float())
            heads = (self.attn2.heads, -1)
            keys = key.unflatten(2, heads).to(value.dtype), value.unflatten(2, heads)
            if cached is not None:
                cached.context.keep(cached.layer, keys)
        return keys

    def _project(self, hidden: Tensor, modulation: Modulation, rope: Tensor) -> Projected:
        """What self-attention takes."""
        normed = _modulate(self.norm1, hidden, modulation.scale, modulation.shift)
        query, key, value = _query_key_value(self.attn1, normed)
        return Projected(rotate(query, rope).to(value.dtype), key, rotate(key, rope).to(value.dtype), value)

    def _finish(
        self, hidden: Tensor, modulation: Modulation, mixed: Tensor, keys: ContextKeys | None, backend: str
    ) -> Tensor:
        """All that follows self-attention, whose result is `mixed`."""
        mixed = mixed.flatten(2).to(product_dtype(hidden))
        hidden = _add_gated(hidden, self.attn1.to_out[0](mixed), modulation.gate)
        if keys is not None:
            normed = self.norm2(hidden.float()).to(hidden.dtype)
            hidden = hidden + self._cross_attention(normed, keys, backend)
        normed = _modulate(self.norm3, hidden, modulation.ffn_scale, modulation.ffn_shift)
        return _add_gated(hidden, self.ffn(normed), modulation.ffn_gate)

    def _cross_attention(self, normed: Tensor, keys: ContextKeys, backend: str) -> Tensor:
        attn, (key, value) = self.attn2, keys
        batch = normed.shape[0]
        if len(key) != batch:  # one context per frame
            normed = rearrange(normed, "b (f n) d -> (b f) n d", f=len(key) // batch)
        query = attn.norm_q(attn.to_q(normed).float()).unflatten(2, (attn.heads, -1))
        mixed = attend(query.to(value.dtype), key, value, None, backend)
        out = attn.to_out[0](mixed.flatten(2).to(normed.dtype))
        return out.reshape(batch, -1, out.shape[-1])


def product_dtype(hidden: Tensor) -> torch.dtype:
    """What linear layers compute in: autocast's type where it is on, else the tensor's own."""
    return torch.get_autocast_dtype(hidden.device.type) if autocasts(hidden) else hidden.dtype


def autocasts(x: Tensor) -> bool:
    """Whether linear layers compute in another type than the tensor's."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def _attend_with_cache(new: Projected, mask: PreparedMask, backend: str, slot: CacheSlot) -> Tensor:
    """Attention to past frames and those given; then, or in between, the cache takes in what it is told to."""
    cache, plan, commit = slot.cache, slot.plan, slot.plan.commit
    held = plan.held_frames * plan.tokens_per_frame
    if commit is None:
        return _attend_to_past(new, cache, held, mask, backend)
    committed = commit.num_frames * plan.tokens_per_frame
    first = Projected(*(part[:, :committed] for part in new))
    mixed = []
    # The write comes after attention has read what it may evict.
    if not slot.ended_frames:
        mixed.append(_attend_to_past(first if plan.commit_first else new, cache, held, mask, backend))
    cache.write(first.key, first.value, commit)
    if plan.commit_first:
        rest = Projected(*(part[:, committed:] for part in new))
        mixed.append(_attend_to_past(rest, cache, commit.held_frames * plan.tokens_per_frame, None, backend))
    return torch.cat(mixed, dim=1) if mixed else new.query[:, :0]


def _attend_to_past(new: Projected, cache: LayerCache, held_tokens: int, mask: PreparedMask, backend: str) -> Tensor:
    keys, values = (part.to(new.query.dtype) for part in cache.read_with(held_tokens, new.rotated, new.value))
    return attend(new.query, keys, values, mask, backend)


def _of_later_frames(keys: ContextKeys, frames: int, ended: int, batch: int) -> ContextKeys:
    """The context's keys and values without those of the first frames, where every frame has its own."""
    key, value = keys
    if len(key) == batch:
        return keys
    later = [part.unflatten(0, (batch, frames))[:, ended:].flatten(0, 1) for part in (key, value)]
    return later[0], later[1]


def _query_key_value(attn: WanAttention, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, heads, head_dim) each; query and key normalised across heads and in fp32.

    The rotation wants fp32 too, and a norm of bf16 with fp32 weights has no fused kernel.
    """
    heads = (attn.heads, -1)
    value = attn.to_v(normed)
    query = attn.norm_q(attn.to_q(normed).float())
    key = attn.norm_k(attn.to_k(normed).float())
    return query.unflatten(2, heads), key.unflatten(2, heads), value.unflatten(2, heads)


def _modulate(norm: nn.Module, hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Norm in fp32, then the frame's scale (1 added) and shift, broadcast over its tokens; in the products' type."""
    frames = scale.shape[1]
    normed = norm(hidden.float()).unflatten(1, (frames, -1))
    return torch.addcmul(shift, normed, scale).flatten(1, 2).to(product_dtype(hidden))


def _add_gated(hidden: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    per_frame = (gate.shape[1], -1)
    added = torch.addcmul(hidden.float().unflatten(1, per_frame), update.unflatten(1, per_frame), gate)
    return added.flatten(1, 2).to(hidden.dtype)
