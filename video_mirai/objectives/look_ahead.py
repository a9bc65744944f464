"""Which of a teacher's features a chunk has to predict: offsets in time and neighbours on the space-time grid."""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor


class Offset(NamedTuple):
    """From a token to the one whose features are its target: chunks ahead, rows down, columns to the right."""

    chunks: int
    rows: int = 0
    columns: int = 0


class ForesightTargets(NamedTuple):
    """What the predictor's heads are held against.

    targets (B, heads, num_chunks, tokens, D_teacher); valid (heads, num_chunks, tokens) bool: tokens that have one;
    scale: where the weight of the loss stands in its schedule, 1 at its peak.
    """

    targets: Tensor
    valid: Tensor
    scale: float = 1.0

    def first_chunks(self, count: int) -> "ForesightTargets":
        """Those of the first `count` chunks."""
        return ForesightTargets(self.targets[:, :, :count], self.valid[:, :count], self.scale)


def look_ahead_targets(features: Tensor, window: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean over the valid offsets of the features ahead: T_i = mean_{d in window, i + d < num_chunks} H_{i+d}.

    Args:
        features: (B, num_chunks, tokens, D).
        window: offsets in chunks, at least one, none negative, none twice.

    Returns:
        targets like features, without gradient, zero where there is none; valid (num_chunks,) bool.
    """
    num_chunks = features.shape[1]
    check_window(window, num_chunks)
    total = torch.zeros_like(features)
    count = torch.zeros(num_chunks, device=features.device)
    for offset in window:
        ahead = max(num_chunks - offset, 0)
        total[:, :ahead] += features[:, offset:]
        count[:ahead] += 1
    targets = total / count.clamp_min(1)[None, :, None, None].to(features.dtype)
    return targets.detach(), count > 0


def offset_targets(features: Tensor, offset: Offset) -> tuple[Tensor, Tensor]:
    """The features one offset away. Tokens whose target would lie outside the clip or the frame have none.

    Args:
        features: (B, num_chunks, chunk_frames, rows, columns, D).

    Returns:
        targets like features, without gradient, zero where there is none; valid, their first axis and last left out.
    """
    targets = torch.zeros_like(features)
    valid = torch.zeros(features.shape[1:5], dtype=torch.bool, device=features.device)
    (to_i, from_i), (to_r, from_r), (to_c, from_c) = (
        _overlap(size, shift) for size, shift in zip((features.shape[1], *features.shape[3:5]), offset, strict=True)
    )
    targets[:, to_i, :, to_r, to_c] = features[:, from_i, :, from_r, from_c]
    valid[to_i, :, to_r, to_c] = True
    return targets.detach(), valid


def fused_targets(
    features: Tensor, window: tuple[int, ...], chunk_frames: int, rows: int, neighbours: int, *, fuse: str
) -> ForesightTargets:
    """Targets of every head, from features (B, F, N, D) of frames with `rows` rows of tokens.

    Args:
        fuse: "mean": one head for the mean over the window. "heads": one for each of `head_offsets`.
    """
    chunks = rearrange(features, "b (i c) n d -> b i (c n) d", c=chunk_frames)
    if fuse == "mean":
        targets, valid = look_ahead_targets(chunks, window)
        return ForesightTargets(targets[:, None], valid[None, :, None].expand(1, -1, chunks.shape[2]))
    check_window(window, chunks.shape[1])
    grid = rearrange(features, "b (i c) (r k) d -> b i c r k d", c=chunk_frames, r=rows)
    heads = [offset_targets(grid, offset) for offset in head_offsets(window, neighbours)]
    return ForesightTargets(
        torch.stack([targets.flatten(2, 4) for targets, _ in heads], dim=1),
        torch.stack([valid.flatten(1) for _, valid in heads]),
    )


def head_offsets(window: tuple[int, ...], neighbours: int) -> list[Offset]:
    """The window's own offsets, then the nearest positions around them: for each its head.

    Neighbours lie in the window's chunks at another row or column; near is the Euclidean distance with a chunk, a row
    and a column counting 1 each, and of equally near ones the earlier chunk, upper row, left column comes first.
    """
    radius = math.ceil(math.sqrt(neighbours))  # a circle that holds more than so many positions
    reach = range(-radius, radius + 1)
    around = [Offset(ahead, row, column) for ahead in window for row in reach for column in reach if row or column]
    around.sort(key=lambda offset: (sum(step**2 for step in offset), offset))
    return [Offset(ahead) for ahead in window] + around[:neighbours]


def check_window(window: tuple[int, ...], num_chunks: int) -> None:
    """ValueError unless there are offsets, none negative, none twice, and one of them stays inside the clip."""
    if not window or min(window) < 0 or len(set(window)) != len(window):
        raise ValueError(f"window={tuple(window)}: give at least one look-ahead offset, none negative, none twice.")
    if min(window) >= num_chunks:
        raise ValueError(
            f"window={tuple(window)} looks past a clip of {num_chunks} chunks; every chunk lacks a target."
        )


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """(positions p, positions p + shift) of an axis, for all p for which both are on it."""
    count = max(0, size - abs(shift))
    return slice(max(0, -shift), max(0, -shift) + count), slice(max(0, shift), max(0, shift) + count)
