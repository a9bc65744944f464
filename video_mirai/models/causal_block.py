"""One block of CausalVideoDiT: Wan's, with modulation per frame, a mask, and keys and values of past frames."""

from typing import NamedTuple

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanAttention
from einops import rearrange
from torch import Tensor, nn

from video_mirai.models.cache import Commit, KVCache
from video_mirai.models.context_memory import ContextKeys
from video_mirai.models.modulation import Modulation
from video_mirai.ops.attention import PreparedMask, attend
from video_mirai.ops.rope import rotate


class CacheSlot(NamedTuple):
    """One layer's part of the cache (0-based), and what this pass writes to it.

    commit: the first frames given are taken in; None = nothing is.
    commit_first: before the frames after them attend, and they don't attend to those: two passes in one.
    ended_frames: of so many, the committed ones, nothing but keys and values is needed; those after them go on alone.
    modulations: those known of this pass's noise levels, by layer; a block adds its own.
    """

    cache: KVCache
    layer: int
    commit: Commit | None
    commit_first: bool
    ended_frames: int
    modulations: dict[int, Modulation]


class Projected(NamedTuple):
    """(B, F*N, heads, head_dim) each; query and rotated are turned to their positions, key is not."""

    query: Tensor
    key: Tensor
    rotated: Tensor
    value: Tensor


class CausalBlock(nn.Module):
    """WanTransformerBlock in three parts: `project`, attention, `finish`.

    Attention depends on cache and mask; the parts beside it always get the same shapes, so that they can be compiled.
    """

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
        self._parts_compiled = False

    def forward(
        self,
        hidden: Tensor,
        of_frames: Tensor,
        context: Tensor | None,
        rope: Tensor,
        mask: PreparedMask,
        backend: str,
        slot: CacheSlot | None = None,
    ) -> Tensor:
        """(B, F*N, D) -> the same, without the frames that end here; of_frames (B, F, 6, D) is for all blocks."""
        modulation = self._modulation(of_frames, slot)
        projected = self.project(hidden, modulation, rope)
        if slot is None:
            mixed = attend(projected.query, projected.rotated, projected.value, mask, backend)
        else:
            mixed = _attend_with_cache(projected, mask, backend, slot)
        keys = self._context_keys(context, slot) if context is not None else None
        if slot is not None and slot.ended_frames:
            if not mixed.shape[1]:
                return hidden[:, :0]
            frames = hidden.shape[1] // slot.cache.tokens_per_frame
            keys = _of_later_frames(keys, frames, slot.ended_frames, len(hidden)) if keys is not None else None
            hidden, modulation = hidden[:, -mixed.shape[1] :], modulation.after(slot.ended_frames)
        return self.finish(hidden, modulation, mixed, keys, backend)

    def compile_parts(self) -> None:
        """Both parts beside attention, once; the same code serves every block."""
        if not self._parts_compiled:
            self.project = torch.compile(self.project, dynamic=False)  # type: ignore[method-assign]
            self.finish = torch.compile(self.finish, dynamic=False)  # type: ignore[method-assign]
            self._parts_compiled = True

    def _modulation(self, of_frames: Tensor, slot: CacheSlot | None) -> Modulation:
        """What the noise levels say to all blocks, as this one takes it."""
        if slot is not None and slot.layer in slot.modulations:
            return slot.modulations[slot.layer]
        table = self.scale_shift_table[:, None] + of_frames.float()
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.chunk(6, dim=2)
        modulation = Modulation(shift, 1 + scale, gate, ffn_shift, 1 + ffn_scale, ffn_gate)
        if slot is not None:
            slot.modulations[slot.layer] = modulation
        return modulation

    def project(self, hidden: Tensor, modulation: Modulation, rope: Tensor) -> Projected:
        """What self-attention takes."""
        normed = _modulate(self.norm1, hidden, modulation.scale, modulation.shift)
        query, key, value = _project(self.attn1, normed, normed)
        return Projected(rotate(query, rope).to(value.dtype), key, rotate(key, rope).to(value.dtype), value)

    def finish(
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

    def _context_keys(self, context: Tensor, slot: CacheSlot | None) -> ContextKeys:
        """Keys and values of the context, (B, L, D) or (B, F, L, D): one for every frame."""
        keys = slot.cache.context.recall(slot.layer) if slot is not None else None
        if keys is None:
            sources = context.flatten(0, 1) if context.ndim == 4 else context
            value = self.attn2.to_v(sources)
            key = self.attn2.norm_k(self.attn2.to_k(sources).float())
            heads = (self.attn2.heads, -1)
            keys = key.unflatten(2, heads).to(value.dtype), value.unflatten(2, heads)
            if slot is not None:
                slot.cache.context.keep(slot.layer, keys)
        return keys

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
    cache, layer, commit = slot.cache, slot.layer, slot.commit
    if commit is None:
        return _attend_to_past(new, cache, layer, cache.frames, mask, backend)
    committed = commit.num_frames * cache.tokens_per_frame
    first = Projected(*(part[:, :committed] for part in new))
    mixed = []
    # The write comes after attention has read what it may evict.
    if not slot.ended_frames:
        present = first if slot.commit_first else new
        mixed.append(_attend_to_past(present, cache, layer, cache.frames, mask, backend))
    cache.write(layer, first.key, first.value, commit)
    if slot.commit_first:
        rest = Projected(*(part[:, committed:] for part in new))
        mixed.append(_attend_to_past(rest, cache, layer, commit.held_frames, None, backend))
    return torch.cat(mixed, dim=1) if mixed else new.query[:, :0]


def _attend_to_past(
    new: Projected, cache: KVCache, layer: int, held_frames: int, mask: PreparedMask, backend: str
) -> Tensor:
    keys, values = cache.read_with(layer, held_frames, new.rotated, new.value)
    return attend(new.query, keys, values, mask, backend)


def _of_later_frames(keys: ContextKeys, frames: int, ended: int, batch: int) -> ContextKeys:
    """The context's keys and values without those of the first frames, where every frame has its own."""
    key, value = keys
    if len(key) == batch:
        return keys
    later = [part.unflatten(0, (batch, frames))[:, ended:].flatten(0, 1) for part in (key, value)]
    return later[0], later[1]


def _project(attn: WanAttention, queries: Tensor, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, (B, L, heads, head_dim) each; query and key normalised across heads and in fp32.

    The rotation wants fp32 too, and a norm of bf16 with fp32 weights has no fused kernel.
    """
    heads = (attn.heads, -1)
    value = attn.to_v(sources)
    query = attn.norm_q(attn.to_q(queries).float())
    key = attn.norm_k(attn.to_k(sources).float())
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
