"""The soak script with few kills; docs/reliability.md says how to run it with many."""

import subprocess
import sys

import pytest
from tiny_training import REPOSITORY


@pytest.mark.slow
def test_run_killed_between_and_during_checkpoints_ends_bit_for_bit_like_one_never_stopped() -> None:
    script = str(REPOSITORY / "tests" / "soak" / "kill_and_resume.py")
    finished = subprocess.run(
        [sys.executable, script, "--kills", "2", "--workers", "2"], capture_output=True, text=True, timeout=280
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr[-2000:]
    assert "kill 2: after step" in finished.stdout
    assert "bit for bit like the other" in finished.stdout
