"""The training script as a user meets it: exit codes, one line per mistake, several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_training import REPOSITORY, TINY, assert_same_tensors, forget_accelerator

from _cli import run_script
from train_video import main
from video_mirai.training.tracking import read_metrics, read_starts

QUICK = [
    "train.num_steps=2",
    "train.batch_size=4",
    "train.log_every=1",
    "train.tracker=none",
    "validation.every_steps=0",
]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the script, run in this process."""
    forget_accelerator()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr(sys, "argv", ["train_video.py", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        run_script(main)
    forget_accelerator()
    if isinstance(exit_info.value.code, str):
        print(exit_info.value.code, file=sys.stderr)  # as the interpreter does
        return 1
    return int(exit_info.value.code or 0)


def test_run_trains_exports_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(TINY), f"output_dir={tmp_path}", *QUICK, "train.checkpoint_every=2"]
    assert call(monkeypatch, *arguments) == 0
    assert "1 process on cpu" in capsys.readouterr().out
    assert call(monkeypatch, *arguments, "train.num_steps=3") == 0
    assert "at step 2" in capsys.readouterr().out
    run = tmp_path / "scenes_tiny"
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3]
    starts = read_starts(run)
    assert [(start.step, start.processes) for start in starts] == [(0, 1), (2, 1)]
    assert starts[1].command == starts[0].command + " train.num_steps=3"
    assert starts[1].command in (run / "export" / "README.md").read_text()
    assert (run / "export" / "transformer" / "config.json").is_file()
    assert call(monkeypatch, *arguments, "resume=none") == 2
    assert "already holds checkpoints" in capsys.readouterr().err


def test_stating_the_licence_of_a_finished_run_exports_it_again_and_is_no_changed_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(TINY), f"output_dir={tmp_path}", *QUICK]
    assert call(monkeypatch, *arguments, "train.checkpoint_every=2") == 0
    assert call(monkeypatch, *arguments, "train.checkpoint_every=2", "license=apache-2.0") == 0
    assert "changed setting" not in capsys.readouterr().out
    assert "\nlicense: apache-2.0\n" in (tmp_path / "scenes_tiny" / "export" / "README.md").read_text()


def test_dry_run_prints_config_and_costs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--config", str(TINY), f"output_dir={tmp_path}", "--dry-run") == 0
    printed = capsys.readouterr().out
    for part in (
        "kind: teacher_forcing",
        "student parameters",
        "tokens per step",
        "FLOPs per step",
        "memory",
        "1 process",
    ):
        assert part in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=1", "error: train.lr: unknown key"),
        ("train.num_steps=many", "error: train.num_steps: "),
        ("rollout.window_frames=9", "error: rollout.window_frames=9 is longer than the clip"),
        ("model.init_from=none/here", "error: checkpoint folder none/here does not exist"),
        ("resume=none/here", "error: none/here is not a checkpoint"),
        ("train.batch_size=0", "error: train.batch_size=0"),
        ("train.batch_size=1000", "error: the data set has 256 clips"),
    ],
)
def test_users_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    code = call(monkeypatch, "--config", str(TINY), f"output_dir={tmp_path}", *QUICK, override)
    errors = [line for line in capsys.readouterr().err.splitlines() if line]
    assert code == 2
    assert len(errors) == 1 and errors[0].startswith(message)
    assert not (tmp_path / "scenes_tiny" / "metrics.jsonl").exists()


def test_divergence_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*QUICK, "train.num_steps=20", "train.optimizer.lr=1e30", "train.max_grad_norm=1e30"]
    assert call(monkeypatch, "--config", str(TINY), f"output_dir={tmp_path}", *settings) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "is nan; training stopped at step 1, no checkpoint had been written yet" in errors[0]
    assert not (tmp_path / "scenes_tiny" / "export").exists()


def test_resume_passes_over_a_damaged_checkpoint_and_says_which_settings_changed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = ["--config", str(TINY), f"output_dir={tmp_path}", *QUICK, "train.checkpoint_every=1"]
    assert call(monkeypatch, *arguments) == 0
    newest = tmp_path / "scenes_tiny" / "checkpoints" / "step_00000002"
    (newest / "ema.safetensors").write_bytes(b"")
    capsys.readouterr()
    assert call(monkeypatch, *arguments, "train.num_steps=3", "train.optimizer.lr=0.5") == 0
    printed = capsys.readouterr().out
    assert "step_00000002/ema.safetensors is damaged" in caplog.text
    assert "step_00000001 at step 1" in printed
    assert "train.optimizer.lr=0.5 (was 0.003)" in printed
    assert "output_dir" not in printed


def test_folder_that_cannot_be_written_is_one_line_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--config", str(TINY), "output_dir=/dev/null/runs", *QUICK) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in errors if line.startswith("error: ")]) == 1 and "/dev/null/runs" in errors[-1]


def test_an_earlier_checkpoint_is_not_resumed_beside_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(TINY), f"output_dir={tmp_path}", *QUICK, "train.checkpoint_every=1"]
    assert call(monkeypatch, *words) == 0
    earlier, later = sorted((tmp_path / "scenes_tiny" / "checkpoints").iterdir())
    assert call(monkeypatch, *words, f"resume={earlier}") == 2
    assert f"holds later checkpoints ({later.name})" in capsys.readouterr().err
    assert call(monkeypatch, *words, f"resume={later}") == 0


@pytest.mark.slow
def test_two_processes_train_together_and_resume_exactly(tmp_path: Path) -> None:
    common = [f"output_dir={tmp_path}", *QUICK, "train.checkpoint_every=2", "train.schedule.decay=constant"]
    runs = [
        ["name=whole", "train.num_steps=4", "validation.every_steps=4"],
        ["name=parts"],
        ["name=parts", "train.num_steps=4"],
    ]
    arguments = [word for run in runs for word in ("--config", str(TINY), *common, *run, "--")]
    folders = [REPOSITORY, REPOSITORY / "scripts", REPOSITORY / "tests" / "helpers"]
    environment = {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, folders))}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(folders[-1] / "several_runs.py"), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes on cpu" in done.stdout
    assert "at step 2" in done.stdout
    logged = read_metrics(tmp_path / "whole")
    assert [line["step"] for line in logged if "train/flow" in line] == [1, 2, 3, 4]
    assert "validation/loss" in logged[-1]
    for file in ("objective", "ema", "optimizer_muon", "generators_0", "generators_1"):
        whole, parts = (
            load_file(tmp_path / name / "checkpoints" / "step_00000004" / f"{file}.safetensors")
            for name in ("whole", "parts")
        )
        assert_same_tensors(whole, parts)
