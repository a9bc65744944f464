"""The foresight predictor: from the student's causal state to the teacher's features. Training only."""

from collections.abc import Callable

import torch
from diffusers.models.attention import FeedForward
from einops import rearrange
from torch import Tensor, nn

from video_mirai.ops.attention import attend
from video_mirai.ops.rope import rope_factors, rotate


class ForesightPredictor(nn.Module):
    """A trunk that never looks beyond one chunk, then one linear map to the teacher's width for each target.

    It sees nothing but one chunk's states, so whatever it predicts of the future is in those states.

    Args:
        kind: of the trunk, a key of TRUNKS; "none" has no maps either: the states themselves are the prediction.
        num_blocks: transformer blocks of the trunk "blocks".
        num_targets: predictions for every token, such as one per look-ahead offset.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        num_heads: int,
        num_blocks: int,
        kind: str = "blocks",
        num_targets: int = 1,
    ) -> None:
        super().__init__()
        if kind not in TRUNKS:
            raise ValueError(f"foresight.predictor={kind!r} is unknown; known: {', '.join(TRUNKS)}.")
        if kind == "none" and (student_dim != teacher_dim or num_targets != 1):
            raise ValueError(
                f"foresight.predictor=none takes the student's states ({student_dim} wide) for the teacher's features "
                f"({teacher_dim} wide), once; another width or more than one target needs a predictor."
            )
        self.trunk: nn.Module = TRUNKS[kind](student_dim, num_heads, num_blocks)
        self.heads = nn.ModuleList()
        if kind != "none":
            width = MLP_WIDTH * student_dim if kind == "mlp" else student_dim
            self.heads.extend(nn.Linear(width, teacher_dim) for _ in range(num_targets))

    def forward(self, hidden: Tensor, chunk_frames: int, rows: int, columns: int) -> Tensor:
        """(B, F*N, D) -> (B, targets, F*N, D_teacher), N = rows * columns."""
        batch = hidden.shape[0]
        tokens = chunk_frames * rows * columns
        states = rearrange(hidden.float(), "b (i n) d -> (b i) n d", n=tokens)  # one row per chunk
        states = self.trunk(states, (chunk_frames, rows, columns))
        predicted = torch.stack([head(states) for head in self.heads], 1) if len(self.heads) else states[:, None]
        return rearrange(predicted, "(b i) h n d -> b h (i n) d", b=batch)


class BlocksTrunk(nn.Module):
    """Transformer blocks with attention inside the chunk."""

    def __init__(self, width: int, num_heads: int, num_blocks: int) -> None:
        super().__init__()
        if num_blocks < 1:
            raise ValueError(f"foresight.predictor_blocks={num_blocks}: take 1 or more, or foresight.predictor=linear.")
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(PredictorBlock(width, num_heads) for _ in range(num_blocks))
        self.norm_out = nn.LayerNorm(width)
        self.head_dim = width // num_heads

    def forward(self, states: Tensor, chunk_shape: tuple[int, int, int]) -> Tensor:
        """(chunks, tokens, D) -> the same; chunk_shape: frames, rows, columns."""
        frames, rows, columns = chunk_shape
        rope = rope_factors(torch.arange(frames, device=states.device), rows, columns, self.head_dim)
        states = self.norm_in(states)
        for block in self.blocks:
            states = block(states, rope)
        return self.norm_out(states)


class TokenTrunk(nn.Module):
    """The same layers for every token by itself."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, states: Tensor, chunk_shape: tuple[int, int, int]) -> Tensor:
        """(chunks, tokens, D) -> (chunks, tokens, D_out)."""
        return self.layers(states)


def make_mlp(width: int, num_heads: int, num_blocks: int) -> TokenTrunk:
    """Two hidden layers of MLP_WIDTH x the student's width (as in REPA, arXiv 2410.06940); the head is the third."""
    wide = MLP_WIDTH * width
    return TokenTrunk(nn.LayerNorm(width), nn.Linear(width, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())


MLP_WIDTH = 2

TRUNKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "none": lambda width, num_heads, num_blocks: TokenTrunk(),
    "linear": lambda width, num_heads, num_blocks: TokenTrunk(nn.LayerNorm(width)),
    "mlp": make_mlp,
    "blocks": BlocksTrunk,
}


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
