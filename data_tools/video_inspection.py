"""What check_videos does with one file, in a process of its own: checksum, check, rewriting where that is asked for."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any, NamedTuple

from video_mirai.data.video_check import BAD, NEEDS_TRANSCODE, VideoCheck, check_video
from video_mirai.data.video_transcode import TranscodeFailed, check_transcoded, transcode

FACTS = ("verdict", "reason", "frames", "fps", "width", "height", "codec", "duration")
IDENTITY = ("sha256", "bytes", "modified")  # modified: nanoseconds
OF_ORIGINAL = "original_"  # the same of the file that was rewritten
OWN_KEYS = (
    *("path", *FACTS, *IDENTITY, "backend", "transcoded_from", "transcoded_because"),
    *(f"{OF_ORIGINAL}{key}" for key in IDENTITY),
)
BYTES_PER_READ = 1 << 20

Entry = dict[str, Any]


class Task(NamedTuple):
    """target: where to rewrite the file if need be; known: its entry of an earlier run, if that answers this one."""

    path: Path
    backend: str
    seed: int
    target: Path | None
    timeout_seconds: float
    known: Entry | None


class Inspection(NamedTuple):
    """entry: of the manifest, but with paths as they are; was_known: the file has the checksum of the known entry."""

    entry: Entry
    was_known: bool = False


def inspect(task: Task) -> Inspection:
    """Checks one file; whatever is wrong with it ends in the entry."""
    entry: Entry = {"path": task.path, "verdict": BAD, "reason": "", "backend": task.backend}
    try:
        status = task.path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Inspection({**entry, "reason": "unreadable: not an ordinary file"})
        identity = identify(task.path)
        if task.known is not None and identity["sha256"] == task.known[identity_key(task.known, "sha256")]:
            modified = identity_key(task.known, "modified")
            return Inspection({**task.known, modified: identity["modified"]}, was_known=True)
        check = check_video(task.path, task.backend, task.seed)
    except OSError as error:
        return Inspection({**entry, "reason": f"unreadable: {error.strerror}"})
    entry |= {**facts_of(check), **identity}
    if check.decoded is None or check.verdict != NEEDS_TRANSCODE or task.target is None:
        return Inspection(entry)
    try:
        transcode(task.path, task.target, check.decoded, task.timeout_seconds)
        rewritten = check_transcoded(task.target, check.decoded, task.backend, task.seed)
    except TranscodeFailed as error:
        task.target.unlink(missing_ok=True)
        return Inspection({**entry, "reason": f"{check.reason}; rewriting failed: {error}"})
    origin = {"transcoded_from": task.path, "transcoded_because": check.reason}
    identity_of_original = {f"{OF_ORIGINAL}{key}": value for key, value in identity.items()}
    entry |= {"path": task.target, **facts_of(rewritten), **identify(task.target)}
    return Inspection({**entry, **origin, **identity_of_original})


def failed(task: Task, reason: str) -> Inspection:
    """The entry of a file whose check crashed or took too long: no checksum, so that it is checked again next time."""
    return Inspection({"path": task.path, "verdict": BAD, "reason": reason, "backend": task.backend})


def identity_key(entry: Entry, key: str) -> str:
    """The key under which an entry holds what identifies the original file."""
    return f"{OF_ORIGINAL}{key}" if "transcoded_from" in entry else key


def facts_of(check: VideoCheck) -> Entry:
    """verdict, reason and, where the file decodes, the facts; an empty reason is None."""
    facts = {} if check.decoded is None else check.decoded.facts._asdict()
    return {"verdict": check.verdict, "reason": writable(check.reason) or None, **facts}


def writable(reason: str) -> str:
    """One line of UTF-8: libav quotes broken files."""
    return " ".join(reason.encode("utf-8", "replace").decode().split())


def identify(path: Path) -> Entry:
    """sha256, bytes and time of modification."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BYTES_PER_READ):
            digest.update(block)
    status = path.stat()
    return {"sha256": digest.hexdigest(), "bytes": status.st_size, "modified": status.st_mtime_ns}
