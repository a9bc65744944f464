"""Try every metric on videos damaged in known ways, and real videos on other real ones; print the tables."""

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import make_parser, run_script

if TYPE_CHECKING:
    from video_mirai.evaluation.sensitivity import RealAgainstReal, Responses, SensitivitySettings

DESCRIPTION = """Try every metric on synthetic scenes with noise, blur, shuffled frames, a frozen end, swapped
identities and a slow drift of colour, each of increasing strength; and measure real scenes against other real scenes.
Prints two tables in Markdown, and puts them between their markers in a document where --into names one. Exits with 1
when a metric does not see what it should."""
EXAMPLE = "python scripts/sensitivity.py --into docs/evaluation.md"
BEGIN, END = "<!-- sensitivity: begin -->", "<!-- sensitivity: end -->"
ARROWS = {1: " ↑", -1: " ↓", 0: ""}


def main() -> None:
    """Parse, measure, print, write."""
    options = parse_options()
    into = None if options.into is None else read_document(Path(options.into))

    # Below, because these imports take seconds and --help needs none.
    from video_mirai.evaluation.sensitivity import (
        SensitivitySettings,
        measure_sensitivity,
        missed,
        real_against_real,
    )

    settings = SensitivitySettings(
        num_videos=options.videos, num_clips=options.clips, detectors=tuple(options.detectors), seed=options.seed
    )
    start = time.perf_counter()
    responses = measure_sensitivity(settings)
    real = real_against_real(settings)
    command = shlex.join(["python", "scripts/sensitivity.py", *sys.argv[1:]])
    text = f"Made by `{command}` in {time.perf_counter() - start:.0f} s.\n\n{to_markdown(settings, responses, real)}"
    print(text)
    if into is not None:
        before, after = into
        Path(options.into).write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    if failures := missed(responses):
        print("not seen: " + "; ".join(failures), file=sys.stderr)
        sys.exit(1)


def parse_options() -> argparse.Namespace:
    parser = make_parser(DESCRIPTION, EXAMPLE)
    parser.add_argument("--videos", type=int, default=24, metavar="N", help="videos to damage (default: %(default)s)")
    parser.add_argument(
        "--clips", type=int, default=256, metavar="N", help="clips of each real set, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--detectors", nargs="+", default=["random3d"], metavar="NAME", help="random3d first (default: random3d)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of scenes and damage (default: %(default)s)")
    parser.add_argument("--into", metavar="DOCUMENT", help="file with the two markers to write the tables between")
    return parser.parse_args()


def read_document(path: Path) -> tuple[str, str]:
    """What stands before and after the markers; ValueError when they aren't there."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the lines {BEGIN} and {END}, between which the tables go.")
    return before, after


def to_markdown(settings: "SensitivitySettings", responses: "Responses", real: "RealAgainstReal") -> str:
    """Both tables with a line above each."""
    from video_mirai.evaluation.corruptions import CORRUPTIONS
    from video_mirai.evaluation.sensitivity import EXPECTED

    names = list(CORRUPTIONS)
    strongest = [f"{name}, {c.strengths[-1]:g} {c.unit}" for name, c in CORRUPTIONS.items()]
    lines = [
        f"{settings.num_videos} scenes of {settings.num_frames} frames, at the strongest damage. An arrow: each of the "
        f"{settings.num_strengths} steps of strength moved the metric that way, and all of them together by more than "
        "real videos differ from other real ones (“by chance”). Bold: what ought to see it. Distances are from the "
        "same videos undamaged.",
        "",
        "| metric | undamaged | by chance | " + " | ".join(strongest) + " |",
        "|---|---:|---:|" + "---:|" * len(names),
    ]
    for metric, row in responses.items():
        cells = []
        for name in names:
            cell = number(row[name].values[-1]) + ARROWS[row[name].direction]
            cells.append(f"**{cell}**" if metric in EXPECTED[name] else cell)
        some = row[names[0]]
        lines.append(f"| {metric} | {number(some.values[0])} | {number(some.floor)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Real clips against as many other real clips:",
        "",
        "| distance | " + " | ".join(f"N = {count}" for count in real.counts) + " |",
        "|---|" + "---:|" * len(real.counts),
    ]
    lines += [f"| {name} | " + " | ".join(map(number, values)) + " |" for name, values in real.distances.items()]
    return "\n".join(lines)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else "0" if abs(value) < 5e-4 else f"{float(f'{value:.3g}'):g}"


if __name__ == "__main__":
    run_script(main)
