"""Where a run's numbers go: metrics.jsonl, the tracker, and the progress bar; and how it was started: starts.jsonl."""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from tqdm import tqdm

import video_mirai
from video_mirai.training.integrity import sync_file

METRICS_FILE = "metrics.jsonl"
STARTS_FILE = "starts.jsonl"


class Start(NamedTuple):
    """One start or resume of a training; video_mirai, torch: versions."""

    step: int
    command: str
    processes: int
    video_mirai: str
    torch: str


def record_start(run_dir: Path, step: int, words: Sequence[str], processes: int) -> None:
    """Append how this process was called (sys.argv) to the run's starts; the script as seen from where it ran."""
    script, here = Path(words[0]), Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    command = shlex.join(["python", str(shown), *words[1:]])
    start = Start(step, command, processes, video_mirai.__version__, torch.__version__)
    with (run_dir / STARTS_FILE).open("a") as stream:
        stream.write(json.dumps(start._asdict()) + "\n")


def read_starts(run_dir: Path) -> list[Start]:
    """Every start of a run, in order; none where none were recorded."""
    path = run_dir / STARTS_FILE
    return [Start(**entry) for entry in _whole_lines(path)] if path.is_file() else []


class RunLog:
    """Writes from the main process only; the others may call it too.

    A resumed run drops what was logged after the step that it resumes from, so that its files equal those of a run
    that was never stopped.
    """

    def __init__(self, accelerator: Accelerator, run_dir: Path, start_step: int) -> None:
        self.accelerator = accelerator
        self.path = run_dir / METRICS_FILE
        if accelerator.is_main_process:
            _drop_after(self.path, start_step)
        accelerator.init_trackers("tracker", init_kwargs={"tensorboard": {"purge_step": start_step + 1}})

    def log(self, values: dict[str, float], step: int) -> None:
        """One line of metrics.jsonl and one entry per value in the tracker."""
        self.accelerator.log(values, step=step)
        if self.accelerator.is_main_process:
            with self.path.open("a") as stream:
                stream.write(json.dumps({"step": step, **values}) + "\n")

    def flush(self) -> None:
        """Wait until all that was logged is written, so that a kill cannot take it any more."""
        if not self.accelerator.is_main_process:
            return
        for tracker in self.accelerator.trackers:
            if isinstance(tracker, TensorBoardTracker):  # its writer keeps events for up to two minutes
                tracker.tracker.flush()
        if self.path.is_file():
            sync_file(self.path)

    def close(self) -> None:
        """Flush and close the tracker; the processes stay connected."""
        for tracker in self.accelerator.trackers:
            tracker.finish()


def read_metrics(run_dir: str | Path) -> list[dict[str, float]]:
    """Every logged line of a run, in order: {"step": ..., name: value}."""
    path = Path(run_dir) / METRICS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; is {run_dir} a run folder?")
    return list(_whole_lines(path))


def progress_bar(accelerator: Accelerator, num_steps: int, start_step: int) -> tqdm:
    """A bar over optimiser steps, on the main process; quiet where nobody watches more often than twice a minute."""
    interval = 0.5 if os.isatty(2) else 30.0
    return tqdm(
        total=num_steps,
        initial=start_step,
        desc="training",
        unit="step",
        dynamic_ncols=True,
        mininterval=interval,
        disable=not accelerator.is_main_process,
    )


def _drop_after(path: Path, last_step: int) -> None:
    """Keep the lines up to a step; a half-written last line goes too."""
    if not path.is_file():
        return
    kept = [json.dumps(entry) + "\n" for entry in _whole_lines(path) if entry["step"] <= last_step]
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text("".join(kept))
    unfinished.replace(path)


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Of a JSON lines file, up to one that a kill left half-written."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
