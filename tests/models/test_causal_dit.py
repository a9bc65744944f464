import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny_models import (
    HEIGHT,
    NUM_LAYERS,
    TEXT_DIM,
    TOKENS_PER_FRAME,
    WIDTH,
    random_context,
    random_latents,
    random_sigmas,
    tiny_model,
    wan_arguments,
)

from video_mirai.models.cache import KVCache
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.ops.attention import CPU_BACKENDS
from video_mirai.ops.masks import chunk_causal_mask


@pytest.mark.parametrize("shape", [(1, 1, 4, 8, 8), (2, 5, 4, 8, 6), (3, 3, 4, 4, 10)])
@torch.no_grad()
def test_full_mask_and_one_timestep_equal_wan(shape):
    torch.manual_seed(0)
    wan = WanTransformer3DModel(**wan_arguments(TEXT_DIM)).eval()
    ours = CausalVideoDiT(**wan_arguments(TEXT_DIM)).eval()
    ours.load_state_dict(wan.state_dict(), strict=True)
    latents, context = torch.randn(shape), torch.randn(shape[0], 7, TEXT_DIM)
    timesteps = torch.linspace(10.0, 990.0, shape[0])
    reference = wan(latents.transpose(1, 2), timesteps, context).sample.transpose(1, 2)
    sigmas = (timesteps / 1000)[:, None].expand(shape[:2])
    velocity = ours(latents, sigmas, context).velocity
    assert (velocity - reference).abs().max() < 1e-5 * reference.abs().max()


def test_loads_a_wan_checkpoint_saved_by_diffusers(tmp_path):
    wan = WanTransformer3DModel(**wan_arguments(TEXT_DIM))
    wan.save_pretrained(tmp_path)
    ours = CausalVideoDiT.from_pretrained(tmp_path)
    for name, weight in wan.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight)


def test_without_text_there_are_no_text_parameters():
    names = tiny_model().state_dict().keys()
    assert not [name for name in names if "text_embedder" in name or "attn2" in name or "norm2" in name]


@pytest.mark.parametrize("text_dim", [None, TEXT_DIM])
@pytest.mark.parametrize("chunk_frames", [1, 2, 3])
@pytest.mark.parametrize("backend", [name for name in CPU_BACKENDS if name != "flex"])
def test_gradient_with_respect_to_later_chunks_is_exactly_zero(text_dim, chunk_frames, backend):
    frames = 6
    model = tiny_model(text_dim, attention_backend=backend)
    latents = random_latents(frames).requires_grad_()
    context = random_context() if text_dim else None
    mask = chunk_causal_mask(frames, TOKENS_PER_FRAME, chunk_frames)
    velocity = model(latents, random_sigmas(frames), context, mask=mask).velocity
    velocity[:, :chunk_frames].square().sum().backward()
    assert latents.grad[:, :chunk_frames].abs().max() > 0
    assert torch.count_nonzero(latents.grad[:, chunk_frames:]) == 0


def test_without_a_mask_the_future_does_reach_the_past():
    latents = random_latents(4).requires_grad_()
    tiny_model()(latents, random_sigmas(4)).velocity[:, 0].square().sum().backward()
    assert latents.grad[:, -1].abs().max() > 0


@pytest.mark.parametrize("text_dim", [None, TEXT_DIM])
@pytest.mark.parametrize("chunk_frames", [1, 2, 3])
@pytest.mark.parametrize("window_frames", [12, 6, 3])
@torch.no_grad()
def test_cached_passes_equal_one_masked_pass_before_and_after_eviction(text_dim, chunk_frames, window_frames):
    frames = 12
    model = tiny_model(text_dim)
    latents, sigmas = random_latents(frames), random_sigmas(frames)
    context = random_context() if text_dim else None
    mask = chunk_causal_mask(frames, TOKENS_PER_FRAME, chunk_frames, window_frames=window_frames)
    whole = model(latents, sigmas, context, mask=mask).velocity
    cache = KVCache.allocate(model, 2, TOKENS_PER_FRAME, sink_frames=0, window_frames=window_frames)
    pieces = []
    for start in range(0, frames, chunk_frames):
        chunk = slice(start, start + chunk_frames)
        model(latents[:, chunk], sigmas[:, chunk], context, cache=cache)  # a read-only pass leaves no trace
        pieces.append(model(latents[:, chunk], sigmas[:, chunk], context, cache=cache, commit_frames=chunk_frames))
    cached = torch.cat([piece.velocity for piece in pieces], dim=1)
    assert (cached - whole).abs().max() < 1e-5 * whole.abs().max()


@torch.no_grad()
def test_one_call_may_commit_a_clean_chunk_and_denoise_the_next():
    model = tiny_model()
    latents, sigmas = random_latents(4), random_sigmas(4)
    apart, together = (KVCache.allocate(model, 2, TOKENS_PER_FRAME, 0, 8) for _ in range(2))
    for cache in (apart, together):
        model(latents[:, :2], sigmas[:, :2], cache=cache, commit_frames=2)
    model(latents[:, 2:3], sigmas[:, 2:3], cache=apart, commit_frames=1)
    expected = model(latents[:, 3:], sigmas[:, 3:], cache=apart).velocity
    mask = chunk_causal_mask(4, TOKENS_PER_FRAME, 1)[2 * TOKENS_PER_FRAME :]
    velocity = model(latents[:, 2:], sigmas[:, 2:], mask=mask, cache=together, commit_frames=1).velocity
    torch.testing.assert_close(velocity[:, 1:], expected, atol=1e-5, rtol=1e-5)
    assert together.frames_seen == apart.frames_seen == 3


@torch.no_grad()
def test_mask_columns_of_the_cache_are_read_in_temporal_order_after_eviction():
    """Hiding the oldest held frame with a mask equals a window that is one frame shorter (one layer)."""
    model = CausalVideoDiT(**{**wan_arguments(), "num_layers": 1}).eval()
    latents, sigmas = random_latents(6), random_sigmas(6)
    velocities = []
    for window_frames in (3, 2):
        cache = KVCache.allocate(model, 2, TOKENS_PER_FRAME, sink_frames=0, window_frames=window_frames)
        for frame in range(5):
            model(latents[:, frame : frame + 1], sigmas[:, frame : frame + 1], cache=cache, commit_frames=1)
        visible = torch.arange(window_frames + 1) >= window_frames - 2
        mask = visible.repeat_interleave(TOKENS_PER_FRAME).expand(TOKENS_PER_FRAME, -1)
        velocities.append(model(latents[:, 5:], sigmas[:, 5:], mask=mask, cache=cache).velocity)
    torch.testing.assert_close(*velocities, atol=1e-5, rtol=1e-5)


def test_hidden_states_are_captured_by_layer_and_causal():
    model = tiny_model()
    latents = random_latents(4).requires_grad_()
    mask = chunk_causal_mask(4, TOKENS_PER_FRAME, 1)
    hidden = model(latents, random_sigmas(4), mask=mask, capture=(1, NUM_LAYERS)).hidden
    assert hidden.keys() == {1, NUM_LAYERS}
    assert hidden[1].shape == (2, 4 * TOKENS_PER_FRAME, 72)
    hidden[NUM_LAYERS][:, :TOKENS_PER_FRAME].sum().backward()
    assert torch.count_nonzero(latents.grad[:, 1:]) == 0


@torch.no_grad()
def test_autocast_leaves_the_residual_stream_in_fp32():
    model, latents, sigmas = tiny_model(), random_latents(4), random_sigmas(4)
    exact = model(latents, sigmas, capture=[NUM_LAYERS]).hidden[NUM_LAYERS]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(latents, sigmas, capture=[NUM_LAYERS]).hidden[NUM_LAYERS]
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, rounded.bfloat16().float())  # it was not bf16 in between either
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()


def test_context_per_frame_reaches_its_own_frame_only():
    model = tiny_model(TEXT_DIM)
    context = torch.stack([random_context(seed=seed) for seed in range(3)], dim=1)  # (B, F, L, D_text)
    mask = chunk_causal_mask(3, TOKENS_PER_FRAME, 1)
    latents, sigmas = random_latents(3), random_sigmas(3)
    before = model(latents, sigmas, context, mask=mask).velocity
    context[:, 2] += 1.0
    after = model(latents, sigmas, context, mask=mask).velocity
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.equal(before[:, 2], after[:, 2])


@torch.no_grad()
def test_a_context_repeated_per_frame_equals_one_for_all():
    model = tiny_model(TEXT_DIM)
    context, latents, sigmas = random_context(), random_latents(3), random_sigmas(3)
    repeated = context[:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        model(latents, sigmas, repeated).velocity, model(latents, sigmas, context).velocity, atol=1e-5, rtol=1e-5
    )


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(random_latents(3), random_sigmas(3)).velocity.square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def test_checkpointing_never_writes_the_cache_twice():
    model = tiny_model()
    model.enable_gradient_checkpointing()
    cache = KVCache.allocate(model, 2, TOKENS_PER_FRAME, 0, 4)
    with torch.enable_grad():
        output = model(random_latents(1).requires_grad_(), random_sigmas(1), cache=cache, commit_frames=1)
        output.velocity.sum().backward()
    assert cache.frames_seen == 1


@torch.no_grad()
def test_data_prediction_points_its_velocity_at_the_predicted_data():
    model = tiny_model(prediction_type="data")
    latents = random_latents(2)
    sigmas = torch.full((2, 2), 0.5)
    data = latents - 0.5 * model(latents, sigmas).velocity
    raw = tiny_model(prediction_type="velocity")(latents, sigmas).velocity
    torch.testing.assert_close(data, raw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: m(torch.zeros(1, 2, 5, HEIGHT, WIDTH), torch.zeros(1, 2)), r"expected \(B, F, 4, H, W\)"),
        (lambda m: m(random_latents(2), torch.zeros(2)), r"sigmas: expected \(2, 2\)"),
        (lambda m: m(random_latents(2), random_sigmas(2), random_context()), "takes no context"),
        (lambda m: m(random_latents(2), random_sigmas(2), commit_frames=1), "needs a cache"),
        (lambda m: m(random_latents(2), random_sigmas(2), capture=(0,)), "layers go from 1 to 3"),
        (lambda m: m(torch.zeros(1, 1, 4, 7, 6), torch.zeros(1, 1)), "do not divide into 2x2 patches"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_model())


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"patch_size": (2, 2, 2)}, "one sigma each"),
        ({"image_dim": 8}, "image-to-video"),
        ({"prediction_type": "noise"}, "velocity, data"),
    ],
)
def test_models_that_cannot_be_causal_are_refused(extra, message):
    with pytest.raises(ValueError, match=message):
        CausalVideoDiT(**{**wan_arguments(), **extra})
