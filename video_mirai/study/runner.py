"""Runs a plan's jobs, several at once: resumable at any point, stopped cleanly, each timed in CPU seconds."""

import fcntl
import logging
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import IO, NamedTuple

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from video_mirai.study.plan import Job, Plan
from video_mirai.study.records import (
    Attempt,
    JobRecord,
    is_finished,
    log_path,
    new_record,
    read_record,
    write_record,
)
from video_mirai.training.signals import StopSignals

POLL_SECONDS = 0.2
NOTE_SECONDS = 10.0  # a killed runner forgets at most so much of a job's time
ORPHAN_SECONDS = 300.0

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """failed: names of jobs. waiting: jobs that could not start, for want of others. stopped: by a signal."""

    done: int
    failed: list[str]
    waiting: list[str]
    stopped: bool


@dataclass
class _Running:
    """A job whose command number `index` runs. spent: CPU seconds of the commands before it."""

    job: Job
    record: JobRecord
    process: "Popen[bytes]"
    lock: IO[str]
    index: int = 0
    spent: float = 0.0
    noted: float = 0.0


def run_jobs(plan: Plan, jobs: Sequence[Job], *, root: Path, revision: str) -> Outcome:
    """Run what is not finished of some of the plan's jobs.

    Args:
        root: of the repository, where the scripts are.
    Raises:
        ValueError: another runner is at work in the study's folder.
    """
    out = Path(str(plan.config.out))
    with _lock_file(out / "study.lock", "another study.py is at work in this folder"):
        for job in plan.jobs:
            _end_orphan(out, job)
        present = {job.name for job in plan.jobs if is_finished(out, job)}
        todo = [job for job in jobs if job.name not in present]
        with logging_redirect_tqdm(), StopSignals() as signals:
            pool = _Pool(plan, todo, present, root, revision)
            return pool.run(signals)


def num_processes(plan: Plan) -> int:
    """Jobs at once: what the study says, or else one for each core, on a GPU one."""
    if plan.config.processes is not None:
        return plan.config.processes
    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


class _Pool:
    """Starts what can start, waits, records."""

    def __init__(self, plan: Plan, todo: list[Job], present: set[str], root: Path, revision: str) -> None:
        self.plan = plan
        self.out = Path(str(plan.config.out))
        self.waiting = list(todo)
        self.present = present
        self.root = root
        self.revision = revision
        self.slots = num_processes(plan)
        self.running: list[_Running] = []
        self.failed: list[str] = []
        self.done = 0
        self.bar = tqdm(total=len(todo), unit="job", dynamic_ncols=True, desc=plan.config.name)

    def run(self, signals: StopSignals) -> Outcome:
        with self.bar:
            try:
                self._loop(signals)
            except KeyboardInterrupt:  # a second Ctrl-C
                for running in self.running:
                    os.killpg(running.process.pid, signal.SIGKILL)
                    running.process.wait()
                raise
        return Outcome(self.done, self.failed, [job.name for job in self.waiting], signals.received is not None)

    def _loop(self, signals: StopSignals) -> None:
        told = False
        while self.running or self._ready():
            if signals.received is not None and not told:
                told = True
                logger.info("stopping: %d jobs save what they have.", len(self.running))
                for running in self.running:
                    running.process.terminate()
            while not told and len(self.running) < self.slots and self._ready():
                job = self._ready()[0]
                self.waiting.remove(job)
                self.running.append(self._start(job))
                self._show()
            if told and not self.running:
                return
            time.sleep(POLL_SECONDS)
            for running in list(self.running):
                self._check(running, told)

    def _ready(self) -> list[Job]:
        """Jobs all of whose needs are there."""
        return [job for job in self.waiting if self.present.issuperset(job.needs)]

    def _start(self, job: Job) -> _Running:
        record = read_record(self.out, job.name) or new_record(self.out, job, self.revision)
        threads = 1 if self.slots > 1 else None
        record.attempts.append(Attempt(time.time(), threads))
        write_record(self.out, record)
        log = log_path(self.out, job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        lock = _job_lock(self.out, job)
        process = self._spawn(job, 0, lock)
        return _Running(job, record, process, lock)

    def _spawn(self, job: Job, index: int, lock: IO[str]) -> "Popen[bytes]":
        """The child inherits the lock, so that it is held for as long as the child lives, whatever becomes of us."""
        script, *words = job.commands[index]
        environment = dict(os.environ)
        if self.slots > 1:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with log_path(self.out, job.name).open("ab") as log:
            log.write(f"$ python {shlex.join(job.commands[index])}\n".encode())
            log.flush()
            process = Popen(
                [sys.executable, str(self.root / script), *words], stdin=DEVNULL, stdout=log,
                stderr=STDOUT, env=environment, start_new_session=True, pass_fds=(lock.fileno(),),
            )  # fmt: skip
        lock.seek(0)
        lock.truncate()
        lock.write(str(process.pid))
        lock.flush()
        return process

    def _check(self, running: _Running, told: bool) -> None:
        """Whether a job's process has ended, and what follows from that."""
        attempt = running.record.attempts[-1]
        attempt.wall_seconds = time.time() - attempt.started
        pid, status, usage = os.wait4(running.process.pid, os.WNOHANG)
        if pid == 0:
            if attempt.wall_seconds - running.noted > NOTE_SECONDS:
                running.noted = attempt.wall_seconds
                attempt.cpu_seconds = running.spent + _cpu_seconds(running.process.pid)
                write_record(self.out, running.record)
            return
        code = running.process.returncode = os.waitstatus_to_exitcode(status)
        running.spent += usage.ru_utime + usage.ru_stime
        attempt.cpu_seconds = running.spent
        if code == 0 and not told and running.index + 1 < len(running.job.commands):
            running.index += 1
            running.process = self._spawn(running.job, running.index, running.lock)
            return
        attempt.exit_code = code
        # A training that a signal stopped has saved, and ends with 0 too.
        running.record.finished = code == 0 and running.job.done.exists()
        write_record(self.out, running.record)
        running.lock.close()
        self.running.remove(running)
        self._ended(running, told)

    def _ended(self, running: _Running, told: bool) -> None:
        job, attempt = running.job, running.record.attempts[-1]
        if running.record.finished:
            for folder in job.waste:
                shutil.rmtree(folder, ignore_errors=True)
            self.done += 1
            self.present.add(job.name)
            self.bar.update()
            logger.info(
                "%s: done in %.1f min, %.1f CPU min", job.name, attempt.wall_seconds / 60, attempt.cpu_seconds / 60
            )
        elif not told:
            self.failed.append(job.name)
            why = f"exit code {attempt.exit_code}" if attempt.exit_code else f"{job.done} is not there"
            logger.error("error: %s failed (%s); see %s", job.name, why, log_path(self.out, job.name))
        self._show()

    def _show(self) -> None:
        self.bar.set_postfix_str(", ".join(running.job.name for running in self.running))


@contextmanager
def _lock_file(path: Path, message: str) -> Iterator[None]:
    """ValueError where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{message} ({path.parent}); wait for it, or stop it.") from error
        yield


def _job_lock(out: Path, job: Job) -> IO[str]:
    path = _lock_path(out, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _lock_path(out: Path, job: Job) -> Path:
    return out / "jobs" / f"{job.name.replace('/', '.')}.lock"


def _end_orphan(out: Path, job: Job) -> None:
    """Stop a job that outlived a killed runner: only such a one still holds its lock. It saves what it has.

    Raises:
        ValueError: it does not end.
    """
    path = _lock_path(out, job)
    if not path.is_file():
        return
    with path.open("r+") as lock:
        deadline = time.monotonic() + ORPHAN_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                pid = int(path.read_text() or 0)
                if time.monotonic() > deadline or pid == 0:
                    raise ValueError(f"{job.name} of an earlier call still runs (process {pid}); stop it.") from error
                if not told:
                    logger.info("%s of an earlier call still runs (process %d): it is asked to save.", job.name, pid)
                    os.kill(pid, signal.SIGTERM)
                    told = True
            time.sleep(POLL_SECONDS)


def _cpu_seconds(pid: int) -> float:
    """Of a running process and its ended children, so far; 0 where the system does not say (no /proc)."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK")
