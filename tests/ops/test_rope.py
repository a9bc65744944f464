import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from video_mirai.ops.rope import axis_dims, rope_factors, rotate, rotate_real


def test_factors_equal_wans_tables():
    frames, rows, columns, head_dim = 5, 4, 3, 24
    cos, sin = WanRotaryPosEmbed(head_dim, (1, 1, 1), 64)(torch.zeros(1, 1, frames, rows, columns))
    factors = rope_factors(torch.arange(frames), rows, columns, head_dim)
    torch.testing.assert_close(factors.real, cos[0, :, 0, ::2].float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(factors.imag, sin[0, :, 0, 1::2].float(), atol=1e-6, rtol=0)


def test_head_is_split_as_wan_does():
    assert axis_dims(128) == (44, 42, 42)


def test_scores_depend_on_relative_time_only():
    query, key = torch.randn(2, 1, 1, 24, generator=torch.Generator().manual_seed(0)).unsqueeze(1)

    def score(query_time: int, key_time: int) -> torch.Tensor:
        turned = [
            rotate(x, rope_factors(torch.tensor([time]), 1, 1, 24))
            for x, time in ((query, query_time), (key, key_time))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(5, 2), score(1005, 1002), atol=1e-5, rtol=0)
    assert (score(5, 2) - score(5, 3)).abs() > 1e-3


def test_positions_far_beyond_any_table_work():
    assert torch.isfinite(torch.view_as_real(rope_factors(torch.tensor([10**7]), 2, 2, 24))).all()


def test_real_arithmetic_turns_as_complex_does():
    x = torch.randn(2, 6, 3, 24, generator=torch.Generator().manual_seed(0))
    factors = rope_factors(torch.arange(3), 1, 2, 24)
    torch.testing.assert_close(rotate_real(x, torch.view_as_real(factors)), rotate(x, factors), atol=1e-6, rtol=1e-6)
