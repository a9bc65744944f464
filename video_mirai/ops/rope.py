"""Rotary positions on the (time, row, column) grid, as Wan 2.1 splits them."""

import torch
from torch import Tensor


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's numbers turn with time, row and column (Wan 2.1: a third each, time takes the rest)."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def rope_factors(positions: Tensor, rows: int, columns: int, head_dim: int, theta: float = 10_000.0) -> Tensor:
    """Unit complex factors exp(i angle) for every token of frames at the given temporal positions.

    Computed from the positions themselves, so there is no table that could run out.

    Args:
        positions: (F,) temporal positions, in frames.

    Returns:
        (F * rows * columns, head_dim / 2) complex64, one per pair of neighbouring numbers.
    """
    time_dim, row_dim, column_dim = axis_dims(head_dim)
    device = positions.device
    time = _angles(positions, time_dim, theta)[:, None, None, :]
    row = _angles(torch.arange(rows, device=device), row_dim, theta)[None, :, None, :]
    column = _angles(torch.arange(columns, device=device), column_dim, theta)[None, None, :, :]
    grid = (len(positions), rows, columns, -1)
    angles = torch.cat([time.expand(grid), row.expand(grid), column.expand(grid)], dim=-1).flatten(0, 2)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)  # (F*N, head_dim / 2)


def rotate(x: Tensor, factors: Tensor) -> Tensor:
    """Turn every pair of neighbouring numbers of x by its angle, as one complex multiplication in fp32.

    Args:
        x: (B, L, heads, head_dim).
        factors: (L, head_dim / 2) complex; or (L, head_dim / 2, 2), the same as real numbers.
    """
    if not factors.is_complex():
        return rotate_real(x, factors)
    if torch.compiler.is_compiling():
        return rotate_real(x, torch.view_as_real(factors))
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * factors[:, None]).flatten(-2).to(x.dtype)  # one factor for all heads


def rotate_real(x: Tensor, factors: Tensor) -> Tensor:
    """The same in real numbers, factors (L, head_dim / 2, 2), because torch.compile makes no code for complex ones."""
    real, imaginary = factors[:, None].unbind(-1)
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([first * real - second * imaginary, first * imaginary + second * real], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _angles(positions: Tensor, dim: int, theta: float) -> Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    return positions.to(torch.float64)[:, None] * theta**-exponents  # (positions, dim / 2)
