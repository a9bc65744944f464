"""Shifts, scales and gates that noise levels turn into: computed once for the levels of a pass, and kept."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

MOST_SETS = 64  # of levels; a rollout has one or two for every step


class Modulation(NamedTuple):
    """Of one block, (B or 1, F or 1, 1, D) each; 1 is added to the scales."""

    shift: Tensor
    scale: Tensor
    gate: Tensor
    ffn_shift: Tensor
    ffn_scale: Tensor
    ffn_gate: Tensor

    def after(self, frames: int) -> "Modulation":
        """Of the frames after the first ones."""
        return Modulation(*(after_frames(part, frames) for part in self))


class Conditioning(NamedTuple):
    """Of a whole pass.

    Attributes:
        shift, scale: of the output layer, 1 added to the scale, (B or 1, F or 1, 1, D) each.
        of_frames: what every block makes its modulation of, (B or 1, F or 1, 6, D).
        blocks: modulations by layer (0-based), filled in by the blocks: only there are sharded weights whole.
    """

    shift: Tensor
    scale: Tensor
    of_frames: Tensor
    blocks: dict[int, Modulation]

    def after(self, frames: int) -> "Conditioning":
        """Of the frames after the first ones, for the output layer."""
        return self._replace(shift=after_frames(self.shift, frames), scale=after_frames(self.scale, frames))


def after_frames(part: Tensor, frames: int) -> Tensor:
    """Of (B, F or 1, ...), what belongs to the frames after the first ones."""
    return part if part.shape[1] == 1 else part[:, frames:]


class SigmaMemory:
    """Conditioning by noise levels, of one model; a rollout's chunks all pass through the same few."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[float, ...], ...], Conditioning] = {}

    def __len__(self) -> int:
        """Sets of levels known."""
        return len(self._known)

    def recall(self, sigmas: Tensor, compute: Callable[[Tensor], Conditioning]) -> Conditioning:
        """Of sigmas (B, F); computed for one row or column where all are the same. Without gradients."""
        assert not torch.is_grad_enabled(), "what is kept would hold on to a graph"
        rows = [tuple(row) for row in sigmas.tolist()]
        if len(set(rows)) == 1:
            rows, sigmas = rows[:1], sigmas[:1]
        if len({level for row in rows for level in row}) == 1:
            rows, sigmas = [rows[0][:1]], sigmas[:1, :1]
        key = tuple(rows)
        if key not in self._known:
            if len(self._known) == MOST_SETS:
                self._known.clear()
            self._known[key] = compute(sigmas)
        return self._known[key]
