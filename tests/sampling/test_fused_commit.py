"""One pass that commits a chunk and begins the next, against a pass for each."""

from itertools import islice

import pytest
import torch
from tiny_models import TEXT_DIM, TOKENS_PER_FRAME, random_context, random_latents, random_sigmas, tiny_model
from torch import Tensor

from video_mirai.models.cache import KVCache
from video_mirai.sampling.guidance import GuidanceConfig
from video_mirai.sampling.rollout import RolloutSettings, rollout


def generate(model, settings: RolloutSettings, history_frames: int, num_chunks: int, context=None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    chunks = rollout(model, random_latents(history_frames), settings, generator, context=context)
    return torch.cat(list(islice(chunks, num_chunks)), dim=1)


@pytest.mark.parametrize("history_frames", [0, 1, 7])
@pytest.mark.parametrize("chunk_frames", [1, 2, 3])
@pytest.mark.parametrize("sink_frames", [0, 2])
def test_fused_equals_unfused_before_and_after_eviction(sink_frames, chunk_frames, history_frames):
    model = tiny_model()
    fused, apart = (
        generate(
            model,
            RolloutSettings(
                num_steps=2,
                chunk_frames=chunk_frames,
                window_frames=3,
                sink_frames=sink_frames,
                history_sigma=0.1,
                fuse_commit=fuse,
            ),
            history_frames,
            num_chunks=6,
        )
        for fuse in (True, False)
    )
    assert (fused - apart).abs().max() < 1e-5 * apart.abs().max()


@pytest.mark.parametrize("solver", ["heun", "unipc", "flow_match"])
def test_every_solver_fuses_its_first_step(solver):
    options = {"num_steps": 3, "window_frames": 2, "solver": solver}
    fused, apart = (
        generate(tiny_model(), RolloutSettings(**options, fuse_commit=fuse), 2, 4) for fuse in (True, False)
    )
    assert (fused - apart).abs().max() < 1e-5 * apart.abs().max()


@pytest.mark.parametrize("per_frame", [False, True])
def test_contexts_that_change_from_chunk_to_chunk_fuse_exactly(per_frame):
    def context_of(first: int, count: int) -> Tensor:
        frames = [random_context(seed=10 + first + offset) for offset in range(count)]
        return torch.stack(frames, dim=1) if per_frame else frames[0]

    model = tiny_model(TEXT_DIM)
    options = {"num_steps": 2, "chunk_frames": 2, "window_frames": 3, "guidance": GuidanceConfig(context_scale=2.0)}
    fused, apart = (
        generate(model, RolloutSettings(**options, fuse_commit=fuse), 3, 4, context_of) for fuse in (True, False)
    )
    assert (fused - apart).abs().max() < 1e-5 * apart.abs().max()


def test_a_fused_rollout_takes_one_pass_less_for_every_chunk(monkeypatch):
    model = tiny_model()
    passes = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: passes.append(1) or forward(*args, **kwargs))
    counts = []
    for fuse in (True, False):
        passes.clear()
        generate(model, RolloutSettings(num_steps=4, window_frames=3, fuse_commit=fuse), 0, 10)
        counts.append(len(passes))
    assert counts == [4 * 10, 5 * 10 - 1]  # the last chunk waits to be committed


@torch.no_grad()
def test_the_second_part_of_a_fused_pass_sees_the_sink_where_the_commit_puts_it():
    """With a sink and a full window both parts see the same sink at different distances; approximating shows."""
    model, latents, sigmas = tiny_model(), random_latents(8), random_sigmas(8)
    caches = [KVCache.allocate(model, 2, TOKENS_PER_FRAME, sink_frames=1, window_frames=3) for _ in range(2)]
    for cache in caches:
        for frame in range(6):
            model(latents[:, frame : frame + 1], sigmas[:, frame : frame + 1], cache=cache, commit_frames=1)
    first = model(latents[:, 6:7], sigmas[:, 6:7], cache=caches[0], commit_frames=1).velocity
    second = model(latents[:, 7:], sigmas[:, 7:], cache=caches[0]).velocity
    both = model(latents[:, 6:], sigmas[:, 6:], cache=caches[1], commit_frames=1, commit_first=True).velocity
    torch.testing.assert_close(both, torch.cat([first, second], dim=1), atol=1e-5, rtol=1e-5)
    for held, expected in zip(*(cache.layers[0].read(4 * TOKENS_PER_FRAME) for cache in reversed(caches)), strict=True):
        torch.testing.assert_close(held, expected, atol=1e-5, rtol=1e-5)


def test_a_commit_that_comes_first_takes_no_mask_and_needs_frames():
    model = tiny_model()
    cache = KVCache.allocate(model, 2, TOKENS_PER_FRAME, sink_frames=0, window_frames=3)
    with pytest.raises(ValueError, match="neither mask nor positions"):
        model(random_latents(2), random_sigmas(2), cache=cache, commit_first=True)


@torch.no_grad()
@pytest.mark.parametrize("context_shape", [None, "one", "per_frame"])
def test_frames_that_are_only_committed_can_be_left_out_of_the_answer(context_shape):
    model = tiny_model(None if context_shape is None else TEXT_DIM)
    context = {
        None: None,
        "one": random_context(),
        "per_frame": torch.stack([random_context(seed=seed) for seed in range(3)], dim=1),
    }[context_shape]
    latents, sigmas = random_latents(3), random_sigmas(3)
    every, after = (new_cache(model) for _ in range(2))
    expected = model(latents, sigmas, context, cache=every, commit_frames=2, commit_first=True).velocity
    velocity = model(
        latents, sigmas, context, cache=after, commit_frames=2, commit_first=True, after_commit=True
    ).velocity
    assert velocity.shape == expected[:, 2:].shape
    assert (velocity - expected[:, 2:]).abs().max() < 1e-6 * expected.abs().max()
    assert same_state(every, after)


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", ["velocity", "data"])
def test_a_commit_of_all_frames_answers_with_none(prediction_type):
    model = tiny_model(TEXT_DIM, prediction_type=prediction_type)
    latents, sigmas, context = random_latents(2), random_sigmas(2), random_context()
    every, after = (new_cache(model) for _ in range(2))
    model(latents, sigmas, context, cache=every, commit_frames=2)
    output = model(latents, sigmas, context, cache=after, commit_frames=2, after_commit=True)
    assert output.velocity.shape == (len(latents), 0, *latents.shape[2:])
    assert same_state(every, after)


def test_leaving_out_committed_frames_that_others_see_is_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match="after_commit goes with commit_first"):
        model(random_latents(2), random_sigmas(2), cache=new_cache(model), commit_frames=1, after_commit=True)


def new_cache(model) -> KVCache:
    return KVCache.allocate(model, 2, TOKENS_PER_FRAME, sink_frames=1, window_frames=3)


def same_state(one: KVCache, other: KVCache) -> bool:
    expected = other.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in one.state_dict().items())
