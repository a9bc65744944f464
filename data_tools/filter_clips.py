"""Drop pieces of video that teach nothing: too short, black, static, without detail, near duplicates.

Every piece of a folder or a manifest gets a line in a new manifest: those that are dropped have the verdict bad and the
reason. For each reason there is a picture with what was dropped, the ones nearest to the threshold first, so that a
threshold can be judged by eye. Videos are never touched. Entries of a manifest that are not ok stay as they are.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from contact_sheet import Tile, contact_sheet
from piece_inspection import Finding, FrameRange, Measured, MeasureTask, measure_pieces, take_pictures
from piece_manifest import (
    Entry,
    add_options,
    check_options,
    dropped,
    is_usable,
    kept,
    look_at_files,
    piece_name,
    print_problems,
    read_entries,
    usable_ranges,
    write_entries,
)
from tool_cli import run_tool
from video_mirai.data.clip_quality import code_distance, near_duplicates
from video_mirai.media import write_image

KINDS = ("too-short", "black", "static", "low-detail", "near-duplicate")
SHEET_PIECES = 60  # on a contact sheet at most


class Drop(NamedTuple):
    """kind: of KINDS; margin: from the threshold to the value, in its unit; original: the number of what is kept."""

    kind: str
    value: str
    margin: float
    original: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    return run_tool("filter_clips", lambda: filter_pieces(options), "no manifest was written")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Drop pieces of video that are too short, black, static, without detail or near duplicates.",
        epilog="Example: python data_tools/filter_clips.py --videos data/shots.jsonl --out data/clips.jsonl",
    )
    add_options(parser)
    parser.add_argument(
        "--sheets",
        type=Path,
        metavar="DIR",
        help="folder for a picture <reason>.png of what was dropped for each reason; an earlier run's are replaced "
        "(default: <name of --out>_dropped beside it)",
    )
    parser.add_argument(
        "--drop", nargs="+", choices=KINDS, default=list(KINDS), metavar="REASON", help="default: all, %(default)s"
    )
    parser.add_argument("--min-seconds", type=float, default=1.0, help="shorter is too-short (default: %(default)g)")
    parser.add_argument(
        "--max-dark",
        type=float,
        default=0.98,
        help="share of the pixels with a luma below 32 of 255, above which a piece is black (default: %(default)g)",
    )
    parser.add_argument(
        "--min-motion",
        type=float,
        default=0.5,
        help="mean change of a pixel's luma from frame to frame, of 255, below which a piece is static (default: "
        "%(default)g)",
    )
    parser.add_argument(
        "--min-detail",
        type=float,
        default=15.0,
        help="variance of the Laplacian at 128 x 128 pixels, below which a piece is low-detail (default: %(default)g)",
    )
    parser.add_argument(
        "--max-distance",
        type=float,
        default=6.0,
        help="bits of 64 in which the perceptual hashes of two pieces may differ, in the mean of four frames, to be "
        "near-duplicates; the first in the list is kept (default: %(default)g)",
    )
    return parser


def filter_pieces(options: argparse.Namespace) -> None:
    """Measures every piece, writes pictures and manifest and says what was dropped."""
    check_options(options)
    check_limits(options)
    sheets = options.sheets or options.out.with_name(f"{options.out.stem}_dropped")
    if sheets.exists() and not sheets.is_dir():
        raise ValueError(f"--sheets {sheets} is a file; name a folder.")
    entries = read_entries(options.videos)

    def make_task(path: Path, ranges: list[FrameRange]) -> MeasureTask:
        return MeasureTask(path, ranges, options.backend)

    ranges = usable_ranges(entries)
    findings = look_at_files(measure_pieces, make_task, ranges, options, "measuring")
    measured = {number: findings[number].value for number in sorted(findings) if not findings[number].problem}
    drops = find_drops(measured, options)
    shown = pieces_to_show(drops)
    wanted = {number for numbers in shown.values() for number in numbers}
    wanted |= {original for number in wanted if (original := drops[number].original) is not None}
    pictures = look_at_files(
        take_pictures, make_task, {number: ranges[number] for number in sorted(wanted)}, options, "picturing"
    )
    names = [piece_name(entry, options.out.parent) for entry in entries]
    write_sheets(sheets, drops, shown, pictures, names)
    write_entries(options.out, list_pieces(entries, findings, drops, names))
    summarise(options, entries, findings, drops, names, sheets)


def check_limits(options: argparse.Namespace) -> None:
    for name in ("min_seconds", "min_motion", "min_detail"):
        value = getattr(options, name)
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be at least 0, got {value:g}.")
    if not 0 <= options.max_dark <= 1:
        raise ValueError(f"--max-dark is a share, from 0 to 1, got {options.max_dark:g}.")
    if not 0 <= options.max_distance <= 64:
        raise ValueError(f"--max-distance must be from 0 to 64 bits, got {options.max_distance:g}.")


def find_drops(measured: Mapping[int, Measured], options: argparse.Namespace) -> dict[int, Drop]:
    """What is dropped, by number: for the first reason in KINDS that holds."""
    drops = {number: drop for number, piece in measured.items() if (drop := own_reason(piece, options)) is not None}
    if "near-duplicate" in options.drop:
        left = [number for number in measured if number not in drops]
        codes = [measured[number].quality.code for number in left]
        for number, code, place in zip(left, codes, near_duplicates(codes, options.max_distance), strict=True):
            if place is not None:
                bits = code_distance(code, codes[place])
                value = f"{bits:g} of 64 bits differ"
                drops[number] = Drop("near-duplicate", value, options.max_distance - bits, left[place])
    return drops


def own_reason(piece: Measured, options: argparse.Namespace) -> Drop | None:
    """Why a piece is dropped whatever the others are, or None."""
    quality = piece.quality
    seconds = Drop("too-short", f"{piece.seconds:.2f} s", options.min_seconds - piece.seconds)
    dark = Drop("black", f"{quality.dark_share:.1%} of the pixels are dark", quality.dark_share - options.max_dark)
    motion = Drop("static", f"motion {quality.motion:.3g}", options.min_motion - quality.motion)
    detail = Drop("low-detail", f"detail {quality.detail:.3g}", options.min_detail - quality.detail)
    found = (drop for drop in (seconds, dark, motion, detail) if drop.kind in options.drop and drop.margin > 0)
    return next(found, None)


def pieces_to_show(drops: Mapping[int, Drop]) -> dict[str, list[int]]:
    """For each kind numbers of SHEET_PIECES pieces at most, evenly spaced from the nearest to the threshold on."""
    shown = {}
    for kind in KINDS:
        numbers = sorted((drop.margin, number) for number, drop in drops.items() if drop.kind == kind)
        num_shown = min(SHEET_PIECES, len(numbers))
        if num_shown:
            shown[kind] = [numbers[place * len(numbers) // num_shown][1] for place in range(num_shown)]
    return shown


def write_sheets(
    folder: Path,
    drops: Mapping[int, Drop],
    shown: Mapping[str, Sequence[int]],
    pictures: Mapping[int, Finding],
    names: Sequence[str],
) -> None:
    """Writes a picture for each kind, and removes those of an earlier run that dropped more kinds."""
    for kind in KINDS:
        if kind not in shown:
            (folder / f"{kind}.png").unlink(missing_ok=True)
            continue
        tiles = []
        for number in shown[kind]:
            original = drops[number].original
            side_by_side = [number] if original is None else [number, original]
            name = names[number] if original is None else f"{names[number]}, kept: {names[original]}"
            tiles.append(Tile([pictures[other].value for other in side_by_side], name, drops[number].value))
        count = sum(drop.kind == kind for drop in drops.values())
        order = "the nearest to the threshold first"
        write_image(folder / f"{kind}.png", contact_sheet(f"{kind}: {len(tiles)} of {count}, {order}", tiles))


def list_pieces(
    entries: Sequence[Entry], findings: Mapping[int, Finding], drops: Mapping[int, Drop], names: Sequence[str]
) -> list[Entry]:
    """The entries of the manifest to be: those that were measured with verdict and values, others as they are."""
    listed = []
    for number, entry in enumerate(entries):
        if number not in findings:
            listed.append(entry)
        elif problem := findings[number].problem:
            listed.append(dropped(entry, problem))
        else:
            entry = entry | values_of(findings[number].value)
            drop = drops.get(number)
            listed.append(kept(entry) if drop is None else dropped(entry, reason_of(drop, names)))
    return listed


def values_of(piece: Measured) -> dict[str, float]:
    """What was measured, as the manifest has it: enough digits to choose a threshold by."""
    quality = piece.quality
    return {
        "seconds": round(piece.seconds, 3),
        "dark": round(quality.dark_share, 4),
        "motion": float(f"{quality.motion:.4g}"),
        "detail": float(f"{quality.detail:.4g}"),
    }


def reason_of(drop: Drop, names: Sequence[str]) -> str:
    of = "" if drop.original is None else f"of {names[drop.original]}, "
    return f"{drop.kind}: {of}{drop.value}"


def summarise(
    options: argparse.Namespace,
    entries: Sequence[Entry],
    findings: Mapping[int, Finding],
    drops: Mapping[int, Drop],
    names: Sequence[str],
    sheets: Path,
) -> None:
    """Prints what was kept and what dropped for which reason, and the next command."""
    problems = [(names[number], finding.problem) for number, finding in sorted(findings.items()) if finding.problem]
    num_kept = len(findings) - len(problems) - len(drops)
    num_left = sum(not is_usable(entry) for entry in entries)
    print(
        f"{options.out}: {num_kept} of {len(findings)} pieces kept, {len(drops)} dropped, {len(problems)} bad; "
        f"{num_left} entries were not ok before"
    )
    for kind in KINDS:
        numbers = [number for number in sorted(drops) if drops[number].kind == kind]
        if numbers:
            reason = reason_of(drops[numbers[0]], names)
            print(f"  {len(numbers):4} {kind}: {sheets / f'{kind}.png'}; the first: {names[numbers[0]]}: {reason}")
    print_problems(problems)
    if num_kept:
        videos, out = shlex.quote(str(options.out)), shlex.quote(str(options.out.parent / "latents"))
        backend = f" --backend {shlex.quote(options.backend)}" if options.backend != "decord" else ""
        print(f"next: python data_tools/encode_latents.py --videos {videos} --codec CODEC --out {out}{backend}")
    else:
        print("no piece is left")


if __name__ == "__main__":
    sys.exit(main())
