"""The cross-attention's keys, kept in the cache while the context is the same."""

import torch
from tiny_models import (
    NUM_LAYERS,
    TEXT_DIM,
    TOKENS_PER_FRAME,
    random_context,
    random_latents,
    random_sigmas,
    tiny_model,
)
from torch import Tensor

from video_mirai.models.cache import KVCache

MODEL = tiny_model(TEXT_DIM)


def new_cache() -> KVCache:
    return KVCache.allocate(MODEL, 2, TOKENS_PER_FRAME, sink_frames=0, window_frames=3)


def velocity(cache: KVCache, context: Tensor) -> Tensor:
    return MODEL(random_latents(1), random_sigmas(1), context, cache=cache).velocity


@torch.no_grad()
def test_the_same_context_is_projected_once(monkeypatch):
    calls = []
    project = type(MODEL.blocks[0].attn2.to_k).forward
    for block in MODEL.blocks:
        to_k = block.attn2.to_k
        monkeypatch.setattr(to_k, "forward", lambda x, to_k=to_k: calls.append(1) or project(to_k, x))
    cache, context = new_cache(), random_context()
    first = velocity(cache, context)
    assert torch.equal(velocity(cache, context), first)
    assert len(calls) == NUM_LAYERS


@torch.no_grad()
def test_another_context_and_one_changed_in_place_are_noticed():
    cache, context, other = new_cache(), random_context(), random_context(seed=9)
    first = velocity(cache, context)
    assert torch.equal(velocity(cache, other), velocity(new_cache(), other))
    assert torch.equal(velocity(cache, context), first)
    context += 1
    assert torch.equal(velocity(cache, context), velocity(new_cache(), context))


def test_with_gradients_every_pass_has_keys_of_its_own():
    cache, context = new_cache(), random_context().requires_grad_()
    for _ in range(2):
        context.grad = None
        velocity(cache, context).square().sum().backward()
        assert context.grad.abs().max() > 0


def test_a_context_made_in_inference_mode_is_remembered_too():
    cache = new_cache()
    with torch.inference_mode():
        context = random_context()
        assert torch.equal(velocity(cache, context), velocity(cache, context))
