"""Kill a training run at random moments, resume it each time, and compare the end with a run that was never stopped.

    python tests/soak/kill_and_resume.py --kills 20 --processes 1 --workers 2

Every second kill waits until a checkpoint is being written. All processes of the run get SIGKILL. At the end weights,
average, optimisers, schedules, generators, logged numbers and exported weights must be the same bit for bit. Exit
code 0: they are.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 300  # a process that hasn't trained a step by then is stuck
SETTINGS = [
    "train.batch_size=4",
    "train.log_every=1",
    "train.checkpoint_every=4",
    "train.optimizer.kind=muon",
    "validation.every_steps=16",
]


class Kill(NamedTuple):
    """step: the last one logged. while_writing: an unfinished checkpoint was left behind."""

    step: int
    while_writing: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, help="training processes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of each (default: %(default)s)")
    parser.add_argument("--steps-per-kill", type=int, default=40, help="length of the run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder that is kept; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        differences = compare_killed_run(options, options.out or Path(temporary))
    for difference in differences:
        print(f"DIFFERENT: {difference}")
    print("the killed run ended differently" if differences else "the killed run ended bit for bit like the other")
    return 1 if differences else 0


def compare_killed_run(options: argparse.Namespace, out: Path) -> list[str]:
    """What differs at the end of the two runs."""
    teacher = [f"output_dir={out}", "name=teacher", "train.num_steps=2", *SETTINGS]
    finish(start("scenes_tiny_teacher", 1, teacher))
    settings = [
        *SETTINGS,
        f"foresight.teacher.checkpoint={out / 'teacher'}",
        f"train.num_steps={options.kills * options.steps_per_kill}",
        f"train.loader.num_workers={options.workers}",
    ]
    whole, killed = out / "whole", out / "killed"
    finish(start("scenes_tiny_foresight", options.processes, [*settings, f"output_dir={whole}", "name=run"]))
    moments = random.Random(options.seed)
    arguments = [*settings, f"output_dir={killed}", "name=run"]
    for number in range(options.kills):
        kill = kill_once(killed / "run", options.processes, arguments, moments, wait_for_writing=number % 2 == 1)
        where = "while a checkpoint was being written" if kill.while_writing else "between checkpoints"
        print(f"kill {number + 1}: after step {kill.step}, {where}", flush=True)
    finish(start("scenes_tiny_foresight", options.processes, arguments))
    return find_differences(whole / "run", killed / "run")


def start(config: str, processes: int, settings: list[str]) -> subprocess.Popen:
    """The training script, by itself or as several processes."""
    script = [str(REPOSITORY / "scripts" / "train_video.py"), "--config", f"configs/train/{config}.yaml", *settings]
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"] if processes > 1 else []
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, *script],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"training failed with exit code {process.returncode}:\n{errors[-3000:]}")


def kill_once(
    run: Path, processes: int, settings: list[str], moments: random.Random, *, wait_for_writing: bool
) -> Kill:
    """Start or resume the run, and kill it with all its children once it has trained on."""
    resumed_at = last_checkpoint(run)
    process = start("scenes_tiny_foresight", processes, settings)
    wanted = resumed_at + moments.randint(1, 12)
    wait_until(lambda: last_step(run) >= wanted or process.poll() is not None)
    if wait_for_writing:
        wait_until(lambda: any(run.glob("checkpoints/unfinished_*")) or process.poll() is not None)
    time.sleep(moments.uniform(0, 0.02))
    if process.poll() is not None:
        raise SystemExit(
            f"the run ended before it was killed: more --steps-per-kill.\n{process.communicate()[1][-2000:]}"
        )
    family = psutil.Process(process.pid).children(recursive=True)
    for member in (psutil.Process(process.pid), *family):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate()
    psutil.wait_procs(family)
    return Kill(last_step(run), any(run.glob("checkpoints/unfinished_*")))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing happened for {START_SECONDS} s.")
        time.sleep(0.001)


def last_step(run: Path) -> int:
    """The last step in metrics.jsonl; what is being written counts as not there."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    whole_lines = [line for line in lines if line.endswith("\n")]
    return int(json.loads(whole_lines[-1])["step"]) if whole_lines else 0


def last_checkpoint(run: Path) -> int:
    names = sorted(folder.name for folder in run.glob("checkpoints/step_*"))
    return int(names[-1].removeprefix("step_")) if names else 0


def find_differences(whole: Path, killed: Path) -> list[str]:
    """Files of the last checkpoint by checksum, exported weights, metrics.jsonl, and the tracker's scalars."""
    found = []
    sums = [checkpoint_sums(run) for run in (whole, killed)]
    found += [f"checkpoint file {name}" for name in sorted(sums[0].keys() | sums[1].keys())
              if sums[0].get(name) != sums[1].get(name)]  # fmt: skip
    weights = [(run / "export" / "transformer" / "diffusion_pytorch_model.safetensors") for run in (whole, killed)]
    if weights[0].read_bytes() != weights[1].read_bytes():
        found.append("exported weights")
    for what, read in (("metrics.jsonl", metrics), ("tracker", tracked)):
        if read(whole) != read(killed):
            found.append(what)
    return found


def checkpoint_sums(run: Path) -> dict[str, str]:
    """{file: checksum}, without run.yaml, which names the output folder."""
    newest = max(run.glob("checkpoints/step_*"))
    pairs = [line.split("  ") for line in (newest / "SHA256SUMS").read_text().splitlines()]
    return {f"{newest.name}/{name}": checksum for checksum, name in pairs if name != "run.yaml"}


def metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "per_second" not in key} for line in lines]


def tracked(run: Path) -> dict[str, list[tuple[int, float]]]:
    """{tag: [(step, value)]} of the tracker's files, what was purged at a resume left out."""
    events = EventAccumulator(str(run / "tracker"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "per_second" not in tag]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(tags)}


if __name__ == "__main__":
    sys.exit(main())
