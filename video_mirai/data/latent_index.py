"""Which shards a folder holds, and where in them everything lies: the index beside each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from video_mirai.data.latent_header import FORMAT, header_from
from video_mirai.data.latent_reader import (
    DamagedShard,
    Span,
    StoredSample,
    check_members,
    opened,
    read_array,
    read_latents,
    scan_shard,
)

SHARD_SUFFIX, INDEX_SUFFIX = ".tar", ".index.json"


class Shard(NamedTuple):
    """num_bytes, sha256: of the whole file; the latter empty where no index says it."""

    path: Path
    samples: list[StoredSample]
    num_bytes: int
    sha256: str


def list_shards(root: Path) -> list[Path]:
    """The shards of a folder and its subfolders, hidden files left out, sorted by their own names.

    Raises FileNotFoundError for a folder that does not exist; ValueError for one without shards, or with an index whose
    shard is gone.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of latents.")
    if lost := orphaned_indices(root):
        raise ValueError(f"{lost[0]}: its shard is gone; encode anew what is missing: data_tools/encode_latents.py.")
    shards = _files(root, SHARD_SUFFIX)
    if shards:
        return shards
    if _files(root, ".safetensors"):
        raise ValueError(f"{root}: latents of an earlier version (.safetensors); encode anew: encode_latents.py.")
    raise ValueError(f"{root}: no latents in this folder; make some with data_tools/encode_latents.py.")


def orphaned_indices(root: Path) -> list[Path]:
    return [index for index in _files(root, INDEX_SUFFIX) if not shard_of(index).exists()]


def index_of(shard: Path) -> Path:
    return shard.with_name(shard.name.removesuffix(SHARD_SUFFIX) + INDEX_SUFFIX)


def shard_of(index: Path) -> Path:
    return index.with_name(index.name.removesuffix(INDEX_SUFFIX) + SHARD_SUFFIX)


def open_shard(path: Path) -> Shard:
    """What a shard holds, by its index or, where there is none, by the shard itself; DamagedShard."""
    index = index_of(path)
    try:
        text = index.read_bytes()
    except FileNotFoundError:
        return Shard(path, scan_shard(path), _num_bytes(path), "")
    except OSError as error:
        raise DamagedShard(index, f"cannot be read ({error.strerror})") from error
    try:
        shard = _parse_index(path, text)
    except ValueError as error:
        raise DamagedShard(index, f"not a usable index ({error}); remove it, and the shard itself is read") from error
    if _num_bytes(path) != shard.num_bytes:
        raise DamagedShard(
            path,
            f"has {_num_bytes(path)} bytes, its index says {shard.num_bytes}; run encode_latents.py again",
        )
    return shard


def verify_shard(path: Path) -> Iterator[str]:
    """Reads everything and says, a line each, what is damaged."""
    try:
        shard = open_shard(path)
    except DamagedShard as error:
        yield str(error)
        return
    is_named = False
    for sample in shard.samples:
        try:
            for name in sample.header.arrays:
                read_array(sample, name)
            read_latents(sample, 0, sample.header.num_frames)
        except DamagedShard as error:
            is_named = True
            yield str(error)
    if not is_named and shard.sha256 and file_sum(path) != shard.sha256:
        yield f"{path}: differs from what its index was made of"


def _files(root: Path, suffix: str) -> list[Path]:
    found = (path for path in root.rglob(f"*{suffix}") if path.is_file())
    shown = (path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))
    return sorted(shown, key=lambda path: (path.name, path))


def _parse_index(path: Path, text: bytes) -> Shard:
    try:
        entry = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise ValueError(f"not of format {FORMAT}")
    num_bytes, digest, listed = entry.get("num_bytes"), entry.get("sha256"), entry.get("samples")
    if type(num_bytes) is not int or not isinstance(digest, str) or not isinstance(listed, list) or not listed:
        raise ValueError("num_bytes, sha256 or samples are missing")
    samples = []
    for listing in listed:
        if not isinstance(listing, dict) or not isinstance(listing.get("members"), dict):
            raise ValueError("a sample lacks its members")
        header = header_from(listing.get("header"))
        members = {name: _parse_span(span) for name, span in listing["members"].items()}
        check_members(header, members, num_bytes)
        samples.append(StoredSample(path, header, members))
    return Shard(path, samples, num_bytes, digest)


def _parse_span(span: Any) -> Span:
    if not isinstance(span, list) or len(span) != 2 or not all(type(number) is int and number >= 0 for number in span):
        raise ValueError("a place in the shard is not two numbers")
    return Span(*span)


def _num_bytes(path: Path) -> int:
    with opened(path) as file:
        return os.fstat(file.fileno()).st_size


def file_sum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with opened(path) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
