"""Batches of clips in an order that neither the number of workers nor that of processes changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from video_mirai.data.batch import ClipKey, VideoBatch, VideoSample


@runtime_checkable
class PlacedClips(Protocol):
    """A data set that cuts clips_per_place clips, with indices that follow each other, from every place in a video.

    Reading them in one go saves decoding; what a clip is does not depend on it.
    """

    clips_per_place: int

    def __getitems__(self, keys: Sequence[ClipKey]) -> list[VideoSample]: ...


class EpochSampler(Sampler[list[ClipKey]]):
    """Batches of clip keys, for ever: an epoch is a permutation fixed by (seed, epoch), less its incomplete last batch.

    batch_size: clips per process. A global batch has batch_size * num_processes clips, of which process `rank` takes
        every num_processes-th place; the global order depends on the global batch size only.
    start_step: global batches to leave out, to go on where another run stopped.
    clips_per_place: of the data set; these stay together.

    Raises ValueError for a data set that is smaller than one global batch, and a batch that places don't fill.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        seed: int,
        *,
        start_step: int = 0,
        rank: int = 0,
        num_processes: int = 1,
        clips_per_place: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        if batch_size % clips_per_place:
            raise ValueError(
                f"a batch of {batch_size} clips per process is not a multiple of clips_per_place={clips_per_place}; "
                f"change one of them."
            )
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
        self.clips_per_place = clips_per_place

    def __iter__(self) -> Iterator[list[ClipKey]]:
        epoch, step = divmod(self.start_step, self.steps_per_epoch)
        while True:
            order = epoch_order(self.num_items // self.clips_per_place, self.seed, epoch)
            batch_places = self.global_batch_size // self.clips_per_place
            for first in range(step * batch_places, self.steps_per_epoch * batch_places, batch_places):
                places = order[first : first + batch_places][self.rank :: self.num_processes]
                yield [
                    ClipKey(epoch, place * self.clips_per_place + member)
                    for place in places
                    for member in range(self.clips_per_place)
                ]
            epoch, step = epoch + 1, 0


def epoch_order(num_items: int, seed: int, epoch: int) -> list[int]:
    """A permutation of the indices that depends on (seed, epoch) only."""
    return np.random.default_rng([seed, epoch]).permutation(num_items).tolist()


def count_neighbours(dataset: Dataset[VideoSample]) -> int:
    """Its clips per place; 1 for a data set that knows no places."""
    return dataset.clips_per_place if isinstance(dataset, PlacedClips) else 1


def split_places(keys: Sequence[ClipKey], clips_per_place: int) -> Iterator[list[ClipKey]]:
    """The keys in their order, those of one place that follow each other together."""
    for _, neighbours in groupby(keys, key=lambda key: (key.epoch, key.index // clips_per_place)):
        yield list(neighbours)


def read_clips(dataset: Dataset[VideoSample], keys: Sequence[ClipKey]) -> list[VideoSample]:
    """The clips, those of one place in one go where the data set can."""
    return dataset.__getitems__(keys) if isinstance(dataset, PlacedClips) else [dataset[key] for key in keys]


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
