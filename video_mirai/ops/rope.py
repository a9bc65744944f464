"""Rotary positions on the (time, row, column) grid, as Wan 2.1 splits them."""

import torch
from torch import Tensor


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's numbers turn with time, row and column (Wan 2.1: a third each, time takes the rest)."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def rope_angles(
    positions: Tensor, rows: int, columns: int, head_dim: int, theta: float = 10_000.0
) -> tuple[Tensor, Tensor]:
    """Cosine and sine for every token of frames at the given temporal positions.

    Computed from the positions themselves, so there is no table that could run out.

    Args:
        positions: (F,) temporal positions, in frames.

    Returns:
        cos, sin: (F * rows * columns, head_dim / 2) float32, one per pair of neighbouring numbers.
    """
    time_dim, row_dim, column_dim = axis_dims(head_dim)
    time = _angles(positions, time_dim, theta)[:, None, None, :].expand(-1, rows, columns, -1)
    device = positions.device
    row = _angles(torch.arange(rows, device=device), row_dim, theta)[None, :, None, :]
    column = _angles(torch.arange(columns, device=device), column_dim, theta)[None, None, :, :]
    grid = (len(positions), rows, columns, -1)
    angles = torch.cat([time, row.expand(grid), column.expand(grid)], dim=-1).flatten(0, 2)
    return angles.cos().float(), angles.sin().float()  # (F*N, head_dim / 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn every pair of neighbouring numbers of x by its angle.

    Args:
        x: (B, L, heads, head_dim).
        cos, sin: (L, head_dim / 2), or (B, L, head_dim / 2).
    """
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # one angle for all heads
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _angles(positions: Tensor, dim: int, theta: float) -> Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    return positions.to(torch.float64)[:, None] * theta**-exponents  # (positions, dim / 2)
