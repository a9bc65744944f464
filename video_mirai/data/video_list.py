"""Which videos a folder or a manifest holds, and which split each belongs to; no video is opened."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm")
MANIFEST_SUFFIXES = (".jsonl", ".txt")
USABLE = "ok"
VERDICTS = (USABLE, "needs-transcode", "bad")


class VideoFile(NamedTuple):
    """A video, or the piece of one that clips may be cut from.

    source: the path relative to the root, with forward slashes, which decides the split.
    name: the source, for a piece followed by "#<first_frame>-<end_frame>"; unique in a list.
    first_frame, end_frame: half-open range of frame numbers in the order shown; None: to the end of the file.
    """

    path: Path
    name: str
    source: str
    first_frame: int = 0
    end_frame: int | None = None
    caption: str | None = None


def list_videos(root: Path) -> list[VideoFile]:
    """The videos of a folder (hidden files left out) or of a manifest (verdict "ok" alone), sorted by source and start.

    How many entries a manifest's verdicts leave out is logged. Raises FileNotFoundError for a root that does not exist,
    ValueError where there is nothing usable or no manifest, and for a malformed line, which is named.
    """
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder or manifest of videos.")
    files = _folder_videos(root) if root.is_dir() else _manifest_videos(root)
    return sorted(files, key=lambda file: (file.source, file.first_frame))


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The entries of a .jsonl or .txt manifest, whatever their verdict, with keys of other tools as they are.

    Raises FileNotFoundError, or ValueError that names the manifest and the line: not UTF-8, not JSON, a value that
    cannot be, or two entries that share frames of a file.
    """
    numbered = list(_read_lines(path))
    _check_disjoint(path, numbered)
    return [entry for _, entry in numbered]


def write_manifest(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Writes a .jsonl manifest at once: it is there whole or, as before, not at all; folders are made.

    Raises ValueError for entries that `read_manifest` would refuse, naming the first; the manifest is not touched then.
    """
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"{path}: a manifest is written as .jsonl; name it {path.with_suffix('.jsonl').name}.")
    numbered = []
    for number, entry in enumerate(entries, start=1):
        if problem := _entry_problem(entry):
            raise ValueError(f"{path}, line {number}: {problem}.")
        numbered.append((number, entry))
    _check_disjoint(path, numbered)
    lines = "".join(_to_line(path, number, entry) for number, entry in numbered)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            # A file name that is no UTF-8 holds lone surrogates; a backslash makes each the JSON escape that it is.
            file.write(lines.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def split_of(source: str, seed: int, val_fraction: float, test_fraction: float) -> str:
    """Split of a file: its source and the seed are hashed to a number in [0, 1), so that other files don't matter."""
    digest = hashlib.sha256(f"{seed}/{source}".encode(errors="surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "val" if position < test_fraction + val_fraction else "train"


def _folder_videos(root: Path) -> list[VideoFile]:
    found = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    relative = ((path, path.relative_to(root)) for path in found)
    files = [VideoFile(path, name.as_posix(), name.as_posix()) for path, name in relative if not _is_hidden(name)]
    if not files:
        raise ValueError(f"{root}: no videos in this folder; looked for {', '.join(SUFFIXES)}.")
    return files


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _manifest_videos(manifest: Path) -> list[VideoFile]:
    entries = read_manifest(manifest)
    if not entries:
        raise ValueError(f"{manifest}: this manifest lists no videos.")
    usable = [entry for entry in entries if _verdict(entry) == USABLE]
    if len(usable) < len(entries):
        left_out = _describe_left_out(entries)
        if not usable:
            raise ValueError(f"{manifest}: no entry is {USABLE!r} of {len(entries)}: {left_out}.")
        num_left_out = len(entries) - len(usable)
        logger.warning("%s: %d of %d entries left out: %s", manifest, num_left_out, len(entries), left_out)
    return [_video_file(manifest.parent, entry) for entry in usable]


def _describe_left_out(entries: Iterable[Mapping[str, Any]]) -> str:
    """ "3 bad (the first: a.mp4: too short), 1 needs-transcode (the first: ...)"."""
    counts = Counter(_verdict(entry) for entry in entries)
    firsts = {_verdict(entry): entry for entry in reversed(list(entries))}
    parts = []
    for verdict in VERDICTS:
        if verdict != USABLE and counts[verdict]:
            reason = firsts[verdict].get("reason") or "no reason given"
            parts.append(f"{counts[verdict]} {verdict} (the first: {firsts[verdict]['path']}: {reason})")
    return " ".join(", ".join(parts).split())


def _verdict(entry: Mapping[str, Any]) -> str:
    return entry.get("verdict") or USABLE


def _video_file(folder: Path, entry: Mapping[str, Any]) -> VideoFile:
    path = folder / entry["path"]
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    source = relative.as_posix()
    first_frame, end_frame = _frame_range(entry)
    is_piece = first_frame > 0 or end_frame is not None
    name = f"{source}#{first_frame}-{'' if end_frame is None else end_frame}" if is_piece else source
    return VideoFile(path, name, source, first_frame, end_frame, entry.get("caption"))


def _frame_range(entry: Mapping[str, Any]) -> tuple[int, int | None]:
    return entry.get("first_frame") or 0, entry.get("end_frame")


def _read_lines(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, entry) of every line that holds one; empty lines and lines that start with # are comments."""
    suffix = manifest.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise ValueError(f"{manifest}: neither a folder nor a manifest ({', '.join(MANIFEST_SUFFIXES)}).")
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{manifest}: not a text in UTF-8 ({error.reason} at byte {error.start}).") from error
    # Not splitlines, which takes characters for line ends that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            entry = {"path": stripped} if suffix == ".txt" else json.loads(stripped)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{manifest}, line {number}: not JSON ({error}).") from error
        if problem := _entry_problem(entry):
            raise ValueError(f"{manifest}, line {number}: {problem}.")
        yield number, entry


def _entry_problem(entry: object) -> str | None:
    """What is wrong with an entry by itself, or None."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return f'expected an object with a "path", got {_short(entry)}'
    if not entry["path"].strip() or not _is_file_name(entry["path"]):
        return f"path={_short(entry['path'])} can be no path of a file"
    if entry.get("verdict") not in (None, *VERDICTS):
        return f"verdict={_short(entry['verdict'])} is unknown; known: {', '.join(VERDICTS)}"
    for key in ("caption", "reason"):
        if not isinstance(entry.get(key), str | None):
            return f"{key}={_short(entry[key])} is no text"
    if not _is_unicode(entry.get("caption") or ""):
        return f"caption={_short(entry['caption'])} is no text in Unicode"
    for key in ("first_frame", "end_frame"):
        value = entry.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            return f"{key}={_short(value)} must be a whole number from 0"
    first_frame, end_frame = _frame_range(entry)
    if end_frame is not None and first_frame >= end_frame:
        return f"first_frame={first_frame} must be less than end_frame={end_frame}"
    return None


def _is_unicode(text: str) -> bool:
    """Whether it has no lone surrogates, which JSON can spell and nothing can show."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file_name(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _check_disjoint(manifest: Path, numbered: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """ValueError naming two lines that list the same frames of a file."""
    ranges: dict[str, list[tuple[int, float, int]]] = {}
    for number, entry in numbered:
        first_frame, end_frame = _frame_range(entry)
        file = os.path.normpath(manifest.parent / entry["path"])
        ranges.setdefault(file, []).append((first_frame, float("inf") if end_frame is None else end_frame, number))
    for file, listed in ranges.items():
        for (_, end, number), (start, _, other) in pairwise(sorted(listed)):
            if start < end:
                first, second = sorted((number, other))
                raise ValueError(
                    f"{manifest}: this manifest lists a video twice: {_short(Path(file).name)} in line {first} and, "
                    f"with frames in common, in line {second}."
                )


def _to_line(path: Path, number: int, entry: Mapping[str, Any]) -> str:
    try:
        return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: cannot be written as JSON ({error}).") from error
