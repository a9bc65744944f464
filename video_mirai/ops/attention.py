"""One entry to every attention backend, through diffusers' dispatcher.

A bool mask handed to a backend as it is gets misread by some: a 2-D one is taken for a padding mask by the native
backend when its rows happen to equal the batch size, flex wants a BlockMask, xformers an additive bias. So a mask is
prepared once per forward pass, by name of the backend, and only then handed over.
"""

from collections.abc import Callable

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from einops import rearrange
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

PreparedMask = Tensor | BlockMask | None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: PreparedMask, backend: str) -> Tensor:
    """Softmax attention.

    Args:
        query: (B, Q, heads, head_dim); key, value: (B, K, heads, head_dim).
        mask: what `prepare_mask` returned for the same backend.

    Returns:
        (B, Q, heads, head_dim).
    """
    if backend == "matmul":
        return _attend_by_matmul(query, key, value, mask)
    return dispatch_attention_fn(query, key, value, attn_mask=mask, backend=AttentionBackendName(backend))


def prepare_mask(mask: Tensor | None, backend: str, dtype: torch.dtype) -> PreparedMask:
    """A (Q, K) bool mask, True = may attend, in the form that the backend really needs.

    Args:
        dtype: of query and key, which an additive bias has to share.
    """
    if mask is None:
        return None
    if backend not in MASK_FORMS:
        raise ValueError(
            f"attention backend {backend!r} takes no mask, and causal training needs one; "
            f"backends with masks: {', '.join(MASK_FORMS)}."
        )
    return MASK_FORMS[backend](mask, dtype)


def check_backend(backend: str, device: torch.device, *, masked: bool, backward: bool) -> None:
    """Raise ValueError now, not in step one, when a backend can't do what will be asked of it."""
    known = ["matmul", *(name.value for name in AttentionBackendName)]
    if backend not in known:
        raise ValueError(f"unknown attention backend {backend!r}; known: {', '.join(known)}.")
    if masked:
        prepare_mask(torch.ones(1, 1, dtype=torch.bool, device="meta"), backend, torch.float32)
    on_cpu = device.type == "cpu"
    if on_cpu and backend not in CPU_BACKENDS:
        raise ValueError(f"attention backend {backend!r} does not run on CPU tensors; use one of {CPU_BACKENDS}.")
    if on_cpu and backward and backend == "flex":
        raise ValueError("attention backend 'flex' has no backward pass on CPU; train with 'native'.")


def _attend_by_matmul(query: Tensor, key: Tensor, value: Tensor, mask: PreparedMask) -> Tensor:
    """Two batched matrix products with the scores in memory.

    On a CPU, for short sequences, about twice as fast with its backward pass as the fused kernel: see
    docs/performance.md. Not meant for sequences whose scores don't fit.
    """
    heads, head_dim = query.shape[2:]
    q, k, v = (rearrange(x, "b l h d -> (b h) l d") for x in (query, key, value))
    # Scaled inside the product, which saves a pass over the scores; without a mask nothing is added.
    bias, beta = (mask, 1) if isinstance(mask, Tensor) else (q.new_zeros(1, 1, 1), 0)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), beta=beta, alpha=head_dim**-0.5)
    return rearrange(torch.bmm(scores.softmax(-1), v), "(b h) l d -> b l h d", h=heads)


def _bool_4d(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return mask[None, None]  # (1, 1, Q, K): never taken for a (B, K) padding mask


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, float("-inf"))[None, None]


def _additive_3d(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return _additive(mask, dtype)[0]


def _additive_aligned(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """xformers wants rows that start at multiples of 8 numbers."""
    queries, keys = mask.shape
    bias = torch.zeros((queries, -(-keys // 8) * 8), dtype=dtype, device=mask.device)
    bias[:, :keys].masked_fill_(~mask, float("-inf"))
    return bias[None, None, :, :keys]


def _block_mask(mask: Tensor, dtype: torch.dtype) -> PreparedMask:
    if mask.is_meta:
        return mask
    rows, columns = mask.shape

    def may_attend(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[query, key]

    return create_block_mask(may_attend, None, None, rows, columns, device=str(mask.device))


MASK_FORMS: dict[str, Callable[[Tensor, torch.dtype], PreparedMask]] = {
    "native": _additive,
    "matmul": _additive_3d,
    "_native_math": _bool_4d,
    "_native_efficient": _additive_aligned,
    "flex": _block_mask,
    "xformers": _additive_aligned,
}
CPU_BACKENDS = ("native", "matmul", "_native_math", "flex")
