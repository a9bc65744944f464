"""A plan in words: jobs, commands, and how long they will take."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from video_mirai.study.plan import Difference, Job, Plan
from video_mirai.study.records import is_finished, read_record
from video_mirai.study.runner import num_processes


def describe_plan(plan: Plan, jobs: Sequence[Job]) -> str:
    """Every job with its commands, differences of the arms, and an estimate."""
    out = Path(str(plan.config.out))
    lines = [f"study {plan.config.name}: {len(jobs)} jobs, {num_processes(plan)} at once; results in "
             f"{plan.config.results}", ""]  # fmt: skip
    for job in jobs:
        state = "done" if is_finished(out, job) else "to do"
        lines.append(f"{job.name}  [{state}]")
        lines += [f"    python {shlex.join(command)}" for command in job.commands]
    lines += ["", f"arms against {plan.config.reference} (everything else is the same):"]
    lines += [f"    {line}" for line in difference_lines(plan.differences)] or ["    no differences"]
    return "\n".join([*lines, "", estimate(plan, jobs)])


def difference_lines(differences: Sequence[Difference]) -> list[str]:
    return [f"{d.arm}: {d.key} = {d.value} ({d.reference} there)" for d in differences]


def estimate(plan: Plan, jobs: Sequence[Job]) -> str:
    """How long the unfinished jobs will take, from finished ones of the same kind, if possible of the same arm."""
    out = Path(str(plan.config.out))
    todo = [job for job in jobs if not is_finished(out, job)]
    if not todo:
        return "estimate: nothing is left to do."
    seconds = [_expected_seconds(plan, job) for job in todo]
    unknown = sorted({job.kind for job, known in zip(todo, seconds, strict=True) if known is None})
    known = sum(value for value in seconds if value is not None) / num_processes(plan)
    parts = [f"about {known / 60:.0f} minutes of wall time"] if known else []
    if unknown:
        parts.append(f"unknown for {', '.join(unknown)}: none has finished here yet")
    return f"estimate: {len(todo)} jobs to do; {'; '.join(parts)}."


def _expected_seconds(plan: Plan, job: Job) -> float | None:
    """Mean wall seconds of finished jobs most like this one; None without any."""
    out = Path(str(plan.config.out))
    alike = [other for other in plan.jobs if other.kind == job.kind and is_finished(out, other)]
    same_arm = [other for other in alike if other.owner == job.owner]
    records = [read_record(out, other.name) for other in same_arm or alike]
    return float(np.mean([record.wall_seconds for record in records if record is not None])) if records else None
