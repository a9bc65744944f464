"""Find the shots of every video, and list each as a piece of its file in a manifest: no clip crosses a boundary.

    histogram    looks for a change of colours that stands out from those around it: hard cuts
    transnet     TransNetV2 (extra `detectors`), a network trained to find shots: dissolves and fades too

Nothing but the manifest is written. Frames in the midst of a dissolve belong to no shot. Entries of a manifest that are
not ok stay as they are; its pieces are split within their own frames.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from check_videos import command_line, relative_path
from piece_inspection import Finding, FrameRange, SplitTask, find_shots
from piece_manifest import (
    Entry,
    add_options,
    check_options,
    dropped,
    is_usable,
    kept,
    look_at_files,
    print_problems,
    read_entries,
    usable_ranges,
    write_entries,
)
from tool_cli import check_device, run_tool
from video_mirai.data.shots import METHODS


class Listing(NamedTuple):
    """entries: of the manifest to be; the counts are of shots kept and too short."""

    entries: list[Entry]
    num_kept: int
    num_short: int


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    return run_tool("split_scenes", lambda: split_videos(options), "nothing was written")


def build_parser() -> argparse.ArgumentParser:
    thresholds = ", ".join(f"{method.threshold:g} for {name}" for name, method in METHODS.items())
    parser = argparse.ArgumentParser(
        description="Find the shots of every video and list each as a piece of its file in a manifest.",
        epilog="Example: python data_tools/split_scenes.py --videos data/checked.jsonl --out data/shots.jsonl",
    )
    add_options(parser)
    parser.add_argument(
        "--method",
        choices=list(METHODS),
        default="histogram",
        help="histogram finds hard cuts, transnet (extra detectors) dissolves too (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help=f"score between 0 and 1 above which a shot ends: lower finds more (default: {thresholds})",
    )
    parser.add_argument(
        "--min-seconds",
        type=float,
        default=1.0,
        help="a shorter shot is listed as bad, which loaders leave out; 0 keeps all (default: %(default)g)",
    )
    parser.add_argument(
        "--device", default="cpu", help="for transnet; each of --processes uses it (default: %(default)s)"
    )
    return parser


def split_videos(options: argparse.Namespace) -> None:
    """Finds the shots, writes the manifest and says what is in it."""
    check_options(options)
    threshold = METHODS[options.method].threshold if options.threshold is None else options.threshold
    if not 0 < threshold < 1:
        raise ValueError(f"--threshold must be between 0 and 1, got {threshold:g}.")
    if not options.min_seconds >= 0:
        raise ValueError(f"--min-seconds must be at least 0, got {options.min_seconds:g}.")
    check_method(options.method, options.device)
    entries = read_entries(options.videos)

    def make_task(path: Path, ranges: list[FrameRange]) -> SplitTask:
        return SplitTask(path, ranges, options.backend, options.method, threshold, options.device)

    findings = look_at_files(find_shots, make_task, usable_ranges(entries), options, "splitting")
    listing = list_shots(entries, findings, options.min_seconds)
    write_entries(options.out, listing.entries)
    summarise(options, entries, findings, listing)


def check_method(method: str, device: str) -> None:
    """ValueError for a method or a device that this machine does not have, before any video is opened."""
    check_device(device)
    METHODS[method].load("cpu")


def list_shots(entries: Sequence[Entry], findings: Mapping[int, Finding], min_seconds: float) -> Listing:
    """Each entry's shots in its place, with what else it says; entries that are not ok as they are."""
    listed: list[Entry] = []
    num_kept = num_short = 0
    for number, entry in enumerate(entries):
        if number not in findings:
            listed.append(entry)
        elif problem := findings[number].problem:
            listed.append(dropped(entry, problem))
        else:
            for shot in findings[number].value:
                piece = {**entry, "first_frame": shot.first_frame, "end_frame": shot.end_frame}
                is_short = shot.seconds < min_seconds
                reason = f"too short: a shot of {shot.seconds:.2f} s, less than {min_seconds:g}"
                listed.append(dropped(piece, reason) if is_short else kept(piece))
                num_kept += not is_short
                num_short += is_short
    return Listing(listed, num_kept, num_short)


def summarise(
    options: argparse.Namespace, entries: Sequence[Entry], findings: Mapping[int, Finding], listing: Listing
) -> None:
    """Prints how many shots there are, what could not be read, and the next command."""
    problems = [
        (relative_path(entries[number]["path"], options.out.parent), finding.problem)
        for number, finding in sorted(findings.items())
        if finding.problem
    ]
    num_split = len(findings) - len(problems)
    num_left = sum(not is_usable(entry) for entry in entries)
    print(
        f"{options.out}: {listing.num_kept} shots of {num_split} videos; {listing.num_short} more are shorter than "
        f"{options.min_seconds:g} s; {len(problems)} videos are bad; {num_left} entries were not ok before"
    )
    print_problems(problems)
    if listing.num_kept:
        out = options.out.with_name(f"{options.out.stem}_filtered.jsonl")
        backend = f" --backend {shlex.quote(options.backend)}" if options.backend != "decord" else ""
        print(f"next: {command_line('filter_clips', options.out, out)}{backend}")
    else:
        print("no shot can be used")


if __name__ == "__main__":
    sys.exit(main())
