"""Samples of a latent shard, read by position from a plain tar.

What is read may come from anywhere: nothing is unpickled, every size is held against the file's own, and whatever is
not as it should be is a DamagedShard. Files are not mapped: a mapped file that is cut off meanwhile kills the process.
"""

from __future__ import annotations

import io
import os
import tarfile
import tokenize
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from video_mirai.data.clip_dataset import BadItem
from video_mirai.data.latent_header import LATENTS, ArrayInfo, LatentHeader, describe, parse_header, stored_dtype

HEADER_MEMBER, CRC_MEMBER = "json", f"{LATENTS}.crc32.npy"
BLOCK = tarfile.BLOCKSIZE
LARGEST_HEADER = 1 << 20  # bytes
LARGEST_PADDING = 1 << 20  # bytes after the last member
NPY_HEADER = 1024  # bytes; more than that of any array here


class DamagedShard(BadItem):
    """A shard that is not as it was written, or no shard; the message names the path and the reason."""


class Span(NamedTuple):
    """Where the content of a member lies in its shard, in bytes."""

    offset: int
    num_bytes: int


class StoredSample(NamedTuple):
    """members: by what follows the key in their names."""

    shard: Path
    header: LatentHeader
    members: Mapping[str, Span]


def scan_shard(path: Path) -> list[StoredSample]:
    """What a shard holds, from its tar headers and sample headers alone; DamagedShard."""
    samples = []
    with opened(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        for key, members in _group(path, _walk_tar(file, path, num_bytes)):
            span = members.get(HEADER_MEMBER)
            if span is None or span.num_bytes > LARGEST_HEADER:
                raise DamagedShard(path, f"sample {key!r} has no header")
            text = _read(file, path, span)
            try:
                header = parse_header(text)
                check_members(header, members, num_bytes)
            except ValueError as error:
                raise DamagedShard(path, f"sample {key!r}: {error}") from error
            sample = StoredSample(path, header, members)
            for name, info in header.arrays.items():
                _array_span(file, sample, f"{name}.npy", info)
            samples.append(sample)
    if not samples:
        raise DamagedShard(path, "holds no samples")
    return samples


def read_latents(sample: StoredSample, start: int, num_frames: int) -> np.ndarray:
    """Latent frames (num_frames, C, h, w) from `start` on, and nothing else; each is held against its checksum.

    Raises DamagedShard, also where the shard is gone or another than the index says.
    """
    info = sample.header.arrays[LATENTS]
    with opened(sample.shard) as file:
        _check_header(file, sample)
        rows = _read_rows(file, sample, f"{LATENTS}.npy", info, start, num_frames)
        sums = _read_rows(file, sample, CRC_MEMBER, _crc_info(info), start, num_frames)
    for number, (frame, expected) in enumerate(zip(rows, sums.tolist(), strict=True), start):
        if zlib.crc32(frame.data) != expected:
            raise DamagedShard(sample.shard, f"{sample.header.name}: latent frame {number} is damaged")
    return rows


def read_array(sample: StoredSample, name: str) -> np.ndarray:
    """One of the sample's arrays, whole, held against its checksum; DamagedShard."""
    info = sample.header.arrays[name]
    with opened(sample.shard) as file:
        _check_header(file, sample)
        array = _read_rows(file, sample, f"{name}.npy", info, 0, info.shape[0])
    if describe(array).sha256 != info.sha256:
        raise DamagedShard(sample.shard, f"{sample.header.name}: its {name} are damaged")
    return array


def _walk_tar(file: BinaryIO, path: Path, num_bytes: int) -> Iterator[tuple[str, Span]]:
    """(name, place) of every member of a plain tar of ordinary files."""
    offset = 0
    while True:
        block = _read(file, path, Span(offset, BLOCK))
        if not any(block):
            break
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise DamagedShard(path, f"not a tar shard, or damaged at byte {offset} ({error})") from error
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
            raise DamagedShard(path, f"damaged, or no plain tar shard: member {info.name[:80]!r} is no ordinary file")
        span = Span(offset + BLOCK, info.size)
        if span.offset + span.num_bytes > num_bytes:
            raise DamagedShard(path, f"cut off: {info.name[:80]!r} goes beyond its {num_bytes} bytes")
        yield info.name, span
        offset = span.offset + -(-info.size // BLOCK) * BLOCK
    rest = num_bytes - offset
    if rest > LARGEST_PADDING or any(_read(file, path, Span(offset, rest))):
        raise DamagedShard(path, f"damaged: something follows its end at byte {offset}")


def _group(path: Path, listed: Iterable[tuple[str, Span]]) -> Iterator[tuple[str, dict[str, Span]]]:
    """(key, members) of each sample, as webdataset groups them: by what comes before a name's first dot."""
    key, members = None, dict[str, Span]()
    seen = set[str]()
    for name, span in listed:
        member = name.rpartition("/")[2].partition(".")[2]
        next_key = name.removesuffix(f".{member}")
        if next_key != key:
            if key is not None:
                yield key, members
            key, members = next_key, {}
            if key in seen:
                raise DamagedShard(path, f"sample {key!r} is there twice")
            seen.add(key)
        if member in members:
            raise DamagedShard(path, f"{name[:80]!r} is there twice")
        members[member] = span
    if key is not None:
        yield key, members


def check_members(header: LatentHeader, members: Mapping[str, Span], num_bytes: int) -> None:
    """ValueError where something is missing, has another size than the header says, or lies outside the shard."""
    needed = {f"{name}.npy": info for name, info in header.arrays.items()}
    needed[CRC_MEMBER] = _crc_info(header.arrays[LATENTS])
    for member in (HEADER_MEMBER, *needed):
        if member not in members:
            raise ValueError(f"{header.name[:80]!r} lacks {member}")
    for member, span in members.items():
        if span.offset + span.num_bytes > num_bytes:
            raise ValueError(f"{header.name[:80]!r}: {member} goes beyond the end of the shard")
        if member in needed and not 0 < span.num_bytes - _num_bytes(needed[member]) <= NPY_HEADER:
            raise ValueError(f"{header.name[:80]!r}: {member} has another size than its header says")


def _check_header(file: BinaryIO, sample: StoredSample) -> None:
    """DamagedShard where the shard is another than the one that the index was made of."""
    text = _read(file, sample.shard, sample.members[HEADER_MEMBER])
    try:
        found = parse_header(text)
    except ValueError as error:
        raise DamagedShard(sample.shard, f"{sample.header.name}: {error}") from error
    if found != sample.header:
        raise DamagedShard(sample.shard, f"{sample.header.name}: its header is not the one in the index")


def _read_rows(
    file: BinaryIO, sample: StoredSample, member: str, info: ArrayInfo, start: int, num_rows: int
) -> np.ndarray:
    """Rows [start, start + num_rows) along the first axis."""
    span = _array_span(file, sample, member, info)
    row_bytes = span.num_bytes // info.shape[0]
    content = _read(file, sample.shard, Span(span.offset + start * row_bytes, num_rows * row_bytes))
    return np.frombuffer(content, stored_dtype(info.dtype)).reshape(num_rows, *info.shape[1:])


def _array_span(file: BinaryIO, sample: StoredSample, member: str, info: ArrayInfo) -> Span:
    """Where an array's numbers lie; DamagedShard where its own header does not say what the sample's says."""
    span = sample.members[member]
    stream = io.BytesIO(_read(file, sample.shard, Span(span.offset, min(span.num_bytes, NPY_HEADER))))
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=NPY_HEADER)
    except (ValueError, TypeError, SyntaxError, KeyError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise DamagedShard(sample.shard, f"{sample.header.name}: {member} is not a .npy array") from error
    num_bytes = span.num_bytes - stream.tell()
    if shape != info.shape or dtype != stored_dtype(info.dtype) or is_fortran or num_bytes != _num_bytes(info):
        raise DamagedShard(
            sample.shard,
            f"{sample.header.name}: {member} holds {dtype} {shape}, its header says {info.dtype} {info.shape}",
        )
    return Span(span.offset + stream.tell(), num_bytes)


def _crc_info(latents: ArrayInfo) -> ArrayInfo:
    return ArrayInfo(latents.shape[:1], "uint32", "")


def _num_bytes(info: ArrayInfo) -> int:
    size = np.dtype(info.dtype).itemsize
    for length in info.shape:
        size *= length
    return size


def _read(file: BinaryIO, path: Path, span: Span) -> bytes:
    try:
        file.seek(span.offset)
        content = file.read(span.num_bytes)
    except OSError as error:
        raise DamagedShard(path, f"cannot be read ({error.strerror})") from error
    if len(content) < span.num_bytes:
        raise DamagedShard(path, f"cut off at byte {span.offset + len(content)}")
    return content


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DamagedShard(path, f"cannot be opened ({error.strerror})") from error
    with file:
        yield file
