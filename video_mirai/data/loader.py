"""Batches of clips in an order that neither the number of workers nor that of processes changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from video_mirai.data.batch import ClipKey, VideoBatch, VideoSample


class EpochSampler(Sampler[list[ClipKey]]):
    """Batches of clip keys, for ever: an epoch is a permutation fixed by (seed, epoch), less its incomplete last batch.

    batch_size: clips per process. A global batch has batch_size * num_processes clips, of which process `rank` takes
        every num_processes-th; the global order depends on the global batch size only.
    start_step: global batches to leave out, to go on where another run stopped.

    Raises ValueError for a data set that is smaller than one global batch.
    """

    def __init__(
        self, num_items: int, batch_size: int, seed: int, *, start_step: int = 0, rank: int = 0, num_processes: int = 1
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        if not 0 <= rank < num_processes:
            raise ValueError(f"rank={rank} is not in 0..{num_processes - 1}.")
        if start_step < 0:
            raise ValueError(f"start_step={start_step} must not be negative.")
        self.global_batch_size = batch_size * num_processes
        self.steps_per_epoch = num_items // self.global_batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"the data set has {num_items} clips, fewer than a batch of {self.global_batch_size} "
                f"({batch_size} x {num_processes} processes); use more clips per video, more videos or a smaller batch."
            )
        self.num_items = num_items
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.num_processes = num_processes

    def __iter__(self) -> Iterator[list[ClipKey]]:
        epoch, step = divmod(self.start_step, self.steps_per_epoch)
        while True:
            order = epoch_order(self.num_items, self.seed, epoch)
            for first in range(
                step * self.global_batch_size, self.steps_per_epoch * self.global_batch_size, self.global_batch_size
            ):
                rows = order[first : first + self.global_batch_size][self.rank :: self.num_processes]
                yield [ClipKey(epoch, index) for index in rows]
            epoch, step = epoch + 1, 0


def epoch_order(num_items: int, seed: int, epoch: int) -> list[int]:
    """A permutation of the indices that depends on (seed, epoch) only."""
    return np.random.default_rng([seed, epoch]).permutation(num_items).tolist()


def collate_clips(samples: Sequence[VideoSample]) -> VideoBatch:
    """Stack samples, which must all have the same entries, into one batch."""
    first = samples[0]
    for sample in samples:
        if sample.keys() != first.keys():
            raise ValueError(f"clips with different entries in one batch: {sorted(first)} and {sorted(sample)}.")
    batch = VideoBatch(
        name=[sample["name"] for sample in samples],
        index=torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
    )
    if "video" in first:
        batch["video"] = _stack("video", [sample["video"] for sample in samples])
    if "latents" in first:
        batch["latents"] = _stack("latents", [sample["latents"] for sample in samples])
    if "context" in first:
        batch["context"] = _stack("context", [sample["context"] for sample in samples])
    if "caption" in first:
        batch["caption"] = [sample["caption"] for sample in samples]
    if "state" in first:
        names = first["state"].keys()
        batch["state"] = {name: _stack(name, [sample["state"][name] for sample in samples]) for name in names}
    return batch


def _stack(name: str, parts: list[Tensor]) -> Tensor:
    shapes = {tuple(part.shape) for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"{name} has several shapes in one batch: {sorted(shapes)}; all clips must have the same size."
        )
    return torch.stack(parts)
