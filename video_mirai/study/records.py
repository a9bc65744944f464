"""What is known of a study's jobs: OUT/jobs/<job>.json, and what of it still belongs to the plan."""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from video_mirai.study.plan import Job, Plan, flat_settings

SHOWN_CHANGES = 3


@dataclass
class Attempt:
    """One start of a job's commands.

    Attributes:
        started: seconds since 1970. wall_seconds, cpu_seconds: of all its processes; of an attempt that was killed
            together with the runner, as last seen.
        exit_code: None while it runs, and where the runner was killed; negative: the signal that ended it.
        threads: that each process was given; None = as many as it likes.
    """

    started: float
    threads: int | None
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    exit_code: int | None = None


@dataclass
class JobRecord:
    """What a job was begun with.

    Attributes:
        born: seconds since 1970; tells it from another making of the same job.
        settings: as in the plan. made_from: {job that it needs: when that was born}. revision: of the code.
        finished: what it makes is there.
    """

    name: str
    born: float
    settings: str
    made_from: dict[str, float]
    revision: str
    commands: list[list[str]]
    attempts: list[Attempt] = field(default_factory=list)
    finished: bool = False

    @property
    def cpu_seconds(self) -> float:
        return sum(attempt.cpu_seconds for attempt in self.attempts)

    @property
    def wall_seconds(self) -> float:
        return sum(attempt.wall_seconds for attempt in self.attempts)


class Stale(NamedTuple):
    """A job that was begun with other settings. why: in which, in words."""

    job: Job
    why: str


def record_path(out: Path, job: str) -> Path:
    """Where a job's record lies."""
    return out / "jobs" / f"{job.replace('/', '.')}.json"


def log_path(out: Path, job: str) -> Path:
    """Where what a job printed lies."""
    return out / "logs" / f"{job.replace('/', '.')}.log"


def new_record(out: Path, job: Job, revision: str) -> JobRecord:
    """Of a job whose needs have all finished."""
    made_from = {}
    for need in job.needs:
        found = read_record(out, need)
        assert found is not None, "it has finished"
        made_from[need] = found.born
    return JobRecord(job.name, time.time(), job.settings, made_from, revision, [list(words) for words in job.commands])


def read_record(out: Path, job: str) -> JobRecord | None:
    """None where the job was never started.

    Raises:
        ValueError: the record is damaged.
    """
    path = record_path(out, job)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return JobRecord(**{**found, "attempts": [Attempt(**attempt) for attempt in found["attempts"]]})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); move it and what the job made away.") from error


def write_record(out: Path, record: JobRecord) -> None:
    """In one move: a kill leaves the old record or the new one."""
    path = record_path(out, record.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def is_finished(out: Path, job: Job) -> bool:
    """Whether a job's result is there; `require_fresh` says whether it is the plan's."""
    record = read_record(out, job.name)
    return record is not None and record.finished and job.done.exists()


def stale_jobs(plan: Plan) -> list[Stale]:
    """Jobs that were begun with other settings than the plan's, or of which there are files but no record."""
    out = Path(str(plan.config.out))
    records = {job.name: read_record(out, job.name) for job in plan.jobs}
    found: dict[str, Stale] = {}
    for job in plan.jobs:
        why = _why_stale(job, records, found)
        if why:
            found[job.name] = Stale(job, why)
    return list(found.values())


def changed_settings(before: str, now: str) -> list[str]:
    """ "key=new (was old)" of the settings that were there before and are not the same now.

    A setting that the code did not have before is no change: its default is what was done without it.
    """
    old, new = flat_settings(before), flat_settings(now)
    return [f"{key}={new.get(key)} (was {value})" for key, value in old.items() if key not in new or new[key] != value]


def _why_stale(job: Job, records: dict[str, JobRecord | None], stale: dict[str, Stale]) -> str:
    """Empty where it is not."""
    record = records[job.name]
    if record is None:
        return "its folder is there, but not from this study" if job.folder.exists() else ""
    changes = changed_settings(record.settings, job.settings)
    if changes:
        more = f" and {len(changes) - SHOWN_CHANGES} more" if len(changes) > SHOWN_CHANGES else ""
        return ", ".join(changes[:SHOWN_CHANGES]) + more
    for need in job.needs:
        source = records[need]
        if need in stale or source is None or record.made_from.get(need) != source.born:
            return f"made from another {need}"
    return ""


def require_fresh(plan: Plan) -> None:
    """ValueError where finished or begun jobs no longer belong to the study."""
    stale = stale_jobs(plan)
    if stale:
        named = "; ".join(f"{job.name} ({why})" for job, why in stale[:SHOWN_CHANGES])
        more = f"; and {len(stale) - SHOWN_CHANGES} more" if len(stale) > SHOWN_CHANGES else ""
        raise ValueError(
            f"{len(stale)} jobs in {plan.config.out} were made with other settings: {named}{more}. Undo the change, "
            f"choose another name=... or out=..., or remove what they made with --discard-changed."
        )


def discard(plan: Plan, job: Job) -> None:
    """Remove what a job made, and its record."""
    out = Path(str(plan.config.out))
    if job.folder.exists():
        shutil.rmtree(job.folder)
    for path in (record_path(out, job.name), log_path(out, job.name)):
        path.unlink(missing_ok=True)
