"""The probe as a user meets it: files, what they say, exit codes, shipped models."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_training import REPOSITORY, forget_accelerator, make_trainer, tiny_config

from _cli import run_script
from probe import leak_note_of_any, main
from video_mirai.build import export_run
from video_mirai.config import DataConfig, load_config
from video_mirai.data.latent_shards import LatentShardsConfig
from video_mirai.evaluation.probe_run import ProbeConfig
from video_mirai.media import write_video

CONFIGS = REPOSITORY / "configs" / "eval"
QUICK = [
    "num_clips=24", "batch_clips=12", "history_frames=2", "rows_per_clip=2", "offsets=[0,1,3]", "mlp.seeds=2",
    "mlp.hidden=8", "mlp.steps=5", "num_resamples=50", "picture_videos=1", "picture_rollouts=2", "device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported runs that never trained, which is enough here."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {
        "baseline": ["seed=0"],
        "foresight": ["seed=1"],
        "teacher": ["objective.kind=bidirectional"],
        "chunked": ["objective.chunk_frames=2", "rollout.chunk_frames=2", "rollout.window_frames=6"],
    }.items():
        config = tiny_config(folder, f"name={name}", *changes)
        export_run(config, make_trainer(config))
    forget_accelerator()
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *given: object) -> int:
    """Exit code of the script, run in this process."""
    monkeypatch.setattr(sys, "argv", ["probe.py", *map(str, given)])
    with pytest.raises(SystemExit) as exit_info:
        run_script(main)
    return int(exit_info.value.code or 0)


@pytest.mark.slow
def test_probe_writes_every_file_and_every_comparison(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--checkpoint", runs / "foresight", "--baseline", runs / "baseline"]
    config = ["--config", CONFIGS / "probe_scenes_tiny.yaml", *QUICK, f"out={tmp_path}"]
    assert call(monkeypatch, *models, *config) == 0
    printed = capsys.readouterr().out
    assert f"report: {tmp_path / 'report.html'}" in printed and "checkpoint - baseline" in printed
    result = json.loads((tmp_path / "results.json").read_text())
    learnt = {"checkpoint", "baseline", "untrained", "raw pixels"}
    for target in ("pixels", "position", "velocity"):
        found = {(s["predictor"], s["readout"]) for s in result["scores"] if s["target"] == target and s["offset"] == 3}
        ridge, networks = {(name, "ridge") for name in (*learnt, "shuffled")}, {(name, "mlp") for name in learnt}
        assert found == ridge | networks | {(name, "none") for name in ("copy", "mean", "constant velocity")}
    by_place = {(s["target"], s["offset"], s["predictor"], s["readout"]): s for s in result["scores"]}
    copied = by_place["position", 0, "copy", "none"]["metrics"]
    assert copied["r2"]["value"] == 1 and copied["cosine"]["value"] is None
    assert by_place["pixels", 1, "mean", "none"]["metrics"]["r2"]["value"] == pytest.approx(0, abs=1e-9)
    assert by_place["pixels", 1, "shuffled", "ridge"]["metrics"]["r2"]["value"] < 0.1
    assert len(by_place["pixels", 1, "checkpoint", "mlp"]["seeds"]) == 2
    differences = {(d["target"], d["offset"], d["readout"], d["reference"]) for d in result["differences"]}
    assert {("velocity", 3, "mlp", "baseline"), ("pixels", 1, "ridge", "untrained")} <= differences
    assert result["clips"]["num_videos"] == {"train": 12, "val": 4, "test": 8}
    assert result["clips"]["frames_read"] == [2, 3] and result["checkpoint"]["layer"] == 1
    with (tmp_path / "per_video.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8 * len(result["scores"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure>") == len(list((tmp_path / "pictures").glob("*.png"))) + 8  # curves: 2 x (3 + 1)


@pytest.mark.slow
def test_a_model_does_not_differ_from_itself_also_where_sprites_are_hidden(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ["--checkpoint", runs / "chunked", "--baseline", runs / "chunked"]
    bar = [
        f"data.scenes.{key}" for key in ("height=16", "width=16", "sprite_size=3", "occluder_width=6", "max_angle=30")
    ]
    rows = ["rows=hidden", "rows_per_clip=4", "num_clips=60"]
    settings = [*QUICK, *bar, *rows, "mlp.seeds=1", "picture_videos=2", f"out={tmp_path}"]
    assert call(monkeypatch, *models, "--config", CONFIGS / "probe_scenes_tiny.yaml", *settings) == 0
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["clips"]["frames_read"] == [3, 5, 7, 9]
    assert 2 <= result["clips"]["num_rows"]["test"] < 4 * 21
    itself = [d for d in result["differences"] if d["reference"] == "baseline"]
    assert {(d["target"], d["readout"]) for d in itself} == {
        (target, readout) for target in ("pixels", "position", "velocity") for readout in ("ridge", "mlp")
    }
    assert {e["value"] for d in itself for e in d["metrics"].values()} == {0.0, None}  # no cosine at offset 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--checkpoint", "none/here"], "error: checkpoint folder none/here does not exist"),
        (
            ["--checkpoint", "asset:doom_teacher"],
            "error: --checkpoint asset:doom_teacher was trained to see the future",
        ),
        (["--checkpoint", "asset:doom_causal"], "error: the checkpoint's own data runs/assets/latents is not here"),
        (["sigm=3"], "error: sigm: unknown key"),
        (["sigma=3"], "error: sigma=3.0 must lie in [0, 1]"),
        (["offsets=[1,1]"], "error: offsets=[1, 1]: give at least one"),
        (["layer=9"], "error: layer=9: its layers go from 1 to 2"),
        (["num_clips=4"], "error: 4 videos leave 1 to test on"),
        (["rows=remembered"], "error: rows=remembered leaves too few frames to fit, choose and test with"),
        (["split=train"], "error: split='train' holds clips that models.checkpoint was trained on"),
        (["data.scenes.height=32"], "error: the held-out clips are 32x32"),
        (
            ["data.scenes.height=16", "data.video_folder.root=x"],
            "error: data.video_folder and data.scenes are both given",
        ),
        (["data.latent_shards.root=none/here"], "error: none/here"),
    ],
)
def test_users_mistake_is_one_line_and_exit_code_2(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    first = [] if "--checkpoint" in given else ["--checkpoint", runs / "foresight"]
    config = ["--config", CONFIGS / "probe_scenes_tiny.yaml", *QUICK, f"out={tmp_path / 'out'}"]
    assert call(monkeypatch, *first, *config, *given) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(errors) == 1 and errors[0].startswith(message)


def test_a_baseline_of_other_chunks_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--checkpoint", runs / "foresight", "--baseline", runs / "chunked"]
    config = ["--config", CONFIGS / "probe_scenes_tiny.yaml", *QUICK, f"out={tmp_path}"]
    assert call(monkeypatch, *models, *config) == 2
    assert "both models must generate chunks of the same length" in capsys.readouterr().err


@pytest.mark.slow
def test_shipped_model_is_probed_on_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):  # a still picture that slides
        picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        slid = [np.roll(picture, 2 * step, axis=1) for step in range(8)]
        write_video(tmp_path / "videos" / f"{number:02d}.mp4", np.stack(slid), fps=8.75)
    folder = [f"data.video_folder.{setting}" for setting in (f"root={tmp_path / 'videos'}", "test_fraction=0.4")]
    settings = [*folder, *QUICK, "mlp.seeds=0", "split=all", f"out={tmp_path / 'out'}"]
    given = ["--checkpoint", "asset:doom_causal", "--config", CONFIGS / "probe_doom.yaml", *settings]
    assert call(monkeypatch, *given, "stride_frames=1") == 0
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [target["key"] for target in result["targets"]] == ["pixels"]
    assert result["targets"][0]["shape"] == [32, 32, 3] and result["checkpoint"]["layer"] == 4
    assert any("trained on split 'train'" in warning for warning in result["warnings"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("probe*.yaml")), ids=lambda path: path.stem)
def test_shipped_config_is_a_probe(path: Path) -> None:
    assert load_config(ProbeConfig, path).clip_frames(1) > 8


def test_latents_that_a_model_was_trained_on_are_refused_and_doubts_are_said() -> None:
    trained = DataConfig(kind="latent_shards", latent_shards=LatentShardsConfig("here"))
    run = SimpleNamespace(config=SimpleNamespace(data=trained))
    assert leak_note_of_any("checkpoint", run, LatentShardsConfig("here"), "test") == ""
    assert leak_note_of_any("checkpoint", run, LatentShardsConfig("elsewhere"), "test") == ""
    assert "If it was on these latents" in leak_note_of_any("checkpoint", run, LatentShardsConfig("elsewhere"), "all")
    for data, split in ((LatentShardsConfig("here"), "train"), (LatentShardsConfig("here", seed=1), "test")):
        with pytest.raises(ValueError, match="holds clips that --checkpoint was trained on"):
            leak_note_of_any("checkpoint", run, data, split)
