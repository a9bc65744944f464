"""Clips of latents that a codec has encoded beforehand, from shards that `data_tools/encode_latents.py` writes.

Opening a data set reads the shards' indices. A clip reads its own latent frames only, by position, and holds each of
them against its checksum.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from video_mirai.data.batch import VideoSample
from video_mirai.data.clip_dataset import ClipDataset, ClipPlace, check_settings
from video_mirai.data.latent_header import CONTEXT, TIMES, LatentHeader
from video_mirai.data.latent_index import list_shards, open_shard
from video_mirai.data.latent_reader import DamagedShard, StoredSample, read_array, read_latents
from video_mirai.data.video_folder import nearest
from video_mirai.data.video_list import split_of

logger = logging.getLogger(__name__)

MAX_CLIPS = 1_000_000  # that a stride may cut from one sample


@dataclass
class LatentShardsConfig:
    """Which latents, and how clips are cut from them; as VideoFolderConfig, frames being latent frames.

    With the same seed, a codec that works frame by frame and every frame encoded, clips and splits are those of the
    VideoFolder encoded. on_bad, max_bad_fraction: of samples that are damaged.
    """

    root: str
    num_frames: int = 16
    split: str = "train"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    clips_per_video: int = 1
    stride_seconds: float | None = None
    seed: int = 0
    on_bad: str = "skip"
    max_bad_fraction: float = 0.05


class LatentShards(ClipDataset):
    """Map-style data set of clips: latents (F, C, h, w) float32, name (the source's relative path), index.

    A clip has a context where one was encoded, and a caption where every sample has one. It does not depend on how
    samples are spread over shards. What ClipDataset says of bad items holds for damaged samples.

    codec, fps, height, width, segment_frames: of all samples. class_names: of a class context. The keyword arguments
    are LatentShardsConfig's. Samples that are too short are left out, and said to be so.

    Raises FileNotFoundError for a missing root; ValueError for an empty one, an empty split, shards or indices that are
    damaged or none, and samples that don't agree in codec, frame rate, size or context.
    """

    ITEMS = "samples"

    def __init__(
        self,
        root: str | Path,
        num_frames: int = LatentShardsConfig.num_frames,
        *,
        split: str = LatentShardsConfig.split,
        val_fraction: float = LatentShardsConfig.val_fraction,
        test_fraction: float = LatentShardsConfig.test_fraction,
        clips_per_video: int = LatentShardsConfig.clips_per_video,
        stride_seconds: float | None = LatentShardsConfig.stride_seconds,
        seed: int = LatentShardsConfig.seed,
        on_bad: str = LatentShardsConfig.on_bad,
        max_bad_fraction: float = LatentShardsConfig.max_bad_fraction,
    ) -> None:
        self.config = LatentShardsConfig(
            str(root), num_frames, split, val_fraction, test_fraction, clips_per_video, stride_seconds, seed, on_bad,
            max_bad_fraction,
        )  # fmt: skip
        check_settings(self.config)
        super().__init__(self.config)
        listed = read_samples(Path(root))
        first = listed[0].header
        self.codec, self.fps, self.height, self.width = first.codec, first.fps, first.height, first.width
        self.segment_frames, self.context = first.segment_frames, first.context
        self.class_names = class_names(listed)
        self.has_captions = all(sample.header.caption is not None for sample in listed)
        if self.segment_frames and num_frames > self.segment_frames:
            raise ValueError(
                f"num_frames={num_frames} is more than the {self.segment_frames} latent frames that {root} was encoded "
                f"in at a time; encode it anew with a larger --clip-frames."
            )
        chosen = [
            sample
            for sample in listed
            if split in ("all", split_of(sample.header.source, seed, val_fraction, test_fraction))
        ]
        self.samples = [sample for sample in chosen if self._num_starts(sample.header) > 0]
        if len(self.samples) < len(chosen):
            logger.warning("%s: %d of %d samples are shorter than %d latent frames and left out", root,
                           len(chosen) - len(self.samples), len(chosen), num_frames)  # fmt: skip
        if not self.samples:
            raise ValueError(
                f"{root}: split {split!r} has no sample of at least {num_frames} latent frames (of {len(listed)} "
                f"samples, {len(chosen)} in this split)."
            )
        self.num_items = len(self.samples)
        self.places = self._places()

    def clip_name(self, index: int) -> str:
        """The source's relative path; clips of one video, and of its pieces, share it. Nothing is read."""
        return self.samples[self.places[index].item].header.source

    def require_codec(self, fingerprint: str) -> None:
        """ValueError unless these are the latents of the codec with this fingerprint."""
        if fingerprint != self.codec:
            raise ValueError(
                f"{self.config.root} was encoded by codec {self.codec[:12]}, but this run's codec is "
                f"{fingerprint[:12]}; encode the videos with this run's codec."
            )

    def _item_name(self, item: int) -> str:
        return self.samples[item].header.name

    def _read(self, place: ClipPlace, members: Sequence[int], generator: np.random.Generator) -> list[VideoSample]:
        """One clip is all that a place has."""
        sample = self.samples[place.item]
        header = sample.header
        start = self._start(sample, place.slot, generator) * max(1, self.segment_frames)
        latents = read_latents(sample, start, self.config.num_frames)
        clip = VideoSample(latents=as_floats(latents), name=header.name)
        if self.has_captions:
            assert header.caption is not None, "has_captions says so"
            clip["caption"] = header.caption
        if self.context == "class":
            clip["context"] = torch.zeros(1, len(self.class_names))
            clip["context"][0, self.class_names.index(str(header.label))] = 1
        elif self.context != "none":
            context = read_array(sample, CONTEXT)
            if self.context == "actions":
                context = context[start : start + self.config.num_frames]
            clip["context"] = as_floats(context)
        return [clip]

    def _start(self, sample: StoredSample, slot: int, generator: np.random.Generator) -> int:
        """Which of the sample's starts the clip has."""
        num_starts = self._num_starts(sample.header)
        if self.config.stride_seconds is not None:
            times = self._start_times(sample)
            return int(nearest(times, np.array([slot * self.config.stride_seconds]))[0])
        if self.config.split in ("val", "test"):
            return (2 * slot + 1) * num_starts // (2 * self.config.clips_per_video)
        return int(generator.integers(num_starts))

    def _num_starts(self, header: LatentHeader) -> int:
        if self.segment_frames:
            return header.num_frames // self.segment_frames
        return max(0, header.num_frames - self.config.num_frames + 1)

    def _start_times(self, sample: StoredSample) -> np.ndarray:
        """Seconds at which clips may start, ascending; DamagedShard."""
        times = read_array(sample, TIMES)
        if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) < 0).any():
            raise DamagedShard(sample.shard, f"{sample.header.name}: its times don't ascend")
        return times[:: max(1, self.segment_frames)][: self._num_starts(sample.header)]

    def _places(self) -> list[ClipPlace]:
        stride = self.config.stride_seconds
        if stride is None:
            slots = range(self.config.clips_per_video)
            return [ClipPlace(number, slot) for slot in slots for number in range(len(self.samples))]
        places = []
        for number, sample in enumerate(self.samples):
            try:
                last = self._start_times(sample)[-1]
                if last > MAX_CLIPS * stride:
                    raise DamagedShard(sample.shard, f"{sample.header.name}: its times end at {last:.3g} s")
                num_clips = int(last / stride + 1e-6) + 1
            except DamagedShard as error:
                self._count_bad(number, error)
                continue
            places += [ClipPlace(number, slot) for slot in range(num_clips)]
        return places


def read_samples(root: Path) -> list[StoredSample]:
    """All samples below a folder, sorted by source and start; of several of one name, that of the last shard.

    Raises FileNotFoundError or ValueError: see `list_shards`; DamagedShard; ValueError for samples that don't go
    together.
    """
    found = {sample.header.name: sample for path in list_shards(root) for sample in open_shard(path).samples}
    samples = sorted(found.values(), key=lambda sample: (sample.header.source, sample.header.first_frame))
    first = samples[0]
    for sample in samples:
        if name := sample.header.conflict(first.header):
            raise ValueError(
                f"{sample.shard}: {sample.header.name} has {name}={getattr(sample.header, name)}, but "
                f"{first.header.name} in {first.shard} has {getattr(first.header, name)}; these don't go together."
            )
    return samples


def class_names(samples: Sequence[StoredSample]) -> tuple[str, ...]:
    """The labels of all samples, sorted, where their context is the class; ValueError for fewer than two."""
    if samples[0].header.context != "class":
        return ()
    names = tuple(sorted({str(sample.header.label) for sample in samples}))
    if len(names) < 2:
        raise ValueError(f"the latents have a class for context, but all {len(samples)} samples are {names[0]!r}.")
    return names


def as_floats(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
