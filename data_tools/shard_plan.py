"""Which shards there are, which samples in them still count, and which new ones are to be written."""

from __future__ import annotations

import fcntl
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

from latent_encoding import EncodeSettings, EncodeTask
from video_mirai.data.latent_header import SHARED, LatentHeader
from video_mirai.data.latent_index import Shard, index_of, list_shards, open_shard, orphaned_indices
from video_mirai.data.latent_reader import DamagedShard, StoredSample
from video_mirai.data.latent_writer import UNFINISHED, write_index
from video_mirai.data.video_list import VideoFile

SHARD_NAME = "shard-{:06d}.tar"
DAMAGED = ".damaged"


class Found(NamedTuple):
    """What an earlier run left: the samples that count, by name, and all shards with their number of samples."""

    samples: dict[str, StoredSample]
    shards: dict[Path, int]


class ShardPlan(NamedTuple):
    number: int
    tasks: list[EncodeTask]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Two runs at once would write the same shards."""
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{out}: another encode_latents is writing into it.") from error
        yield


def tidy(out: Path) -> None:
    """Removes what an interrupted run left, and indices without a shard."""
    for path in (*out.glob(f".*{UNFINISHED}"), *orphaned_indices(out)):
        path.unlink(missing_ok=True)


def find_samples(out: Path) -> Found:
    """What is there already. Damaged shards are set aside, missing indices written."""
    try:
        shards = list_shards(out)
    except ValueError:
        shards = []  # none yet
    samples: dict[str, StoredSample] = {}
    counts = {}
    for path in shards:
        try:
            shard = open_or_index(path)
        except DamagedShard as error:
            set_aside(path)
            print(f"set aside as {path.name}{DAMAGED}: {error}", file=sys.stderr)
            continue
        counts[path] = len(shard.samples)
        samples |= {sample.header.name: sample for sample in shard.samples}
    return Found(samples, counts)


def open_or_index(path: Path) -> Shard:
    """A shard by its index, which is written anew where it is missing or wrong; DamagedShard."""
    if index_of(path).exists():
        try:
            return open_shard(path)
        except DamagedShard as error:
            print(f"index written anew: {error}", file=sys.stderr)
    return write_index(path)


def set_aside(path: Path) -> None:
    """Out of the way of readers, in case that something of it can be saved; its videos are encoded anew."""
    index_of(path).unlink(missing_ok=True)
    os.replace(path, path.with_name(path.name + DAMAGED))


def check_others(found: Found, videos: Sequence[VideoFile], shared: LatentHeader) -> None:
    """ValueError where samples of videos that are not listed would not go together with the new ones.

    That is: made otherwise, or of frames that are listed too, such as a film's from before it was cut into pieces.
    """
    listed = {video.name for video in videos}
    pieces: dict[str, list[VideoFile]] = {}
    for video in videos:
        pieces.setdefault(video.source, []).append(video)
    for name, sample in found.samples.items():
        theirs = sample.header
        different = [key for key in SHARED if getattr(theirs, key) != getattr(shared, key)]
        if name not in listed and different:
            raise ValueError(
                f"{sample.shard} holds {name}, which is not in the list and has another {different[0]}; choose another "
                f"--out, or remove that shard."
            )
        shared_with = [piece.name for piece in pieces.get(theirs.source, []) if has_common_frames(piece, theirs)]
        if name not in listed and shared_with:
            raise ValueError(
                f"{sample.shard} holds {name}, which is not in the list and has frames of {shared_with[0]}, which is; "
                f"choose another --out, or remove that shard."
            )


def has_common_frames(piece: VideoFile, header: LatentHeader) -> bool:
    """Whether two ranges of one file's frames overlap."""
    ends = [math.inf if end is None else end for end in (piece.end_frame, header.end_frame)]
    return max(piece.first_frame, header.first_frame) < min(ends)


def plan_shards(
    todo: Sequence[VideoFile],
    planned: dict[str, LatentHeader],
    settings: EncodeSettings,
    found: Found,
    out: Path,
    samples_per_shard: int,
) -> list[ShardPlan]:
    """Which video goes into which shard; it depends on neither the number of processes nor on who is first.

    Free numbers are filled, so that an interrupted run ends as one that was not; but of two samples of one name that of
    the last shard counts, so what replaces others goes behind them.
    """
    taken = {path.name for path in found.shards}
    is_replacing = any(video.name in found.samples for video in todo)
    first = max((number_of(path) for path in found.shards), default=-1) + 1 if is_replacing else 0
    numbers = (number for number in count(first) if SHARD_NAME.format(number) not in taken)
    plans = []
    for start, number in zip(range(0, len(todo), samples_per_shard), numbers, strict=False):
        tasks = [
            EncodeTask(
                video, planned[video.name], settings, f"{number:06d}-{place:05d}",
                out / f".{SHARD_NAME.format(number)}.{place:05d}.{os.getpid()}{UNFINISHED}",
            )
            for place, video in enumerate(todo[start : start + samples_per_shard])
        ]  # fmt: skip
        plans.append(ShardPlan(number, tasks))
    return plans


def number_of(path: Path) -> int:
    """Of a shard; -1 for one that has another name."""
    digits = path.name.removeprefix("shard-").removesuffix(".tar")
    return int(digits) if digits.isascii() and digits.isdecimal() else -1


def remove_superseded(out: Path, before: Found, encoded: set[str]) -> None:
    """Removes shards that were there before and of which no sample counts any more.

    encoded: names of the videos that were, or could not be read: what there was of them before is out of date.
    """
    if not before.shards:
        return
    now = find_samples(out)
    is_new = {name for name, sample in now.samples.items() if sample.shard not in before.shards}
    counting = {sample.shard for name, sample in now.samples.items() if name in is_new or name not in encoded}
    for path in before.shards:
        if path not in counting:
            index_of(path).unlink(missing_ok=True)  # first: a shard without an index is readable, the other way not
            path.unlink()
