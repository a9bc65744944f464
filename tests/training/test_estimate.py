"""Costs are counted, so they can be checked against a counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.predictor import ForesightPredictor
from video_mirai.training.estimate import forward_flops, predictor_flops, readable, size_of


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


@pytest.mark.parametrize("kind", ["linear", "mlp", "blocks"])
def test_predictor_flops_are_those_that_torch_counts(kind: str) -> None:
    with torch.device("meta"):
        predictor = ForesightPredictor(32, 48, num_heads=2, num_blocks=2, kind=kind, num_targets=3)
        hidden = torch.zeros(1, 6 * 4, 32)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            predictor(hidden, 2, 2, 2)
    assert predictor_flops(predictor, tokens=24, chunk_tokens=8) == counter.get_total_flops()


def test_readable_numbers_have_three_digits_and_a_unit() -> None:
    assert [readable(number) for number in (12, 1234, 1.234e9)] == ["12 ", "1.23 k", "1.23 G"]
