"""What a newcomer's first command meets: the shipped models, each by name, and good."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_training import REPOSITORY, forget_accelerator, make_trainer

import evaluate
import probe
import rollout
from _cli import run_script
from make_assets import OCCLUSION
from video_mirai.build import load_run
from video_mirai.config import RunConfig, load_config
from video_mirai.data.video_reader import open_video
from video_mirai.export_folder import ASSETS

CONFIGS = REPOSITORY / "configs" / "eval"
STUDENTS = ("occlusion_baseline", "occlusion_foresight")


def call(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *given: object) -> int:
    """Exit code of a script, run in this process."""
    forget_accelerator()
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, given)])
    with pytest.raises(SystemExit) as exit_info:
        run_script(main)
    forget_accelerator()
    return int(exit_info.value.code or 0)


def test_all_assets_stay_below_their_limit() -> None:
    # The Doom codec lies there three times, 2.9 MB each: where to save when this fails.
    files = [path for path in ASSETS.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6


@pytest.mark.parametrize("name", OCCLUSION)
def test_a_shipped_occlusion_model_says_what_it_is(name: str) -> None:
    run = load_run(f"asset:{name}")
    assert run.config.name == name and run.config.license == "apache-2.0"
    assert (run.config.foresight is not None) == (name == "occlusion_foresight")
    assert (run.config.objective.kind == "bidirectional") == (name == "occlusion_teacher")
    assert f"# {name}\n" in (ASSETS / name / "README.md").read_text()


def test_the_shipped_teacher_teaches(tmp_path: Path) -> None:
    overrides = ["foresight.teacher.checkpoint=asset:occlusion_teacher", "train.num_steps=1", "train.compile=false"]
    config = load_config(
        RunConfig, REPOSITORY / "configs/train/occlusion_foresight.yaml", [*overrides, f"output_dir={tmp_path}"]
    )
    trainer = make_trainer(config)
    trainer.fit(1)
    forget_accelerator()
    assert trainer.step == 1


@pytest.mark.slow
def test_shipped_students_beat_copying_in_every_window_and_in_the_first_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("num_clips=12", "batch_clips=12", "horizon_frames=96", "num_resamples=20", "num_subsets=2")
    videos = ("fixed_videos=1", "worst_videos=1", f"out={tmp_path / 'out'}", f"feature_cache={tmp_path / 'cache'}")
    assert call(monkeypatch, evaluate.main, "--config", CONFIGS / "occlusion_shipped.yaml", *settings, *videos) == 0

    with (tmp_path / "out" / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))

    def curve(row: str, metric: str) -> np.ndarray:
        return np.array([float(line["mean"]) for line in rows if (line["row"], line["metric"]) == (row, metric)])

    for student in ("baseline", "foresight"):
        for distance in ("fd_state", "fd_random3d"):
            windows = curve(student, distance)
            assert len(windows) == 6 and (windows < curve("copy-last-frame", distance)).all(), (student, distance)
        assert curve(student, "psnr")[:8].mean() > curve("copy-last-frame", "psnr")[:8].mean() + 10


@pytest.mark.parametrize("name", STUDENTS)
def test_a_shipped_student_continues_a_scene_beside_its_truth_in_one_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "long.mp4"
    given = ("--history", "dataset", "--history-frames", 4, "--compare", "--frames", 48, "--out", out)
    assert call(monkeypatch, rollout.main, "--checkpoint", f"asset:{name}", *given) == 0
    with open_video(out) as video:
        frames = video.read(list(range(video.info.num_frames)))
    assert len(frames) == 4 + 48
    # The bar in the middle of the left panel, the truth, is there to the end: longer than a training clip.
    assert (frames[:, -8, 16] > 60).all()


@pytest.mark.slow
def test_shipped_students_are_probed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ("--checkpoint", "asset:occlusion_foresight", "--baseline", "asset:occlusion_baseline")
    settings = ("num_clips=40", "offsets=[0,1]", "mlp.seeds=0", "picture_videos=1", "picture_rollouts=1")
    config = ("--config", CONFIGS / "probe_occlusion.yaml", f"out={tmp_path / 'out'}")
    assert call(monkeypatch, probe.main, *models, *config, *settings) == 0
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = list(csv.reader(stream))
    # target, offset, readout, what, measure, value, low, high: how a hidden disc moves is known after training alone
    found = {tuple(row[:5]): row[5:] for row in rows}
    assert float(found["velocity", "0", "ridge", "checkpoint - untrained", "r2"][1]) > 0.5
    assert ("velocity", "0", "ridge", "checkpoint - baseline", "r2") in found
