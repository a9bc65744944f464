"""Check every video of a folder to its end, and list them in a manifest with a verdict each.

    ok                 decodes to its end, and random access gives the right frames at the right times
    needs-transcode    decodes, but random access is wrong or impossible; --transcode rewrites it
    bad                unreadable, truncated or damaged, with the reason

Originals are never touched. Run it again after adding videos, or after an interruption: files that have not changed
since are not checked again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from isolated_pool import run_isolated
from tool_cli import check_list_options, run_tool
from video_inspection import OWN_KEYS, Entry, Task, failed, identity_key, inspect
from video_mirai.data.output_folder import make_output_folder
from video_mirai.data.video_check import BAD, NEEDS_TRANSCODE
from video_mirai.data.video_list import SUFFIXES, USABLE, list_videos, read_manifest, write_manifest
from video_mirai.data.video_reader import READERS, available_backend

SAVE_SECONDS = 20.0  # of work that an interruption may lose
SHOWN_SUFFIXES = 6


class Source(NamedTuple):
    """A line of the manifest to be: the file, its path below the folder of videos, what the line says besides."""

    path: Path
    name: str
    given: Entry


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    return run_tool("check_videos", lambda: check_folder(options), "run the same command again to go on")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Check every video of a folder to its end and write a manifest with a verdict for each; resumable.",
        epilog="Example: python data_tools/check_videos.py --videos data/films --out data/checked.jsonl "
        "--transcode data/rewritten",
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder or manifest of videos")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write, .jsonl")
    parser.add_argument(
        "--transcode",
        type=Path,
        metavar="DIR",
        help="rewrite files that need it into this folder (H.264, closed GOP, no sound) and list those instead",
    )
    parser.add_argument(
        "--backend",
        choices=sorted(READERS),
        default="decord",
        help="the reader whose random access is checked: the one that you train with (default: %(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="files checked side by side (default: one per core)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="a file that takes longer to check, or to rewrite, is bad (default: %(default)g)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the frames that are compared (default: %(default)s)")
    return parser


def check_folder(options: argparse.Namespace) -> None:
    """Checks what is new or has changed, writes the manifest and says what is in it."""
    backend = check_options(options)
    make_output_folder(options.out.parent)
    sources = list_sources(options.videos)
    targets = rewritten_paths(sources, options.transcode)
    partial = options.out.with_name(f".{options.out.stem}.partial.jsonl")
    known = {
        path: entry
        for path, entry in known_entries((options.out, partial)).items()
        if is_reusable(entry, backend, options.transcode is not None)
    }
    files = list(dict.fromkeys(source.path for source in sources))
    results = {file: known[file] for file in files if file in known and is_untouched(known[file], file)}
    new = [file for file in files if file not in results]
    num_kept = len(results)
    tasks = [Task(file, backend, options.seed, targets.get(file), options.timeout, known.get(file)) for file in new]
    timeout = options.timeout * (1 if options.transcode is None else 3)  # a check, the rewriting, another check
    saved = time.monotonic()
    try:
        outcomes = run_isolated(inspect, tasks, options.processes, timeout)
        for outcome in tqdm(outcomes, total=len(new), desc="checking", unit="video"):
            inspection = outcome.value or failed(tasks[outcome.number], outcome.failure)
            results[new[outcome.number]] = inspection.entry
            num_kept += inspection.was_known
            if time.monotonic() - saved > SAVE_SECONDS:
                write_manifest(partial, lines(sources, results, partial.parent))
                saved = time.monotonic()
    except BaseException:
        if len(results) > num_kept:
            write_manifest(partial, lines(sources, results, partial.parent))
        raise
    entries = list(lines(sources, results, options.out.parent))
    write_manifest(options.out, entries)
    partial.unlink(missing_ok=True)
    summarise(options, entries, num_kept)


def check_options(options: argparse.Namespace) -> str:
    """The backend that really serves; ValueError for options that cannot be."""
    check_list_options(options)
    if options.transcode and options.videos.is_dir():
        videos, rewritten = options.videos.resolve(), options.transcode.resolve()
        if rewritten.is_relative_to(videos):
            raise ValueError(f"--transcode {options.transcode} is inside --videos {options.videos}; choose another.")
    return available_backend(options.backend)


def list_sources(videos: Path) -> list[Source]:
    """What a folder or a manifest lists; of a manifest also the other keys, and the entries that are not ok."""
    if videos.is_dir() or videos.suffix.lower() != ".jsonl":
        return [Source(absolute_path(file.path), file.source, {}) for file in list_videos(videos)]
    sources = []
    for entry in read_manifest(videos):
        given = {key: value for key, value in entry.items() if key not in OWN_KEYS}
        if entry.get("verdict") == BAD:  # said by someone who knows more than whether it decodes
            given |= {"verdict": BAD, "reason": entry.get("reason") or "no reason given"}
        sources.append(Source(absolute_path(videos.parent / entry["path"]), entry["path"], given))
    if not sources:
        raise ValueError(f"{videos}: this manifest lists no videos.")
    return sources


def rewritten_paths(sources: Iterable[Source], folder: Path | None) -> dict[Path, Path]:
    """Where each file would be rewritten to: the same path below `folder`, as .mp4; ValueError where files clash."""
    if folder is None:
        return {}
    originals = {source.path: below(source.name) for source in sources}
    counts = Counter(name.with_suffix("").as_posix().casefold() for name in originals.values())
    targets = {}
    for original, name in originals.items():
        is_alone = counts[name.with_suffix("").as_posix().casefold()] == 1
        targets[original] = absolute_path(folder) / (name.with_suffix(".mp4") if is_alone else Path(f"{name}.mp4"))
    taken = Counter(targets.values())
    for original, target in targets.items():
        if target in originals:
            raise ValueError(f"--transcode {folder} would overwrite the original {target}; choose another folder.")
        if taken[target] > 1:
            raise ValueError(f"{original} and another video would both be rewritten as {target}; rename one.")
    return targets


def below(name: str) -> Path:
    """A relative path that stays below the folder that it is put into."""
    path = Path(name)
    return Path(*(part for part in path.parts if part not in ("..", path.anchor)))


def known_entries(manifests: Iterable[Path]) -> dict[Path, Entry]:
    """This tool's own keys of what earlier runs wrote, by original file; paths in them are absolute.

    Raises ValueError for a manifest that another tool or a person wrote, lest it be overwritten.
    """
    known = {}
    for manifest in manifests:
        if not manifest.exists():
            continue
        for entry in read_manifest(manifest):
            if "backend" not in entry:
                raise ValueError(f"{manifest} was not written by check_videos; choose another --out.")
            own = {key: entry[key] for key in OWN_KEYS if key in entry}
            for key in ("path", "transcoded_from"):
                if key in own:
                    own[key] = absolute_path(manifest.parent / str(own[key]))
            known[own.get("transcoded_from", own["path"])] = own
    return known


def is_reusable(entry: Entry, backend: str, transcodes: bool) -> bool:
    """Whether a known entry answers what is asked now, as long as the original is the same."""
    if entry["backend"] != backend or identity_key(entry, "sha256") not in entry:
        return False  # crashes and time-outs have no checksum: they may have been the machine's fault
    if "transcoded_from" in entry:
        return is_same_file(entry["path"], entry.get("bytes"), entry.get("modified"))
    return not (transcodes and entry.get("verdict") == NEEDS_TRANSCODE)


def is_untouched(entry: Entry, original: Path) -> bool:
    return is_same_file(original, *(entry.get(identity_key(entry, key)) for key in ("bytes", "modified")))


def is_same_file(path: Path, num_bytes: object, modified: object) -> bool:
    try:
        now = path.stat()
    except OSError:
        return False
    return (now.st_size, now.st_mtime_ns) == (num_bytes, modified)


def lines(sources: Iterable[Source], results: Mapping[Path, Entry], folder: Path) -> Iterator[Entry]:
    """The manifest's entries so far, in the order of the sources, with paths relative to its folder."""
    for source in sources:
        if source.path not in results:
            continue
        entry = {key: value for key, value in results[source.path].items() if value is not None}
        for key in ("path", "transcoded_from"):
            if key in entry:
                entry[key] = relative_path(entry[key], folder)
        yield {**entry, **source.given}


def absolute_path(path: Path) -> Path:
    return Path(os.path.abspath(path))


def relative_path(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive on Windows
        return path.as_posix()


def summarise(options: argparse.Namespace, entries: Sequence[Entry], num_kept: int) -> None:
    """Prints counts by verdict and by kind of reason, and the next command."""
    counts = Counter(entry["verdict"] for entry in entries)
    num_rewritten = sum("transcoded_from" in entry for entry in entries)
    rewritten = f", {num_rewritten} of them rewritten" if num_rewritten else ""
    print(
        f"{options.out}: {len(entries)} videos, {counts[USABLE]} ok{rewritten}, {counts[NEEDS_TRANSCODE]} need "
        f"transcoding, {counts[BAD]} bad; {num_kept} had not changed since an earlier check"
    )
    rejected = [entry for entry in entries if entry["verdict"] != USABLE]
    kinds = Counter((entry["verdict"], entry["reason"].split(":")[0]) for entry in rejected)
    for (verdict, kind), count in sorted(kinds.items()):
        first = next(
            entry for entry in rejected if (entry["verdict"], entry["reason"].split(":")[0]) == (verdict, kind)
        )
        print(f"  {count:4} {verdict}, {kind}; the first: {first['path']}: {first['reason']}")
    if options.videos.is_dir() and (others := other_suffixes(options.videos)):
        named = ", ".join(f"{suffix or 'no suffix'} {count}" for suffix, count in others.most_common(SHOWN_SUFFIXES))
        print(f"  not listed, since the suffix is no video's: {named}")
    if counts[NEEDS_TRANSCODE] and options.transcode is None:
        again = command_line("check_videos", options.videos, options.out)
        print(
            f"to rewrite those that need it: {again} --transcode {shlex.quote(str(options.out.parent / 'rewritten'))}"
        )
    if counts[USABLE]:
        shots = options.out.with_name(f"{options.out.stem}_shots.jsonl")
        print(f"next: {command_line('split_scenes', options.out, shots)}")
    else:
        print("no video can be used as it is")


def command_line(tool: str, videos: Path, out: Path) -> str:
    return f"python data_tools/{tool}.py --videos {shlex.quote(str(videos))} --out {shlex.quote(str(out))}"


def other_suffixes(folder: Path) -> Counter[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return Counter(path.suffix.lower() for path in files if path.suffix.lower() not in SUFFIXES)


if __name__ == "__main__":
    sys.exit(main())
