import pytest
import torch
from tiny_models import TOKENS_PER_FRAME, random_latents, random_sigmas, tiny_model

from video_mirai.models.cache import KVCache
from video_mirai.models.layer_cache import LayerCache


def held_frames(sink: int, window: int, commits: list[int]) -> tuple[list[int], KVCache]:
    """Commit frames numbered 0, 1, 2, ...; which numbers are held, in temporal order."""
    with_room = (1, 1, sink + window + 1, 2)
    layer = LayerCache(torch.zeros(1, 1, sink + window, 2), torch.zeros(with_room), torch.zeros(with_room))
    cache = KVCache([layer], 1, sink)
    for count in commits:
        numbers = torch.arange(cache.frames_seen, cache.frames_seen + count, dtype=torch.float32)
        keys = numbers[None, :, None, None].expand(1, -1, 1, 2)
        commit = cache.plan_commit(count, 1, 1)
        layer.write(keys, keys, commit)
        cache.advance(commit)
    order = cache.slot_positions().argsort()
    return layer.read(cache.frames)[1][0, order, 0, 0].int().tolist(), cache


@pytest.mark.parametrize(
    "sink, window, commits, expected",
    [
        (0, 4, [1, 1], [0, 1]),
        (0, 4, [1] * 9, [5, 6, 7, 8]),
        (0, 4, [3, 3, 3], [5, 6, 7, 8]),
        (0, 4, [11], [7, 8, 9, 10]),
        (2, 3, [1] * 9, [0, 1, 6, 7, 8]),
        (2, 3, [4, 4, 1], [0, 1, 6, 7, 8]),
        (2, 3, [9], [0, 1, 6, 7, 8]),
        (2, 0, [5], [0, 1]),
    ],
)
def test_sink_and_newest_frames_are_held(sink, window, commits, expected):
    held, cache = held_frames(sink, window, commits)
    assert held == expected
    assert cache.frames == len(expected)


def test_positions_stay_bounded_for_any_horizon():
    _, cache = held_frames(1, 3, [1] * 1000)
    assert sorted(cache.slot_positions().tolist()) == [0, 1, 2, 3]


@torch.no_grad()
def test_memory_does_not_grow_with_the_number_of_frames():
    model = tiny_model()
    cache = KVCache.allocate(model, 2, TOKENS_PER_FRAME, sink_frames=1, window_frames=2)
    before = cache.num_bytes
    for _ in range(10):
        model(random_latents(1), random_sigmas(1), cache=cache, commit_frames=1)
    assert cache.num_bytes == before and cache.frames == 3 and cache.frames_seen == 10


def test_a_cache_without_room_is_refused():
    with pytest.raises(ValueError, match="needs room"):
        KVCache.allocate(tiny_model(), 1, TOKENS_PER_FRAME, sink_frames=0, window_frames=0)
