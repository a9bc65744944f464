"""The evaluation script as a user meets it: files, resuming, exit codes, several processes."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from result_schema import check_result
from tiny_training import REPOSITORY, forget_accelerator, make_trainer, tiny_config

from _cli import run_script
from evaluate import leak_note, main, named_checkpoints
from video_mirai.build import export_run, run_dir
from video_mirai.config import DataConfig
from video_mirai.data.latent_shards import LatentShardsConfig
from video_mirai.data.scenes import ScenesConfig
from video_mirai.data.video_folder import VideoFolderConfig
from video_mirai.evaluation import publish
from video_mirai.media import write_video

DATA_CONFIGS = {"video_folder": VideoFolderConfig, "latent_shards": LatentShardsConfig, "scenes": ScenesConfig}
CONFIG = REPOSITORY / "configs" / "eval" / "scenes_tiny.yaml"
QUICK = [
    "num_clips=4", "horizon_frames=16", "window_frames=8", "stride_frames=8", "batch_clips=2", "num_resamples=20",
    "detectors=[random3d,state]",
    "num_subsets=5", "fixed_videos=1", "worst_videos=1", "device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exported runs that never trained: their rollouts are noise, which is enough here."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("baseline", 0), ("foresight", 1)):
        config = tiny_config(folder, f"name={name}", f"seed={seed}")
        export_run(config, make_trainer(config))
        assert (run_dir(config) / "export").is_dir()
    forget_accelerator()
    return folder


def arguments(runs: Path, out: Path, *overrides: str) -> list[str]:
    models = [f"models.{name}={runs / name}" for name in ("baseline", "foresight")]
    return ["--config", str(CONFIG), *QUICK, *models, f"out={out}", f"feature_cache={out.parent}/features", *overrides]


def call(monkeypatch: pytest.MonkeyPatch, *given: str) -> int:
    """Exit code of the script, run in this process."""
    forget_accelerator()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *given])
    with pytest.raises(SystemExit) as exit_info:
        run_script(main)
    forget_accelerator()
    return int(exit_info.value.code or 0)


def test_checkpoints_are_named_on_the_command_line_without_a_config(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--checkpoint", str(runs / "baseline"), "--checkpoint", f"ours={runs / 'foresight'}", "history_frames=4"]
    out = [f"out={tmp_path / 'out'}", f"feature_cache={tmp_path}/features"]
    assert call(monkeypatch, *given, *QUICK, *out) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows][:2] == ["baseline", "ours"]


def test_a_shipped_checkpoint_is_named_without_its_prefix_and_no_name_is_taken_twice() -> None:
    assert named_checkpoints(["asset:doom_causal"], {}) == {"doom_causal": "asset:doom_causal"}
    with pytest.raises(ValueError, match="two models are named a; name them yourself"):
        named_checkpoints(["runs/a"], {"a": "elsewhere/a"})


def test_checkpoints_and_folders_do_not_mix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--checkpoint", "asset:doom_causal", "--real", "a", "--fake", "b") == 2
    assert "choose one" in capsys.readouterr().err


def test_evaluation_writes_every_file_and_goes_on_where_it_stopped(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evaluation"
    assert call(monkeypatch, *arguments(runs, out)) == 0
    printed = capsys.readouterr().out
    assert f"report: {out / 'report.html'}" in printed and "copy-last-frame" in printed
    first = check_result((out / "results.json").read_text())
    assert [row["name"] for row in first["rows"]] == [
        "baseline", "foresight", "copy-last-frame", "constant velocity", "reader on the truth", "real vs real"
    ]  # fmt: skip
    by_name = {row["name"]: row["metrics"] for row in first["rows"]}
    assert [model["training_seed"] for model in first["models"]] == [0, 1]
    assert by_name["reader on the truth"]["position_error"]["value"] < 1
    assert by_name["constant velocity"]["position_error"]["value"] < by_name["baseline"]["position_error"]["value"]
    assert {"psnr", "fd_random3d", "fd_state", "consistency", "dynamic_degree", "position_error"} <= first["rows"][0][
        "metrics"
    ].keys()
    assert [window["first"] for window in first["rows"][0]["windows"]] == [1, 9]
    assert next((d["name"], d["reference"]) for d in first["differences"]) == ("foresight", "baseline")
    assert first["clips"]["split"] == "test" and first["detectors"][0]["sha256"]
    with (out / "per_video.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4 * 6
    page = (out / "report.html").read_text()
    assert page.count("<video") == 2 * 3

    frames = {row: out / "frames" / row / "0003.npz" for row in ("truth", "baseline", "foresight")}
    before = {row: path.stat().st_mtime_ns for row, path in frames.items()}
    frames["foresight"].unlink()
    assert call(monkeypatch, *arguments(runs, out)) == 0
    assert frames["baseline"].stat().st_mtime_ns == before["baseline"]
    assert frames["foresight"].stat().st_mtime_ns != before["foresight"]
    assert json.loads((out / "results.json").read_text())["rows"] == first["rows"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.baseline=none/here", "error: checkpoint folder none/here does not exist"),
        ("models.truth=none", "error: models.truth: choose a name"),
        ("horizn_frames=3", "error: horizn_frames: unknown key"),
        ("horizon_frames=4", "error: horizon_frames=4 is shorter than window_frames=8"),
        ("detectors=[unknown]", "error: detector 'unknown' is not known"),
        ("data.video_folder.root=none/here", "error: none/here: no such folder"),
        ("num_clips=1", "error: num_clips=1 must be at least 2"),
        ("history_frames=0", "error: history_frames=0 must be at least 1"),
        ("batch_clips=0", "error: batch_clips=0 must be at least 1"),
        ("device=abacus", "error: device 'abacus' cannot be used here"),
        ("split=train", "error: split='train' holds clips that models.baseline was trained on"),
        ("data.scenes.height=32", "error: the held-out clips are 32x32"),
        ("data.scenes.fps=20", "error: the held-out clips are 32x32 at 20 frames a second"),
    ],
)
def test_users_mistake_is_one_line_and_exit_code_2(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    message: str,
) -> None:
    assert call(monkeypatch, *arguments(runs, tmp_path / "out", override)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(errors) == 1 and errors[0].startswith(message)


def test_horizon_longer_than_the_videos_names_the_longest_possible(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(12):
        write_video(tmp_path / "videos" / f"{i}.mp4", np.full((12, 16, 16, 3), 20 * i, np.uint8), fps=8.0)
    folder = [f"data.video_folder.{setting}" for setting in (f"root={tmp_path / 'videos'}", "height=16", "width=16")]
    split = ["data.video_folder.test_fraction=0.9", "data.video_folder.val_fraction=0"]
    assert call(monkeypatch, *arguments(runs, tmp_path / "out", *folder, *split)) == 2
    assert "the longest possible is horizon_frames=10" in capsys.readouterr().err
    empty = ["data.video_folder.test_fraction=0", "data.video_folder.val_fraction=0"]
    assert call(monkeypatch, *arguments(runs, tmp_path / "out", *folder, *empty)) == 2
    assert "split 'test' is empty" in capsys.readouterr().err


def run_on(kind: str, **settings: object) -> SimpleNamespace:
    """What leak_note asks of a run."""
    data = DataConfig(kind=kind, **{kind: DATA_CONFIGS[kind](**settings)})
    return SimpleNamespace(config=SimpleNamespace(data=data))


@pytest.mark.parametrize(
    ("run", "data", "split", "note"),
    [
        (run_on("video_folder", root="a"), VideoFolderConfig("a"), "test", ""),
        (run_on("video_folder", root="a"), VideoFolderConfig("b", seed=1), "test", "another split: seed=1 (there 0)"),
        (run_on("video_folder", root="a"), VideoFolderConfig("b"), "train", "it was on these videos"),
        (run_on("latent_shards", root="l"), VideoFolderConfig("a"), "test", ""),
        (run_on("latent_shards", root="l"), VideoFolderConfig("a"), "all", "it was on these videos"),
        (run_on("latent_shards", root="l", split="all"), VideoFolderConfig("a"), "test", "it was on these videos"),
        (run_on("latent_shards", root="l"), ScenesConfig(), "train", ""),
        (run_on("scenes"), ScenesConfig(), "test", ""),
        (run_on("scenes"), ScenesConfig(seed=1), "train", "it was on these videos"),
    ],
)
def test_a_note_says_when_clips_may_not_be_held_out(
    run: SimpleNamespace, data: VideoFolderConfig | ScenesConfig, split: str, note: str
) -> None:
    said = leak_note("model", run, data, split)
    assert note in said and bool(note) == bool(said)


@pytest.mark.parametrize(
    ("run", "data", "split"),
    [
        (run_on("video_folder", root="a"), VideoFolderConfig("a"), "all"),
        (run_on("video_folder", root="a", split="all"), VideoFolderConfig("a"), "test"),
        (run_on("video_folder", root="a"), VideoFolderConfig("a", seed=1), "test"),
        (run_on("scenes"), ScenesConfig(), "train"),
    ],
)
def test_clips_that_were_trained_on_are_refused(
    run: SimpleNamespace, data: VideoFolderConfig | ScenesConfig, split: str
) -> None:
    with pytest.raises(ValueError, match=r"that models\.model was trained on|differs from that of models\.model"):
        leak_note("model", run, data, split)


@pytest.mark.slow
def test_samples_of_a_history_have_noise_of_their_own_and_the_first_is_the_only_one_of_before(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "make_plots", lambda result, folder: [])  # which take most of the time
    out = tmp_path / "samples"
    quick = ("num_clips=2", "horizon_frames=8", "detectors=[random3d]")
    assert call(monkeypatch, *arguments(runs, tmp_path / "one", *quick)) == 0
    assert call(monkeypatch, *arguments(runs, out, *quick, "samples_per_clip=2")) == 0
    stored = [tmp_path / "one/frames/baseline", out / "frames/baseline", out / "frames/baseline/sample_1"]
    only, first, second = (np.load(folder / "0001.npz")["frames"] for folder in stored)
    np.testing.assert_array_equal(first, only)
    assert (second[:2] == first[:2]).all() and (second[2:] != first[2:]).any()
    result = check_result((out / "results.json").read_text())
    metrics = result["rows"][0]["metrics"]
    worst, mean, best = (metrics[key]["value"] for key in ("psnr_worst", "psnr", "psnr_best"))
    assert worst < mean < best
    assert "psnr_best" not in result["rows"][2]["metrics"]
    assert result["rules"]["samples"].startswith("2 of every history")


@pytest.mark.slow
def test_an_evaluation_killed_in_the_middle_goes_on_and_finds_the_same_numbers(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "make_plots", lambda result, folder: [])  # which take most of the time
    settings = ("horizon_frames=16", "batch_clips=1", "num_clips=4", "detectors=[random3d]")
    killed, whole = ((*arguments(runs, tmp_path / name, *settings),) for name in ("killed", "whole"))
    command = [sys.executable, str(REPOSITORY / "scripts" / "evaluate.py"), *killed]
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    frames = tmp_path / "killed" / "frames"
    while not (frames / "baseline" / "0001.npz").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (frames / "foresight" / "0003.npz").is_file()
    made = (frames / "baseline" / "0001.npz").stat().st_mtime_ns
    assert call(monkeypatch, *killed) == call(monkeypatch, *whole) == 0
    assert (frames / "baseline" / "0001.npz").stat().st_mtime_ns == made
    rows = [json.loads((tmp_path / name / "results.json").read_text())["rows"] for name in ("killed", "whole")]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_two_processes_find_the_same_numbers_as_one(runs: Path, tmp_path: Path) -> None:
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    results = []
    for count in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        out = tmp_path / str(count)
        command = [*launch, str(REPOSITORY / "scripts" / "evaluate.py"), *arguments(runs, out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(json.loads((out / "results.json").read_text()))
    for part in ("rows", "differences", "clips"):
        assert results[0][part] == results[1][part]
