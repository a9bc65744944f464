"""Latent shards, written whole or not at all: webdataset's tar files, and an index beside each.

    shard-000000.tar          <key>.json              header, see latent_header.py
                              <key>.latents.npy       (F, C, h, w)
                              <key>.latents.crc32.npy (F,), checksum of each latent frame
                              <key>.times.npy         (F,)
                              <key>.context.npy       text embedding or actions, where there is one
    shard-000000.index.json   headers and places of all samples, size and checksum of the shard

Any reader of webdataset shards reads them; what is beside them is for this project.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from video_mirai.data.latent_header import FORMAT, LATENTS, LatentHeader, describe, stored_dtype
from video_mirai.data.latent_index import Shard, file_sum, index_of
from video_mirai.data.latent_reader import BLOCK, CRC_MEMBER, HEADER_MEMBER, scan_shard

LARGEST_MEMBER = 8**11 - 1  # bytes; what a tar header can say
UNFINISHED = ".unfinished"


def pack_sample(key: str, header: LatentHeader, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The part of a shard that holds one sample; header.arrays is filled in here.

    key: without a dot, unique in the data set.
    """
    stored = {f"{name}.npy": np.ascontiguousarray(array, stored_dtype(array.dtype)) for name, array in arrays.items()}
    sums = [zlib.crc32(frame.data) for frame in stored[f"{LATENTS}.npy"]]
    stored[CRC_MEMBER] = np.array(sums, stored_dtype("uint32"))
    described = replace(header, arrays={name: describe(array) for name, array in arrays.items()})
    packed = io.BytesIO()
    _add_member(packed, f"{key}.{HEADER_MEMBER}", described.to_bytes(), header.name)
    for member, array in sorted(stored.items()):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
        _add_member(packed, f"{key}.{member}", stream.getvalue(), header.name)
    return packed.getvalue()


def write_shard(path: Path, packed: Iterable[bytes]) -> Shard | None:
    """Writes a shard of samples from `pack_sample`, whole or not at all, and its index; None where there are none."""
    with _written_whole(path) as file:
        for sample in packed:
            file.write(sample)
        if file.tell() == 0:
            return None
        file.write(bytes(2 * BLOCK))
    return write_index(path)


def write_index(path: Path) -> Shard:
    """Reads a whole shard and writes its index; DamagedShard."""
    shard = Shard(path, scan_shard(path), path.stat().st_size, file_sum(path))
    entry = {
        "format": FORMAT,
        "num_bytes": shard.num_bytes,
        "sha256": shard.sha256,
        "samples": [{"header": sample.header.to_dict(), "members": sample.members} for sample in shard.samples],
    }
    with _written_whole(index_of(path)) as file:
        file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
    return shard


def _add_member(packed: BinaryIO, name: str, content: bytes, sample: str) -> None:
    if len(content) > LARGEST_MEMBER:
        raise ValueError(f"{sample}: {len(content)} bytes are too many for a shard; cut the video into pieces.")
    info = tarfile.TarInfo(name)
    info.size = len(content)
    packed.write(info.tobuf(tarfile.USTAR_FORMAT))
    packed.write(content)
    packed.write(bytes(-len(content) % BLOCK))


@contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is on the disk; it gets none when nothing was written or on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            num_bytes = file.tell()
        if num_bytes:
            os.replace(unfinished, path)
            _sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
