"""What split_scenes and filter_clips share: a folder or manifest in, files looked at in processes, a manifest out."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from check_videos import absolute_path, relative_path
from isolated_pool import run_isolated
from piece_inspection import Finding, FrameRange
from tool_cli import check_list_options
from video_mirai.data.video_check import BAD
from video_mirai.data.video_list import MANIFEST_SUFFIXES, USABLE, list_videos, read_manifest, write_manifest
from video_mirai.data.video_reader import READERS, available_backend

PATH_KEYS = ("path", "transcoded_from")

Entry = dict[str, Any]  # of a manifest; paths in it are absolute


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", type=Path, required=True, help="folder or manifest of videos")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write, .jsonl")
    parser.add_argument(
        "--backend",
        choices=sorted(READERS),
        default="decord",
        help="the reader that you train with: frames are counted as it counts them (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="files looked at side by side; the result does not depend on it (default: one per core)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="a file that takes longer is bad (default: %(default)g)",
    )


def check_options(options: argparse.Namespace) -> None:
    """ValueError for options of `add_options` that cannot be."""
    check_list_options(options)
    if options.out.exists() and options.videos.exists() and options.out.samefile(options.videos):
        raise ValueError(f"--out {options.out} would overwrite --videos; choose another.")
    available_backend(options.backend)


def read_entries(videos: Path) -> list[Entry]:
    """Every entry of a manifest, whatever its verdict, or one for each video of a folder.

    ValueError or FileNotFoundError where there is nothing that can be used.
    """
    if videos.is_dir() or not videos.exists() or videos.suffix.lower() not in MANIFEST_SUFFIXES:
        return [{"path": absolute_path(file.path)} for file in list_videos(videos)]
    entries = read_manifest(videos)
    if not any(is_usable(entry) for entry in entries):
        raise ValueError(f"{videos}: no entry is {USABLE!r} of {len(entries)}.")
    folder = videos.parent
    return [
        entry | {key: absolute_path(folder / entry[key]) for key in PATH_KEYS if isinstance(entry.get(key), str)}
        for entry in entries
    ]


def look_at_files(
    function: Callable[[Any], list[Finding]],
    make_task: Callable[[Path, list[FrameRange]], Any],
    ranges: Mapping[int, tuple[Path, FrameRange]],
    options: argparse.Namespace,
    label: str,
) -> dict[int, Finding]:
    """A finding about every piece, by its number; a file is opened once for all its pieces.

    Args:
        function: takes what make_task makes of a file and ranges of frames in it; called in other processes.
        ranges: the pieces, by number.
    """
    files: dict[Path, list[int]] = {}
    for number, (path, _) in ranges.items():
        files.setdefault(path, []).append(number)
    pieces = [sorted(numbers, key=lambda number: ranges[number][1][0]) for numbers in files.values()]
    tasks = [
        make_task(path, [ranges[number][1] for number in numbers]) for path, numbers in zip(files, pieces, strict=True)
    ]
    findings: dict[int, Finding] = {}
    outcomes = run_isolated(function, tasks, options.processes, options.timeout)
    for outcome in tqdm(outcomes, total=len(tasks), desc=label, unit="video"):
        numbers = pieces[outcome.number]
        found = [Finding(None, outcome.failure)] * len(numbers) if outcome.failure else outcome.value
        findings |= dict(zip(numbers, found, strict=True))
    return findings


def usable_ranges(entries: Sequence[Entry]) -> dict[int, tuple[Path, FrameRange]]:
    """Path and range of frames of the entries that are ok, by their place in the list."""
    return {number: (entry["path"], frame_range(entry)) for number, entry in enumerate(entries) if is_usable(entry)}


def is_usable(entry: Mapping[str, Any]) -> bool:
    return (entry.get("verdict") or USABLE) == USABLE


def frame_range(entry: Mapping[str, Any]) -> FrameRange:
    return entry.get("first_frame") or 0, entry.get("end_frame")


def kept(entry: Entry) -> Entry:
    return {**without_verdict(entry), "verdict": USABLE}


def dropped(entry: Entry, reason: str) -> Entry:
    return {**without_verdict(entry), "verdict": BAD, "reason": one_line(reason)}


def without_verdict(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key not in ("verdict", "reason")}


def one_line(reason: str) -> str:
    """One line of UTF-8: decoders quote broken files."""
    return " ".join(reason.encode("utf-8", "replace").decode().split())


def write_entries(out: Path, entries: Iterable[Entry]) -> None:
    """Writes the manifest, with paths relative to its folder."""
    folder = out.parent
    write_manifest(
        out,
        (
            entry | {key: relative_path(entry[key], folder) for key in PATH_KEYS if isinstance(entry.get(key), Path)}
            for entry in entries
        ),
    )


def piece_name(entry: Entry, folder: Path) -> str:
    """The name that loaders give the entry of a manifest in this folder."""
    first_frame, end_frame = frame_range(entry)
    source = relative_path(entry["path"], folder)
    if first_frame == 0 and end_frame is None:
        return source
    return f"{source}#{first_frame}-{'' if end_frame is None else end_frame}"


def print_problems(problems: Iterable[tuple[str, str]]) -> None:
    """Prints how many of each kind there are, and the first; problems: name and reason of each."""
    listed = list(problems)
    kinds = Counter(reason.split(":")[0] for _, reason in listed)
    for kind, count in sorted(kinds.items()):
        name, reason = next(problem for problem in listed if problem[1].split(":")[0] == kind)
        print(f"  {count:4} bad, {kind}; the first: {name}: {reason}")
