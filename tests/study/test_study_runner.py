"""The runner, on jobs that are small Python scripts."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from study_results import study_config

from video_mirai.study.plan import Job, Plan
from video_mirai.study.records import log_path, read_record
from video_mirai.study.runner import run_jobs

# What every script begins with: note the call, and on SIGTERM save and leave with 0, as a training does.
HEAD = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1]); folder.mkdir(parents=True, exist_ok=True)
with (folder / "calls").open("a") as file: file.write(f"{os.environ.get('OMP_NUM_THREADS')}\\n")
def stop(*_): (folder / "saved").touch(); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
"""
DONE = '(folder / "done").touch()\n'
BUSY = "until = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"
# Waits for good at the first call, is done at the second.
WAIT_ONCE = 'if not (folder / "saved").exists(): (folder / "waits").touch(); time.sleep(60)\n'


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    def make(name: str, *bodies: str, needs: tuple[str, ...] = ()) -> Job:
        folder = tmp_path / "out" / name
        scripts = []
        for index, body in enumerate(bodies):
            script = tmp_path / f"{name.replace('/', '_')}{index}.py"
            script.write_text(HEAD + body)
            scripts.append((script.name, str(folder)))
        return Job(
            name, "train", name, 1, tuple(scripts), folder, folder / "done", (folder / "waste",), "a: 1\n", needs
        )

    return make


def make_plan(tmp_path: Path, *jobs: Job, processes: int = 2) -> Plan:
    config = study_config(tmp_path / "results")
    config.out, config.processes = str(tmp_path / "out"), processes
    return Plan(config, list(jobs), [], 100, [100])


def test_jobs_run_once_in_order_and_their_cpu_time_is_known(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    waste = '(folder / "waste").mkdir()\n'
    plan = make_plan(tmp_path, make_job("a", BUSY, BUSY + waste + DONE), make_job("b", DONE, needs=("a",)))
    outcome = run_jobs(plan, plan.jobs, root=tmp_path, revision="r")
    assert outcome == (2, [], [], False)
    a, b = (read_record(tmp_path / "out", name) for name in "ab")
    assert a is not None and b is not None and a.finished and b.finished
    assert 0.6 <= a.cpu_seconds < 3  # both commands
    assert b.made_from == {"a": a.born} and b.attempts[0].started > a.attempts[0].started
    assert not (tmp_path / "out" / "a" / "waste").exists()
    assert run_jobs(plan, plan.jobs, root=tmp_path, revision="r") == (0, [], [], False)
    assert (tmp_path / "out" / "b" / "calls").read_text() == "1\n"  # one call, with one thread


def test_a_failure_stops_only_what_needs_it_and_is_tried_again(
    tmp_path: Path, make_job: Callable[..., Job], caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [make_job("a", "sys.exit('no luck')"), make_job("b", DONE, needs=("a",)), make_job("c", DONE)]
    plan = make_plan(tmp_path, *jobs)
    outcome = run_jobs(plan, plan.jobs, root=tmp_path, revision="r")
    assert outcome == (1, ["a"], ["b"], False)
    assert f"a failed (exit code 1); see {log_path(tmp_path / 'out', 'a')}" in caplog.text
    assert "no luck" in log_path(tmp_path / "out", "a").read_text()
    (tmp_path / "a0.py").write_text(HEAD + DONE)
    assert run_jobs(plan, plan.jobs, root=tmp_path, revision="r") == (2, [], [], False)


def test_a_job_that_ends_well_without_its_result_has_failed(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    plan = make_plan(tmp_path, make_job("a", ""))
    assert run_jobs(plan, plan.jobs, root=tmp_path, revision="r").failed == ["a"]


def test_on_a_signal_children_save_and_the_next_call_goes_on(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    plan = make_plan(tmp_path, make_job("a", WAIT_ONCE + DONE), make_job("b", DONE, needs=("a",)), processes=1)

    def signal_once_it_waits() -> None:
        while not (tmp_path / "out" / "a" / "waits").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=signal_once_it_waits)
    thread.start()
    outcome = run_jobs(plan, plan.jobs, root=tmp_path, revision="r")
    thread.join()
    assert outcome == (0, [], ["b"], True)
    assert (tmp_path / "out" / "a" / "saved").exists()
    assert run_jobs(plan, plan.jobs, root=tmp_path, revision="r") == (2, [], [], False)
    record = read_record(tmp_path / "out", "a")
    assert record is not None and len(record.attempts) == 2


def test_a_job_that_outlived_a_killed_runner_is_ended_before_it_is_resumed(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    plan = make_plan(tmp_path, make_job("a", WAIT_ONCE + DONE))
    lock = tmp_path / "out" / "jobs" / "a.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("a+") as held:  # what a runner leaves behind that was killed
        fcntl.flock(held, fcntl.LOCK_EX)
        orphan = subprocess.Popen(
            [sys.executable, tmp_path / "a0.py", tmp_path / "out" / "a"], pass_fds=(held.fileno(),)
        )
        lock.write_text(str(orphan.pid))
    while not (tmp_path / "out" / "a" / "waits").exists():
        time.sleep(0.05)
    assert run_jobs(plan, plan.jobs, root=tmp_path, revision="r").done == 1
    assert orphan.wait(10) == 0
    assert (tmp_path / "out" / "a" / "saved").exists()


def test_two_runners_never_work_in_one_folder(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    plan = make_plan(tmp_path, make_job("a", DONE))
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "study.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"another study\.py is at work"):
            run_jobs(plan, plan.jobs, root=tmp_path, revision="r")
