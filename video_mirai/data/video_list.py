"""Which videos a folder or a manifest holds, and which split each belongs to; no video is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm")
MANIFEST_SUFFIXES = (".jsonl", ".txt")


class VideoFile(NamedTuple):
    """name: the path relative to the root, with forward slashes, which decides the split."""

    path: Path
    name: str


def list_videos(root: Path) -> list[VideoFile]:
    """The videos of a folder (hidden files left out) or of a manifest, sorted by name.

    Raises FileNotFoundError for a root that does not exist, ValueError where there is nothing or no manifest.
    """
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder or manifest of videos.")
    if root.is_dir():
        found = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
        relative = ((path, path.relative_to(root)) for path in found)
        files = [VideoFile(path, name.as_posix()) for path, name in relative if not _is_hidden(name)]
        if not files:
            raise ValueError(f"{root}: no videos in this folder; looked for {', '.join(SUFFIXES)}.")
    else:
        files = [VideoFile(root.parent / name, Path(name).as_posix()) for name in _manifest_names(root)]
        if not files:
            raise ValueError(f"{root}: this manifest lists no videos.")
        if len({file.name for file in files}) < len(files):
            raise ValueError(f"{root}: this manifest lists a video twice.")
    return sorted(files, key=lambda file: file.name)


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _manifest_names(manifest: Path) -> Iterator[str]:
    if manifest.suffix.lower() not in MANIFEST_SUFFIXES:
        raise ValueError(f"{manifest}: neither a folder nor a manifest ({', '.join(MANIFEST_SUFFIXES)}).")
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if manifest.suffix.lower() == ".txt":
            yield text
            continue
        try:
            entry = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{manifest}, line {number}: not JSON ({error}).") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise ValueError(f'{manifest}, line {number}: expected an object with a "path", got {text[:60]}.')
        yield entry["path"]


def split_of(name: str, seed: int, val_fraction: float, test_fraction: float) -> str:
    """Split of a file: its name and the seed are hashed to a number in [0, 1), so that other files don't matter."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "val" if position < test_fraction + val_fraction else "train"
