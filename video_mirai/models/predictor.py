"""The foresight predictor: from the student's causal state to the teacher's features. Training only."""

import torch
from diffusers.models.attention import FeedForward
from einops import rearrange
from torch import Tensor, nn

from video_mirai.ops.attention import attend
from video_mirai.ops.rope import rope_factors, rotate


class ForesightPredictor(nn.Module):
    """Transformer blocks with attention inside the chunk, then a linear map to the teacher's width.

    It sees nothing but one chunk's states, so whatever it predicts of the future is in those states.
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_heads: int, num_blocks: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(student_dim)
        self.blocks = nn.ModuleList(PredictorBlock(student_dim, num_heads) for _ in range(num_blocks))
        self.norm_out = nn.LayerNorm(student_dim)
        self.proj_out = nn.Linear(student_dim, teacher_dim)

    def forward(self, hidden: Tensor, chunk_frames: int, rows: int, columns: int) -> Tensor:
        """(B, F*N, D) -> (B, F*N, D_teacher), N = rows * columns."""
        batch = hidden.shape[0]
        tokens = chunk_frames * rows * columns
        states = rearrange(self.norm_in(hidden.float()), "b (i n) d -> (b i) n d", n=tokens)  # one row per chunk
        head_dim = states.shape[-1] // self.blocks[0].num_heads if len(self.blocks) else 2
        rope = rope_factors(torch.arange(chunk_frames, device=hidden.device), rows, columns, head_dim)
        for block in self.blocks:
            states = block(states, rope)
        return rearrange(self.proj_out(self.norm_out(states)), "(b i) n d -> b (i n) d", b=batch)


class PredictorBlock(nn.Module):
    """Pre-norm attention and feed-forward (x4), each behind a learned gate that starts at zero."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = FeedForward(width, inner_dim=4 * width, activation_fn="gelu-approximate")
        self.gates = nn.Parameter(torch.zeros(2, width))

    def forward(self, states: Tensor, rope: Tensor) -> Tensor:
        """(chunks, tokens, D) -> the same."""
        query, key, value = self.to_qkv(self.norm1(states)).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        mixed = attend(rotate(query, rope), rotate(key, rope), value, None, "native")
        states = states + self.gates[0] * self.to_out(mixed.flatten(2))
        return states + self.gates[1] * self.ffn(self.norm2(states))
