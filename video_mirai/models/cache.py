"""Keys and values of past frames in fixed memory: the first frames (sink) and the most recent ones (window)."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from video_mirai.models.context_memory import ContextMemory
from video_mirai.models.modulation import SigmaMemory
from video_mirai.ops.rope import rope_factors, rotate

if TYPE_CHECKING:
    from video_mirai.models.causal_dit import CausalVideoDiT


class Commit(NamedTuple):
    """What taking in the next frames means, the same for every layer.

    Attributes:
        num_frames: frames taken in, those that the window has no room for included.
        moves: (which of these frames, the slot it goes to) of those that are held afterwards.
        held_frames: frames held afterwards.
        factors: rotation of every slot afterwards, (held_frames * N, head_dim / 2) complex.
    """

    num_frames: int
    moves: list[tuple[int, int]]
    held_frames: int
    factors: Tensor


class CacheSizes(NamedTuple):
    """What `KVCache.allocate` is told besides the model; see there."""

    batch_size: int
    tokens_per_frame: int
    sink_frames: int
    window_frames: int
    room_frames: int = 1
    dtype: torch.dtype | None = None


class KVCache:
    """Ring buffers, three per layer, of `sink_frames + window_frames` frames.

    Keys are kept un-rotated. Positions are given anew with every commit, 0, 1, 2, ... over the frames that are held, so
    they stay inside the trained range for any horizon. Rotated copies are kept beside the keys, so that a pass rotates
    nothing but its own. Behind the held frames there is room for those of the present pass, so that attention reads one
    stretch of memory and nothing is concatenated.

    Attributes:
        frames_seen: frames committed since the start, evicted ones included.
        context: keys and values of the cross-attention, kept while the context stays the same.
        sigmas: modulation by the noise levels that passes come with.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], tokens_per_frame: int, sink_frames: int) -> None:
        self._keys = keys  # (B, heads, capacity * N, head_dim) each
        self._rotated = [torch.zeros_like(layer_values) for layer_values in values]
        self._values = values  # (B, heads, (capacity + room) * N, head_dim) each
        self.tokens_per_frame = tokens_per_frame
        self.sink_frames = sink_frames
        self.capacity_frames = keys[0].shape[2] // tokens_per_frame
        self.frames_seen = 0
        self.context = ContextMemory()
        self.sigmas = SigmaMemory()
        self._rope_table: Tensor | None = None  # (positions, N, head_dim / 2)
        self._rope_grid = (0, 0)

    @classmethod
    def allocate(
        cls,
        model: "CausalVideoDiT",
        batch_size: int,
        tokens_per_frame: int,
        sink_frames: int,
        window_frames: int,
        *,
        room_frames: int = 1,
        dtype: torch.dtype | None = None,
    ) -> "KVCache":
        """Empty cache for a model, on its device.

        Args:
            window_frames: history frames kept besides the sink; the current chunk needs no room.
            room_frames: frames that a pass brings; a larger pass makes more room once.
            dtype: what attention computes in; None = the model's.
        """
        if sink_frames < 0 or window_frames < 0 or sink_frames + window_frames < 1:
            raise ValueError(f"a cache needs room: got sink_frames={sink_frames}, window_frames={window_frames}.")
        config = model.config

        def buffers(frames: int) -> list[Tensor]:
            shape = (batch_size, config.num_attention_heads, frames * tokens_per_frame, config.attention_head_dim)
            return [torch.zeros(shape, device=model.device, dtype=dtype or model.dtype) for _ in model.blocks]

        capacity = sink_frames + window_frames
        return cls(buffers(capacity), buffers(capacity + room_frames), tokens_per_frame, sink_frames)

    @property
    def frames(self) -> int:
        """Frames held now."""
        return min(self.frames_seen, self.capacity_frames)

    @property
    def batch_size(self) -> int:
        return self._keys[0].shape[0]

    @property
    def num_bytes(self) -> int:
        """Memory of all buffers; it never changes while passes bring equally many frames."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values, *self._rotated))

    def slot_positions(self) -> Tensor:
        """(frames,) temporal position of the frame in every slot: its rank among the frames that are held."""
        return self._positions(self.frames_seen)

    def plan_commit(self, num_frames: int, rows: int, columns: int) -> Commit:
        """What taking in the next `num_frames` frames, of rows x columns tokens each, will mean."""
        seen = self.frames_seen + num_frames
        held = min(seen, self.capacity_frames)
        return Commit(num_frames, self._moves(num_frames), held, self.rope(self._positions(seen), held, rows, columns))

    def rope(self, positions: Tensor, end: int, rows: int, columns: int) -> Tensor:
        """`rope_factors` of frames at positions below `end`, from a table: a rollout asks for the same again."""
        table = self._rope_table
        if table is None or self._rope_grid != (rows, columns) or len(table) < end:
            every = torch.arange(end, device=positions.device)
            table = rope_factors(every, rows, columns, self._keys[0].shape[-1]).unflatten(0, (end, -1))
            self._rope_table, self._rope_grid = table, (rows, columns)
        return table[positions].flatten(0, 1)

    def read(self, layer: int, held_frames: int) -> tuple[Tensor, Tensor]:
        """Rotated keys and values of a layer (0-based), (B, held * N, heads, head_dim), in slot order."""
        held = held_frames * self.tokens_per_frame
        return self._rotated[layer][:, :, :held].transpose(1, 2), self._values[layer][:, :, :held].transpose(1, 2)

    def read_with(self, layer: int, held_frames: int, rotated: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The same, followed by the keys and values of the present pass, (B, new * N, heads, head_dim).

        Without gradients they are copied behind the held ones; the result is good until the next pass.
        """
        if torch.is_grad_enabled():
            past_keys, past_values = self.read(layer, held_frames)
            return (
                torch.cat([past_keys.to(rotated.dtype), rotated], dim=1),
                torch.cat([past_values.to(values.dtype), values], dim=1),
            )
        held = held_frames * self.tokens_per_frame
        end = held + rotated.shape[1]
        self._make_room(end)
        for buffer, new in ((self._rotated[layer], rotated), (self._values[layer], values)):
            buffer[:, :, held:end] = new.transpose(1, 2)
        return self._rotated[layer][:, :, :end].transpose(1, 2), self._values[layer][:, :, :end].transpose(1, 2)

    def in_slot_order(self, mask: Tensor) -> Tensor:
        """Move a mask's cached columns from temporal order to slot order; the columns after them stay.

        Args:
            mask: (Q, frames * N + Q) bool.
        """
        positions = self.slot_positions()
        within = torch.arange(self.tokens_per_frame, device=positions.device)
        cached = (positions[:, None] * self.tokens_per_frame + within).flatten()
        return torch.cat([mask[:, cached], mask[:, len(cached) :]], dim=1)

    def write(self, layer: int, keys: Tensor, values: Tensor, commit: Commit) -> None:
        """Store un-rotated keys and values of the frames that follow, and rotate all that is held to its new position.

        Args:
            keys, values: (B, new frames * N, heads, head_dim).
        """
        tokens = self.tokens_per_frame
        for source, slot in commit.moves:
            new, place = slice(source * tokens, (source + 1) * tokens), slice(slot * tokens, (slot + 1) * tokens)
            self._keys[layer][:, :, place] = keys.detach()[:, new].transpose(1, 2)
            self._values[layer][:, :, place] = values.detach()[:, new].transpose(1, 2)
        held = commit.held_frames * tokens
        turned = rotate(self._keys[layer][:, :, :held].transpose(1, 2), commit.factors)
        self._rotated[layer][:, :, :held] = turned.transpose(1, 2)

    def advance(self, commit: Commit) -> None:
        """Count frames whose keys every layer has written."""
        self.frames_seen += commit.num_frames

    def state_dict(self) -> dict[str, Tensor]:
        """All that a cache of the same sizes needs to go on as this one."""
        held = self.frames * self.tokens_per_frame
        tensors = {"frames_seen": torch.tensor(self.frames_seen)}
        for layer, (keys, rotated, values) in enumerate(zip(self._keys, self._rotated, self._values, strict=True)):
            for name, buffer in (("keys", keys), ("rotated", rotated), ("values", values)):
                tensors[f"{name}.{layer}"] = buffer[:, :, :held].contiguous()
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on from another cache's state; ValueError where its sizes are others."""
        seen = int(tensors["frames_seen"])
        held = min(seen, self.capacity_frames) * self.tokens_per_frame
        for layer, buffers in enumerate(zip(self._keys, self._rotated, self._values, strict=True)):
            for name, buffer in zip(("keys", "rotated", "values"), buffers, strict=True):
                saved, place = tensors.get(f"{name}.{layer}"), buffer[:, :, :held]
                if saved is None or saved.shape != place.shape:
                    found = "nothing" if saved is None else tuple(saved.shape)
                    raise ValueError(
                        f"the saved cache does not fit: {name} of layer {layer + 1} should be {tuple(place.shape)}, "
                        f"found {found}; model, batch, window and sink must be those it was saved with."
                    )
                place.copy_(saved)
        self.frames_seen = seen

    def _positions(self, frames_seen: int) -> Tensor:
        slots = torch.arange(min(frames_seen, self.capacity_frames), device=self._keys[0].device)
        window = self.capacity_frames - self.sink_frames
        evicted = frames_seen - self.capacity_frames
        if evicted <= 0 or window == 0:
            return slots
        rank = (slots - self.sink_frames - evicted) % window + self.sink_frames
        return torch.where(slots < self.sink_frames, slots, rank)

    def _moves(self, count: int) -> list[tuple[int, int]]:
        """(which of the next `count` frames, its slot) of those that survive."""
        window = self.capacity_frames - self.sink_frames
        end = self.frames_seen + count
        moves: list[tuple[int, int]] = []
        for offset in range(count):
            frame = self.frames_seen + offset
            if frame < self.sink_frames:
                moves.append((offset, frame))
            elif window and frame >= end - window:
                moves.append((offset, self.sink_frames + (frame - self.sink_frames) % window))
        return moves

    def _make_room(self, tokens: int) -> None:
        """Buffers of at least so many tokens, keeping what they hold."""
        missing = tokens - self._values[0].shape[2]
        if missing <= 0:
            return
        for buffers in (self._rotated, self._values):
            for layer, buffer in enumerate(buffers):
                batch, heads, _, head_dim = buffer.shape
                buffers[layer] = torch.cat([buffer, buffer.new_zeros(batch, heads, missing, head_dim)], dim=2)
