"""One layer's keys and values of past frames, in buffers that never move."""

from typing import NamedTuple

import torch
from torch import Tensor

from video_mirai.ops.rope import rotate


class Commit(NamedTuple):
    """What taking in the next frames means, the same for every layer.

    Attributes:
        num_frames: frames taken in, those that the window has no room for included.
        kept: which of these frames are held afterwards.
        held_frames: frames held afterwards.
        slots: where the kept frames' tokens go, (len(kept) * N,).
        factors: rotation of every slot afterwards, (held_frames * N, head_dim / 2) complex, or pairs of real numbers.
    """

    num_frames: int
    kept: tuple[int, ...]
    held_frames: int
    slots: Tensor
    factors: Tensor


class LayerCache(NamedTuple):
    """Un-rotated keys of the frames held; and rotated keys and values, with room for those of the present pass.

    Attributes:
        keys: (B, heads, capacity * N, head_dim).
        rotated, values: (B, heads, (capacity + room) * N, head_dim).
    """

    keys: Tensor
    rotated: Tensor
    values: Tensor

    def read(self, held_tokens: int) -> tuple[Tensor, Tensor]:
        """Rotated keys and values, (B, held, heads, head_dim), in slot order."""
        return self.rotated[:, :, :held_tokens].transpose(1, 2), self.values[:, :, :held_tokens].transpose(1, 2)

    def read_with(self, held_tokens: int, rotated: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The same, followed by the keys and values of the present pass, (B, new, heads, head_dim).

        Without gradients they are copied behind the held ones; the result is good until the next pass.
        """
        if torch.is_grad_enabled():
            past_keys, past_values = self.read(held_tokens)
            return torch.cat([past_keys, rotated], dim=1), torch.cat([past_values, values], dim=1)
        end = held_tokens + rotated.shape[1]
        self.rotated[:, :, held_tokens:end] = rotated.transpose(1, 2)
        self.values[:, :, held_tokens:end] = values.transpose(1, 2)
        return self.read(end)

    def write(self, keys: Tensor, values: Tensor, commit: Commit) -> None:
        """Store un-rotated keys and values of the frames that follow, and rotate all that is held to its new position.

        Args:
            keys, values: (B, new frames * N, heads, head_dim).
        """
        for buffer, new in ((self.keys, keys), (self.values, values)):
            if len(commit.kept) < commit.num_frames:
                new = new.unflatten(1, (commit.num_frames, -1))[:, list(commit.kept)].flatten(1, 2)
            buffer.index_copy_(2, commit.slots, new.detach().transpose(1, 2).to(buffer.dtype))
        held_tokens = len(commit.factors)
        turned = rotate(self.keys[:, :, :held_tokens].transpose(1, 2), commit.factors)
        self.rotated[:, :, :held_tokens] = turned.transpose(1, 2)

    def enlarged(self, tokens: int) -> "LayerCache":
        """With room for so many more tokens."""
        batch, heads, _, head_dim = self.values.shape
        rotated, values = (
            torch.cat([buffer, buffer.new_zeros(batch, heads, tokens, head_dim)], dim=2)
            for buffer in (self.rotated, self.values)
        )
        return LayerCache(self.keys, rotated, values)
