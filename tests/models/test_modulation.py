"""Modulation by noise level, kept in the cache for the levels that come again."""

import pytest
import torch
from tiny_models import TOKENS_PER_FRAME, random_latents, tiny_model
from torch import Tensor

from video_mirai.models.cache import KVCache
from video_mirai.models.modulation import MOST_SETS, Conditioning, SigmaMemory

MODEL = tiny_model()


def new_cache() -> KVCache:
    return KVCache.allocate(MODEL, 2, TOKENS_PER_FRAME, sink_frames=0, window_frames=3)


@pytest.fixture
def embeddings(monkeypatch) -> list[Tensor]:
    """Every set of levels that the model embeds."""
    seen: list[Tensor] = []
    embed = MODEL._embed_sigmas

    def record(sigmas: Tensor, dtype: torch.dtype) -> Conditioning:
        seen.append(sigmas)
        return embed(sigmas, dtype)

    monkeypatch.setattr(MODEL, "_embed_sigmas", record)
    return seen


@torch.no_grad()
def test_levels_that_come_again_are_embedded_once(embeddings):
    cache = new_cache()
    for level in (0.7, 0.3, 0.7, 0.3):
        MODEL(random_latents(1), torch.full((2, 1), level), cache=cache)
    assert len(embeddings) == 2


@torch.no_grad()
def test_a_block_reads_its_modulation_table_once_for_each_set_of_levels(monkeypatch):
    latents, cache = random_latents(1), new_cache()
    first = MODEL(latents, torch.full((2, 1), 0.7), cache=cache).velocity
    monkeypatch.setattr(MODEL.blocks[1].scale_shift_table, "data", MODEL.blocks[1].scale_shift_table.data + 1)
    assert torch.equal(MODEL(latents, torch.full((2, 1), 0.7), cache=cache).velocity, first)
    assert not torch.equal(MODEL(latents, torch.full((2, 1), 0.7), cache=new_cache()).velocity, first)


@torch.no_grad()
@pytest.mark.parametrize(
    ("levels", "computed"),
    [
        ([[0.2, 0.2], [0.2, 0.2]], (1, 1)),
        ([[0.2, 0.9], [0.2, 0.9]], (1, 2)),
        ([[0.2, 0.2], [0.9, 0.9]], (2, 2)),
    ],
)
def test_equal_rows_and_columns_are_computed_once_with_the_same_velocity(levels, computed, embeddings):
    sigmas, latents = torch.tensor(levels), random_latents(2)
    remembered = MODEL(latents, sigmas, cache=new_cache()).velocity
    assert embeddings[-1].shape == computed
    velocity = MODEL(latents, sigmas).velocity
    assert (remembered - velocity).abs().max() < 1e-6 * velocity.abs().max()


def test_gradients_reach_the_embedder_past_a_cache_that_knows_the_levels():
    cache, sigmas = new_cache(), torch.full((2, 1), 0.4)
    with torch.no_grad():
        MODEL(random_latents(1), sigmas, cache=cache)
    weight = MODEL.condition_embedder.time_proj.weight
    (gradient,) = torch.autograd.grad(MODEL(random_latents(1), sigmas, cache=cache).velocity.sum(), weight)
    assert gradient.abs().sum() > 0


@torch.no_grad()
def test_the_memory_of_levels_does_not_grow_for_ever():
    memory, computed = SigmaMemory(), []

    def compute(sigmas: Tensor) -> Conditioning:
        computed.append(float(sigmas))
        return Conditioning(sigmas, sigmas, sigmas, {})

    for number in range(3 * MOST_SETS):
        memory.recall(torch.full((1, 2), float(number)), compute)
        assert len(memory) <= MOST_SETS
    assert len(computed) == 3 * MOST_SETS
