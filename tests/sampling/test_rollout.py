from itertools import islice, pairwise

import pytest
import torch
from tiny_models import CHANNELS, HEIGHT, TEXT_DIM, TOKENS_PER_FRAME, WIDTH, random_context, random_latents, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.cache import KVCache
from video_mirai.ops.masks import chunk_causal_mask
from video_mirai.sampling import stream
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState


def settings(**changes: object) -> RolloutSettings:
    return RolloutSettings(**{"num_steps": 2, "window_frames": 4, **changes})


def generate(model, history, options, num_chunks: int, seed: int = 0, **kwargs) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat(list(islice(rollout(model, history, options, generator, **kwargs), num_chunks)), dim=1)


@pytest.mark.parametrize("chunk_frames", [1, 2, 3])
@pytest.mark.parametrize("history_frames", [0, 1, 3, 7])
def test_any_history_length_and_chunk_size_goes_on_beyond_the_window(chunk_frames, history_frames):
    frames = generate(tiny_model(), random_latents(history_frames), settings(chunk_frames=chunk_frames), num_chunks=4)
    assert frames.shape == (2, 4 * chunk_frames, CHANNELS, HEIGHT, WIDTH)
    assert torch.isfinite(frames).all() and frames.std() > 0.1


def test_same_seed_gives_the_same_video_and_another_seed_another():
    model, history = tiny_model(), random_latents(2)
    first, again, other = (generate(model, history, settings(), 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_batch_equals_each_sample_alone():
    model, history = tiny_model(), random_latents(3, batch=2)
    options = settings(history_sigma=0.1)
    batch = rollout(model, history, options, [torch.Generator().manual_seed(seed) for seed in (5, 6)])
    together = torch.cat(list(islice(batch, 4)), dim=1)
    for row, seed in enumerate((5, 6)):
        alone = rollout(model, history[row : row + 1], options, [torch.Generator().manual_seed(seed)])
        torch.testing.assert_close(together[row], torch.cat(list(islice(alone, 4)), dim=1)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rollout_equals_denoising_with_full_recompute():
    """The cache changes nothing: the same Euler steps with one masked pass over everything so far."""
    model, history = tiny_model(), random_latents(3, batch=1)
    cached = generate(model, history, settings(window_frames=20), num_chunks=3)
    generator = torch.Generator().manual_seed(0)
    frames = history
    sigmas = denoising_sigmas(2, 1.0)
    for _ in range(3):
        x = torch.randn(1, 1, CHANNELS, HEIGHT, WIDTH, generator=generator)
        past = frames.shape[1]
        mask = chunk_causal_mask(past + 1, TOKENS_PER_FRAME, 1)
        for sigma, sigma_next in pairwise(sigmas):
            levels = torch.cat([torch.zeros(1, past), sigma.expand(1, 1)], dim=1)
            velocity = model(torch.cat([frames, x], dim=1), levels, mask=mask).velocity[:, past:]
            x = x + (sigma_next - sigma) * velocity
        frames = torch.cat([frames, x], dim=1)
    torch.testing.assert_close(cached, frames[:, 3:], atol=1e-4, rtol=1e-4)


def test_a_state_goes_on_where_the_rollout_stopped():
    model, history = tiny_model(), random_latents(2)
    whole = generate(model, history, settings(), 6)
    generator, state = torch.Generator().manual_seed(0), RolloutState()
    first = list(islice(rollout(model, history, settings(), generator, state=state), 3))
    rest = list(islice(rollout(model, history[:, :0], settings(), generator, state=state), 3))
    assert torch.equal(torch.cat(first + rest, dim=1), whole)


def test_memory_is_fixed_whatever_the_horizon():
    state = RolloutState()
    stream = rollout(tiny_model(), random_latents(2), settings(), torch.Generator(), state=state)
    next(stream)
    assert isinstance(state.cache, KVCache)
    before = state.cache.num_bytes
    for _ in islice(stream, 20):
        pass
    assert state.cache.num_bytes == before and state.cache.frames == 4


def test_work_per_chunk_is_fixed_once_the_window_is_full():
    model = tiny_model(attention_backend="matmul")  # whose products the counter sees
    stream = rollout(model, random_latents(2), settings(), torch.Generator())
    flops = []
    for _ in range(12):
        with FlopCounterMode(display=False) as counter:
            next(stream)
        flops.append(counter.get_total_flops())
    filling, full = flops[1], flops[3:]  # the first chunk reads the history as well
    assert filling < full[0]
    assert len(set(full)) == 1


def test_history_noise_is_told_and_drawn_from_the_generator():
    model, history = tiny_model(), random_latents(2)
    clean, noised, again = (generate(model, history, settings(history_sigma=s), 2) for s in (0.0, 0.3, 0.3))
    assert not torch.equal(clean, noised) and torch.equal(noised, again)


def test_context_steers_the_rollout():
    model, history = tiny_model(TEXT_DIM), random_latents(2)
    one, other = (generate(model, history, settings(), 2, context=random_context(seed=s)) for s in (1, 2))
    assert not torch.equal(one, other)


def test_heun_with_many_steps_agrees_with_euler_with_very_many():
    model, history = tiny_model(), random_latents(2)
    heun = generate(model, history, settings(solver="heun", num_steps=24), 1)
    euler = generate(model, history, settings(solver="euler", num_steps=400), 1)
    assert (heun - euler).abs().mean() < 0.01


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"solver": "magic"}, "euler, heun"),
        ({"precision": "fp8"}, "fp32, bf16"),
        ({"num_steps": 0}, "at least 1"),
        ({"chunk_frames": 0}, "at least 1"),
        ({"history_sigma": 1.0}, r"\[0, 1\)"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny_model(), random_latents(1), settings(**changes), 1)


def test_as_many_generators_as_samples_are_needed():
    with pytest.raises(ValueError, match="1 generators for a batch of 2"):
        next(rollout(tiny_model(), random_latents(1), settings(), [torch.Generator()]))


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "flow_match"])
def test_what_is_yielded_can_be_trained_on(solver: str) -> None:
    frames = generate(tiny_model(), random_latents(2), settings(solver=solver), num_chunks=2)
    weight = torch.ones((), requires_grad=True)
    (frames * weight).square().sum().backward()
    assert not frames.is_inference() and weight.grad is not None


def test_sharded_weights_are_never_gathered_in_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    model, history, seen = tiny_model(), random_latents(2), []
    model.patch_embedding.register_forward_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    usual = generate(model, history, settings(), num_chunks=2)
    assert set(seen) == {True}
    seen.clear()
    monkeypatch.setattr(stream, "DTensor", torch.nn.Parameter)
    assert torch.equal(generate(model, history, settings(), num_chunks=2), usual)
    assert set(seen) == {False}
