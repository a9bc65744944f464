"""Measure training steps, rollouts and the loader, beside diffusers and the machine's own matmul rate, in one run."""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from _cli import make_parser, run_script

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is no part of the installed package

PARTS = ("train", "sources", "rollout", "frame", "loader", "frechet")
EXTRA_PARTS = ("profile",)
DESCRIPTION = """Measure this machine: its matmul rate, training steps (ours, diffusers', with and without foresight),
steps with every source of foresight, milliseconds per frame of a rollout, a frame beside those of diffusers' causal
models, clips per second of the loader, the Frechet distance beside other libraries'; "profile" says where a frame's
time goes. Variants take turns in one run. Writes benchmark.json and benchmark.md, and prints the table;
docs/performance.md explains the rows. Nothing else should run meanwhile; OMP_NUM_THREADS sets the number of threads."""
EXAMPLE = "python scripts/benchmark.py --compile --out runs/benchmark"


def main() -> None:
    """Parse, measure, write, print."""
    options = parse_options()

    # Below, because these imports take seconds and --help needs none.
    import torch

    from benchmarks.machine import describe_machine, load, measure_machine
    from benchmarks.measure import Findings
    from benchmarks.report import write_report
    from benchmarks.sizes import FULL, QUICK
    from video_mirai.data.output_folder import make_output_folder

    out = make_output_folder(options.out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = QUICK if options.quick else FULL
    machine = describe_machine(device)
    findings = Findings()
    findings.extend(measure_machine(sizes, device))
    with tempfile.TemporaryDirectory() as work_dir:
        if "train" in options.only:
            from benchmarks.objective import measure_foresight
            from benchmarks.training import measure_steps

            findings.extend(measure_steps(sizes, device, compiled=options.compile))
            findings.extend(measure_foresight(sizes, device, Path(work_dir), compiled=False))
            if options.compile:
                torch.compiler.reset()
                findings.extend(measure_foresight(sizes, device, Path(work_dir), compiled=True))
        if "sources" in options.only:
            from benchmarks.sources import measure_sources

            findings.extend(measure_sources(sizes, device, Path(work_dir)))
        if "rollout" in options.only:
            from benchmarks.rollout import measure_rollout

            findings.extend(measure_rollout(sizes, device))
        if "frame" in options.only:
            from benchmarks.side_by_side import measure_side_by_side

            findings.extend(measure_side_by_side(sizes, compiled=options.compile))
        if "profile" in options.only:
            from benchmarks.profile_frame import measure_profile

            findings.extend(measure_profile(sizes))
        if "loader" in options.only:
            from benchmarks.loader import measure_loader

            findings.extend(measure_loader(sizes, Path(work_dir)))
        if "frechet" in options.only:
            from benchmarks.frechet import measure_frechet

            findings.extend(measure_frechet(sizes))
    machine["load after"] = load()
    command = shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]])
    print(write_report(out, machine, command, findings))
    print(f"written to {options.out}" + ("; --quick measures nothing, it shows that all of it runs" * options.quick))


def parse_options() -> argparse.Namespace:
    parser = make_parser(DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS + EXTRA_PARTS,
        default=list(PARTS),
        help="parts to measure (default: all but profile)",
    )
    parser.add_argument("--out", default="runs/benchmark", metavar="DIR", help="where (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: shows that it runs, measures nothing")
    parser.add_argument(
        "--compile", action="store_true", help="measure training steps and frames through torch.compile as well"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
