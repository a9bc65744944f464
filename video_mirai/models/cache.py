"""Keys and values of past frames in fixed memory: the first frames (sink) and the most recent ones (window)."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from video_mirai.models.context_memory import ContextMemory
from video_mirai.models.layer_cache import Commit, LayerCache
from video_mirai.models.modulation import SigmaMemory
from video_mirai.ops.rope import rope_factors

if TYPE_CHECKING:
    from video_mirai.models.causal_dit import CausalVideoDiT
    from video_mirai.models.compiled_pass import CompiledPasses


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
        layers: what is kept of every layer.
        frames_seen: frames committed since the start, evicted ones included.
        context: keys and values of the cross-attention, kept while the context stays the same.
        sigmas: modulation by the noise levels that passes come with.
        compiled: what runs the passes of the full window; None = they aren't compiled.
    """

    def __init__(self, layers: list[LayerCache], tokens_per_frame: int, sink_frames: int) -> None:
        self.layers = layers
        self.tokens_per_frame = tokens_per_frame
        self.sink_frames = sink_frames
        self.capacity_frames = layers[0].keys.shape[2] // tokens_per_frame
        self.frames_seen = 0
        self.context = ContextMemory()
        self.sigmas = SigmaMemory()
        self.compiled: CompiledPasses | None = None
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

        def buffer(frames: int) -> Tensor:
            shape = (batch_size, config.num_attention_heads, frames * tokens_per_frame, config.attention_head_dim)
            return torch.zeros(shape, device=model.device, dtype=dtype or model.dtype)

        capacity = sink_frames + window_frames
        with_room = capacity + room_frames
        layers = [LayerCache(buffer(capacity), buffer(with_room), buffer(with_room)) for _ in model.blocks]
        return cls(layers, tokens_per_frame, sink_frames)

    @property
    def frames(self) -> int:
        """Frames held now."""
        return min(self.frames_seen, self.capacity_frames)

    @property
    def is_full(self) -> bool:
        """Whether window and sink hold as much as they can."""
        return self.frames == self.capacity_frames

    @property
    def batch_size(self) -> int:
        return self.layers[0].keys.shape[0]

    @property
    def num_bytes(self) -> int:
        """Memory of all buffers; it never changes while passes bring equally many frames."""
        return sum(buffer.nbytes for layer in self.layers for buffer in layer)

    def slot_positions(self) -> Tensor:
        """(frames,) temporal position of the frame in every slot: its rank among the frames that are held."""
        return self._positions(self.frames_seen)

    def plan_commit(self, num_frames: int, rows: int, columns: int) -> Commit:
        """What taking in the next `num_frames` frames, of rows x columns tokens each, will mean."""
        seen = self.frames_seen + num_frames
        held = min(seen, self.capacity_frames)
        kept, slots = self._places(num_frames)
        factors = self.rope(self._positions(seen), held, rows, columns)
        frames = torch.tensor(slots, dtype=torch.long, device=factors.device)
        return Commit(num_frames, kept, held, self._tokens_of(frames), factors)

    def rope(self, positions: Tensor, end: int, rows: int, columns: int) -> Tensor:
        """`rope_factors` of frames at positions below `end`, from a table: a rollout asks for the same again."""
        table = self._rope_table
        if table is None or self._rope_grid != (rows, columns) or len(table) < end:
            every = torch.arange(end, device=positions.device)
            table = rope_factors(every, rows, columns, self.layers[0].keys.shape[-1]).unflatten(0, (end, -1))
            self._rope_table, self._rope_grid = table, (rows, columns)
        return table[positions].flatten(0, 1)

    def make_room(self, frames: int) -> None:
        """Buffers of rotated keys and values for at least so many frames, keeping what they hold."""
        missing = frames * self.tokens_per_frame - self.layers[0].values.shape[2]
        if missing > 0:
            self.layers = [layer.enlarged(missing) for layer in self.layers]

    def in_slot_order(self, mask: Tensor) -> Tensor:
        """Move a mask's cached columns from temporal order to slot order; the columns after them stay.

        Args:
            mask: (Q, frames * N + Q) bool.
        """
        cached = self._tokens_of(self.slot_positions())
        return torch.cat([mask[:, cached], mask[:, len(cached) :]], dim=1)

    def advance(self, commit: Commit) -> None:
        """Count frames whose keys every layer has written."""
        self.frames_seen += commit.num_frames

    def state_dict(self) -> dict[str, Tensor]:
        """All that a cache of the same sizes needs to go on as this one."""
        held = self.frames * self.tokens_per_frame
        tensors = {"frames_seen": torch.tensor(self.frames_seen)}
        for number, layer in enumerate(self.layers):
            for name, buffer in layer._asdict().items():
                tensors[f"{name}.{number}"] = buffer[:, :, :held].contiguous()
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on from another cache's state; ValueError where its sizes are others."""
        seen = int(tensors["frames_seen"])
        held = min(seen, self.capacity_frames) * self.tokens_per_frame
        for number, layer in enumerate(self.layers):
            for name, buffer in layer._asdict().items():
                saved, place = tensors.get(f"{name}.{number}"), buffer[:, :, :held]
                if saved is None or saved.shape != place.shape:
                    found = "nothing" if saved is None else tuple(saved.shape)
                    raise ValueError(
                        f"the saved cache does not fit: {name} of layer {number + 1} should be {tuple(place.shape)}, "
                        f"found {found}; model, batch, window and sink must be those it was saved with."
                    )
                place.copy_(saved)
        self.frames_seen = seen

    def _positions(self, frames_seen: int) -> Tensor:
        slots = torch.arange(min(frames_seen, self.capacity_frames), device=self.layers[0].keys.device)
        window = self.capacity_frames - self.sink_frames
        evicted = frames_seen - self.capacity_frames
        if evicted <= 0 or window == 0:
            return slots
        rank = (slots - self.sink_frames - evicted) % window + self.sink_frames
        return torch.where(slots < self.sink_frames, slots, rank)

    def _places(self, count: int) -> tuple[tuple[int, ...], list[int]]:
        """Which of the next `count` frames survive, and the slot that each of those goes to."""
        window = self.capacity_frames - self.sink_frames
        end = self.frames_seen + count
        places: dict[int, int] = {}
        for offset in range(count):
            frame = self.frames_seen + offset
            if frame < self.sink_frames:
                places[offset] = frame
            elif window and frame >= end - window:
                places[offset] = self.sink_frames + (frame - self.sink_frames) % window
        return tuple(places), list(places.values())

    def _tokens_of(self, frames: Tensor) -> Tensor:
        """(len(frames) * N,) numbers of the frames' tokens."""
        within = torch.arange(self.tokens_per_frame, device=frames.device)
        return (frames[:, None] * self.tokens_per_frame + within).flatten()
