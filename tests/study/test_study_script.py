"""The study script as a user meets it: end to end, stopped half-way, with changed settings, from small files alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked_script import fork_script
from study_results import write_study
from tiny_training import REPOSITORY, forget_accelerator

import evaluate
import export
import probe
import study
import train_video
from _cli import USER_MISTAKE, run_script
from video_mirai.study import runner

SCRIPTS = {"train_video.py": train_video, "export.py": export, "evaluate.py": evaluate, "probe.py": probe}
CONFIG = """
name: smallest
seeds: [1, 2]
reference: baseline
teachers: {wise: {config: configs/train/scenes_tiny_teacher.yaml, overrides: [train.num_steps=2, &a train.tracker=none,
  &b validation.every_steps=0, &c data.scenes.num_clips=16]}}
arms:
  baseline: {config: configs/train/scenes_tiny.yaml}
  foresight: {config: configs/train/scenes_tiny_foresight.yaml, teacher: wise}
overrides: [train.num_steps=4, train.log_every=1, *a, *b, *c]
milestones: [0.5]
evaluate:
  config: configs/eval/scenes_tiny.yaml
  overrides: ["detectors=[state]", num_clips=3, horizon_frames=16, window_frames=8, num_resamples=10, num_subsets=2,
    fixed_videos=0, worst_videos=0, device=cpu]
probe:
  config: configs/eval/probe_scenes_tiny.yaml
  overrides: [num_clips=16, mlp.seeds=0, "offsets=[0,1]", rows_per_clip=2, picture_videos=0, num_resamples=10,
    device=cpu]
primary:
  - {name: Kept track, source: video, key: first_step_beyond, better: higher}
  - {name: Last window, source: window, key: fd_state, better: lower}
  - {name: Probe, source: probe, offset: 1, better: higher}
num_resamples: 50
processes: 2
"""


class ForkedPopen:
    """subprocess.Popen as the runner uses it, of a script that is imported already."""

    def __init__(self, words: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> None:
        _, script, *arguments = words
        name = Path(script).name
        log = Path(f"{stdout.name}.last")
        self.returncode: int | None = None
        self.pid = fork_script(SCRIPTS[name].main, [script, *arguments], log)

    def terminate(self) -> None:
        os.kill(self.pid, 15)


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str:
    """Exit code of the script in this process, or its last words."""
    forget_accelerator()
    monkeypatch.setattr(sys, "argv", ["study.py", *words])
    with pytest.raises(SystemExit) as exit_info:
        run_script(study.main)
    return exit_info.value.code or 0


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "smallest.yaml").write_text(CONFIG)
    return ["--config", str(tmp_path / "smallest.yaml"), f"out={tmp_path}/out", f"results={tmp_path}/results"]


@pytest.mark.slow
def test_a_study_runs_resumes_refuses_changes_and_reports_from_small_files(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(runner, "Popen", ForkedPopen)
    monkeypatch.setattr("video_mirai.study.report.study_plots", lambda numbers: {})  # test_study_report.py draws them
    logs = tmp_path / "out" / "logs"
    assert call(monkeypatch, *words, "--only", "train") == 0, [log.read_text() for log in logs.iterdir()]
    assert (tmp_path / "out/runs/foresight/seed2/checkpoints/step_00000002").is_dir()
    assert call(monkeypatch, *words) == 0, [log.read_text()[-500:] for log in logs.iterdir()]
    assert "6 jobs done, 5 were done before" in capsys.readouterr().out

    assert call(monkeypatch, *words, "overrides=[train.num_steps=8]") == USER_MISTAKE
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "train.num_steps=8 (was 4)" in error

    report = (tmp_path / "results" / "report.md").read_text()
    assert "Not finished" not in report
    assert "Kept track (higher is better; 2 seeds, 3 videos, 4 steps" in report
    size = sum(file.stat().st_size for file in (tmp_path / "results").rglob("*") if file.suffix in (".csv", ".json"))
    assert size < 200_000
    shutil.rmtree(tmp_path / "out")
    assert call(monkeypatch, *words, "--only", "report") == 0
    assert (tmp_path / "results" / "report.md").read_text() == report


def test_a_wrong_input_is_one_line_and_exit_code_2(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for wrong in (["arms.foresight.colour=red"], ["--only", "report"], ["--jobs", "nothing*"]):
        assert call(monkeypatch, *words, *wrong) == USER_MISTAKE
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")


def test_help_needs_no_imports() -> None:
    shown = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "study.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--dry-run" in shown.stdout


def test_report_of_committed_results_needs_no_runs(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "results", gains={"foresight": 2.0})
    monkeypatch.setattr("video_mirai.study.report.study_plots", lambda numbers: {})
    assert call(monkeypatch, *words, "--only", "report") == 0
    assert "foresight is better by +2.0" in (tmp_path / "results" / "report.md").read_text()
