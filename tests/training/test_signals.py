"""Stopping a run from outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_training import REPOSITORY, TINY

from video_mirai.training.checkpoint import check_checkpoint, list_checkpoints
from video_mirai.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_noted_and_a_second_acts_as_usual(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number.name
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 2)])
def test_signalled_run_saves_its_step_and_exits_0_with_the_command_to_go_on(
    tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    script = str(REPOSITORY / "scripts" / "train_video.py")
    arguments = ["--config", str(TINY), f"output_dir={tmp_path}", "name=run", "train.num_steps=100000",
                 "train.batch_size=4", "train.log_every=1", "train.tracker=none", "validation.every_steps=0",
                 "train.checkpoint_every=0", f"train.loader.num_workers={workers}"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"ACCELERATE_USE_CPU": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal or a batch system does: the workers get it as well
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    (saved,) = list_checkpoints(tmp_path / "run")
    check_checkpoint(saved)
    assert f"at step {int(saved.name.removeprefix('step_'))}, saved" in output
    assert f"python {script} --config" in output
