"""Keys and values of past frames in fixed memory: the first frames (sink) and the most recent ones (window)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from video_mirai.ops.rope import rope_factors, rotate

if TYPE_CHECKING:
    from video_mirai.models.causal_dit import CausalVideoDiT


class KVCache:
    """Ring buffers, one pair per layer, of `sink_frames + window_frames` frames.

    Keys are kept un-rotated. Positions are given anew on every read, 0, 1, 2, ... over the frames that are held, so
    they stay inside the trained range for any horizon. The rotation happens once per commit, not once per pass.

    Attributes:
        frames_seen: frames committed since the start, evicted ones included.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], tokens_per_frame: int, sink_frames: int) -> None:
        self._keys = keys
        self._values = values
        self._rotated = [torch.empty_like(layer_keys) for layer_keys in keys]
        self._rotated_for: tuple[int, int, int] | None = None
        self.tokens_per_frame = tokens_per_frame
        self.sink_frames = sink_frames
        self.capacity_frames = keys[0].shape[1] // tokens_per_frame
        self.frames_seen = 0

    @classmethod
    def allocate(
        cls, model: "CausalVideoDiT", batch_size: int, tokens_per_frame: int, sink_frames: int, window_frames: int
    ) -> "KVCache":
        """Empty cache for a model, on its device and in its dtype.

        Args:
            window_frames: history frames kept besides the sink; the current chunk needs no room.
        """
        if sink_frames < 0 or window_frames < 0 or sink_frames + window_frames < 1:
            raise ValueError(f"a cache needs room: got sink_frames={sink_frames}, window_frames={window_frames}.")
        config = model.config
        tokens = (sink_frames + window_frames) * tokens_per_frame
        shape = (batch_size, tokens, config.num_attention_heads, config.attention_head_dim)

        def buffers() -> list[Tensor]:
            return [torch.zeros(shape, device=model.device, dtype=model.dtype) for _ in range(config.num_layers)]

        return cls(buffers(), buffers(), tokens_per_frame, sink_frames)

    @property
    def frames(self) -> int:
        """Frames held now."""
        return min(self.frames_seen, self.capacity_frames)

    @property
    def num_bytes(self) -> int:
        """Memory of all buffers; it never changes."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values, *self._rotated))

    def slot_positions(self) -> Tensor:
        """(frames,) temporal position of the frame in every slot: its rank among the frames that are held."""
        slots = torch.arange(self.frames, device=self._keys[0].device)
        window = self.capacity_frames - self.sink_frames
        evicted = self.frames_seen - self.capacity_frames
        if evicted <= 0 or window == 0:
            return slots
        rank = (slots - self.sink_frames - evicted) % window + self.sink_frames
        return torch.where(slots < self.sink_frames, slots, rank)

    def prepare(self, rows: int, columns: int) -> None:
        """Rotate the held keys to their present positions; does nothing until frames were committed."""
        state = (self.frames_seen, rows, columns)
        if self._rotated_for == state or not self.frames:
            return
        factors = rope_factors(self.slot_positions(), rows, columns, self._keys[0].shape[-1])
        held = self.frames * self.tokens_per_frame
        for keys, rotated in zip(self._keys, self._rotated, strict=True):
            rotated[:, :held] = rotate(keys[:, :held], factors)
        self._rotated_for = state

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Rotated keys and values of a layer (0-based), (B, frames * N, heads, head_dim), in slot order."""
        held = self.frames * self.tokens_per_frame
        return self._rotated[layer][:, :held], self._values[layer][:, :held]

    def in_slot_order(self, mask: Tensor) -> Tensor:
        """Move a mask's cached columns from temporal order to slot order; the columns after them stay.

        Args:
            mask: (Q, frames * N + Q) bool.
        """
        positions = self.slot_positions()
        within = torch.arange(self.tokens_per_frame, device=positions.device)
        cached = (positions[:, None] * self.tokens_per_frame + within).flatten()
        return torch.cat([mask[:, cached], mask[:, len(cached) :]], dim=1)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store un-rotated keys and values of the frames that follow; `advance` makes them count.

        Args:
            keys, values: (B, new frames * N, heads, head_dim).
        """
        count = keys.shape[1] // self.tokens_per_frame
        source, slots = self._slots_for(count)
        if not slots:
            return
        frame_shape = (-1, self.tokens_per_frame)
        for buffer, new in ((self._keys[layer], keys), (self._values[layer], values)):
            buffer.unflatten(1, frame_shape)[:, slots] = (
                new.detach().unflatten(1, frame_shape)[:, source].to(buffer.dtype)
            )

    def advance(self, num_frames: int) -> None:
        """Count frames whose keys every layer has written."""
        self.frames_seen += num_frames

    def _slots_for(self, count: int) -> tuple[list[int], list[int]]:
        """Which of the next `count` frames survive, and the slot each goes to."""
        window = self.capacity_frames - self.sink_frames
        end = self.frames_seen + count
        source: list[int] = []
        slots: list[int] = []
        for offset in range(count):
            frame = self.frames_seen + offset
            if frame < self.sink_frames:
                slot = frame
            elif window and frame >= end - window:
                slot = self.sink_frames + (frame - self.sink_frames) % window
            else:
                continue
            source.append(offset)
            slots.append(slot)
        return source, slots
