"""Costs are counted, so they can be checked against a counter."""

import pytest
import torch
from tiny_models import TEXT_DIM, TOKENS_PER_FRAME, random_context, random_latents, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.predictor import ForesightPredictor
from video_mirai.sampling.guidance import GuidanceConfig
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState
from video_mirai.training.estimate import forward_flops, predictor_flops, readable, rollout_cost, size_of


@pytest.mark.parametrize("text_dim", [None, 24])
def test_forward_flops_are_those_that_torch_counts(text_dim: int | None) -> None:
    with torch.device("meta"):
        model = CausalVideoDiT(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            text_dim=text_dim,
            freq_dim=32,
            ffn_dim=96,
            num_layers=3,
        )
        latents, sigmas = torch.zeros(1, 5, 4, 8, 8), torch.zeros(1, 5)
        context = None if text_dim is None else torch.zeros(1, 7, text_dim)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(latents, sigmas, context)
    ours = forward_flops(size_of(model), tokens=5 * 16, frames=5, context_tokens=0 if text_dim is None else 7)
    assert ours == counter.get_total_flops()


@pytest.mark.parametrize("text_dim", [None, TEXT_DIM])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"solver": "heun", "fuse_commit": False},
        {"solver": "unipc", "guidance": GuidanceConfig(history_scale=2.0), "precision": "bf16"},
    ],
)
def test_rollout_flops_and_cache_bytes_are_those_of_a_rollout_whose_window_is_full(
    text_dim: int | None, changes: dict
) -> None:
    model = tiny_model(text_dim, attention_backend="matmul")  # torch does not count the fused kernel of CPUs
    settings = RolloutSettings(num_steps=3, chunk_frames=2, window_frames=3, sink_frames=1, **changes)
    context = None if text_dim is None else random_context(1)
    state = RolloutState()
    chunks = rollout(model, random_latents(6, 1), settings, torch.Generator(), context=context, state=state)
    next(chunks)
    with FlopCounterMode(display=False) as counter:
        next(chunks)
    cost = rollout_cost(model, settings, TOKENS_PER_FRAME, 0 if context is None else context.shape[1])
    combining = 1e-4 if "guidance" in changes else 0  # the views' velocities: a product that is no network's
    assert cost.flops_per_frame == pytest.approx(counter.get_total_flops() / 2, rel=combining)
    assert state.cache is not None and cost.cache_bytes == state.cache.num_bytes


def test_predictor_flops_are_those_that_torch_counts() -> None:
    with torch.device("meta"):
        predictor = ForesightPredictor(student_dim=32, teacher_dim=48, num_heads=2, num_blocks=2)
        hidden = torch.zeros(1, 6 * 4, 32)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            predictor(hidden, 2, 2, 2)
    assert predictor_flops(32, 48, 2, tokens=24, chunk_tokens=8) == counter.get_total_flops()


def test_readable_numbers_have_three_digits_and_a_unit() -> None:
    assert [readable(number) for number in (12, 1234, 1.234e9)] == ["12 ", "1.23 k", "1.23 G"]
