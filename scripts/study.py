"""Run a study: arms x seeds of trainings, evaluations and probes, and a report with paired intervals."""

import argparse
import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import INTERRUPTED, add_config_arguments, log_to_stderr, make_parser, run_script
from evaluate import git_revision

if TYPE_CHECKING:
    from video_mirai.study.plan import Job, Plan

DESCRIPTION = """Run a study: arms x seeds of trainings, evaluations and probes, and a report with paired intervals.

Run it in the repository's root, with plain python. Finished jobs are kept and skipped; the same call goes on after a
stop or a kill, from the checkpoints. A job that fails does not stop the others; exit code 1 says that some did.
Writes runs, evaluations, probes and logs to OUT (out=...) and the small files that the report is made of, and the
report, to RESULTS (results=...)."""
EXAMPLE = "python scripts/study.py --config configs/study/scenes_tiny.yaml --dry-run"
STEPS = {"train": ("teacher", "train"), "evaluate": ("evaluate",), "probe": ("probe",), "report": ()}
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Parse, plan, run, report."""
    arguments = parse()

    # Below, because these imports take seconds and --help needs none.
    from video_mirai.config import load_config
    from video_mirai.study.collect import forget
    from video_mirai.study.config import StudyConfig
    from video_mirai.study.describe import describe_plan
    from video_mirai.study.plan import make_plan
    from video_mirai.study.records import discard, require_fresh, stale_jobs

    config = load_config(StudyConfig, arguments.config, arguments.overrides)
    log_to_stderr()
    plan = make_plan(config)
    jobs = chosen(plan, arguments)
    if arguments.discard_changed:
        for stale in stale_jobs(plan):
            print(f"discarded {stale.job.name}: {stale.why}")
            discard(plan, stale.job)
            forget(plan, stale.job)
    require_fresh(plan)
    if arguments.dry_run:
        print(describe_plan(plan, jobs))
        return
    run(plan, jobs)


def parse() -> argparse.Namespace:
    parser = make_parser(DESCRIPTION, EXAMPLE)
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print jobs, commands and an estimate, and leave")
    parser.add_argument("--only", choices=STEPS, help="jobs of one kind")
    parser.add_argument("--jobs", metavar="PATTERN", help="jobs whose name matches, as in 'train/foresight/*'")
    parser.add_argument(
        "--discard-changed", action="store_true", help="first remove what was made with other settings than now"
    )
    return parser.parse_intermixed_args()


def chosen(plan: "Plan", arguments: argparse.Namespace) -> "list[Job]":
    """Jobs that the command line asks for; ValueError where it names none."""
    kinds = None if arguments.only is None else STEPS[arguments.only]
    jobs = [job for job in plan.jobs if kinds is None or job.kind in kinds]
    if arguments.jobs is None:
        return jobs
    named = [job for job in jobs if fnmatch.fnmatchcase(job.name, arguments.jobs)]
    if not named:
        raise ValueError(f"--jobs {arguments.jobs!r} matches none of {', '.join(job.name for job in plan.jobs[:4])}, …")
    return named


def run(plan: "Plan", jobs: "list[Job]") -> None:
    """Run jobs, collect, report; SystemExit with 130 after a stop, 1 where some failed."""
    from video_mirai.study.collect import collect, read_facts
    from video_mirai.study.records import is_finished
    from video_mirai.study.report import write_report
    from video_mirai.study.runner import Outcome, run_jobs

    results = Path(str(plan.config.results))
    # A report alone may be had while another call is at work.
    outcome = run_jobs(plan, jobs, root=ROOT, revision=git_revision()) if jobs else Outcome(0, [], [], stopped=False)
    if any(is_finished(Path(str(plan.config.out)), job) for job in plan.jobs):
        collect(plan)
    if not jobs or read_facts(results):
        print(f"report: {write_report(results)}")
    if outcome.stopped:
        print("stopped; the same command goes on from here.")
        raise SystemExit(INTERRUPTED)
    if outcome.failed or outcome.waiting:
        missing = f"; not started for want of others: {', '.join(outcome.waiting)}" if outcome.waiting else ""
        raise SystemExit(
            f"error: {len(outcome.failed)} jobs failed: {', '.join(outcome.failed) or 'none'}{missing}. Logs: "
            f"{plan.config.out}/logs; the same command tries again."
        )
    print(f"{outcome.done} jobs done, {len(jobs) - outcome.done} were done before.")


if __name__ == "__main__":
    run_script(main)
