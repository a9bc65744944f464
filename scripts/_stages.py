"""A pipeline of the project's own commands: each shown, run, timed, and skipped when its result is there already."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Without the last word accelerate gives a process one thread, whatever the number of cores.
LAUNCH = (
    *("-m", "accelerate.commands.launch", "--num_processes=1", "--num_machines=1", "--mixed_precision=no"),
    *("--dynamo_backend=no", f"--num_cpu_threads_per_process={os.cpu_count() or 1}"),
)


class Stage(NamedTuple):
    """A command for this Python, and what is there once it has finished; None: it knows itself what is left to do."""

    title: str
    command: tuple[str, ...]
    done: Path | None


def launched(title: str, done: Path, *command: str) -> Stage:
    """A stage that runs under accelerate launch."""
    return Stage(title, (*LAUNCH, *command), done)


def run_stages(stages: Sequence[Stage]) -> float:
    """Run them in order; minutes in all.

    Raises:
        SystemExit: a stage failed, exit code 1; what came before it is kept.
    """
    return sum(_run(number, len(stages), stage) for number, stage in enumerate(stages, 1))


def _run(number: int, total: int, stage: Stage) -> float:
    print(f"\n[{number}/{total}] {stage.title}", flush=True)
    if stage.done is not None and stage.done.exists():
        print(f"  done before: {stage.done} is there", flush=True)
        return 0.0
    print(f"  {_as_typed(stage.command)}", flush=True)
    start = time.perf_counter()
    code = subprocess.run([sys.executable, *stage.command], cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(
            f"error: stage {number} ({stage.title}) failed with exit code {code}; run again to go on from here."
        )
    minutes = (time.perf_counter() - start) / 60
    print(f"  {minutes:.1f} minutes", flush=True)
    return minutes


def _as_typed(command: tuple[str, ...]) -> str:
    """The command as a person would type it."""
    if command[: len(LAUNCH)] == LAUNCH:
        return f"accelerate launch {LAUNCH[-1]} {shlex.join(command[len(LAUNCH) :])}"
    return f"python {shlex.join(command)}"
