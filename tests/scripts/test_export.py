import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import forget_accelerator, make_trainer, tiny_config

import export
from _cli import run_script
from video_mirai.config import RunConfig, load_config
from video_mirai.training.checkpoint import list_checkpoints, load_checkpoint

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, a checkpoint of each."""
    config = tiny_config(
        tmp_path_factory.mktemp("runs"), "train.num_steps=2", "train.checkpoint_every=1", "train.keep_checkpoints=2"
    )
    trainer = make_trainer(config)
    trainer.fit(2)
    forget_accelerator()
    return trainer.run_dir


def call(monkeypatch: pytest.MonkeyPatch, *given: object) -> int:
    """Exit code of the script, run in this process."""
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, given)])
    with pytest.raises(SystemExit) as exit_info:
        run_script(export.main)
    return int(exit_info.value.code or 0)


def averaged(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint)[0]["ema"]


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "export" / WEIGHTS)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_each_of_several_checkpoints_gets_the_export_of_its_own_step(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = list_checkpoints(run)
    assert call(monkeypatch, "--run", run, "--checkpoint", *checkpoints, "--out", tmp_path) == 0
    assert len(checkpoints) == 2 and not same(*map(averaged, checkpoints))
    printed = capsys.readouterr().out
    for checkpoint in checkpoints:
        assert same(exported(tmp_path / checkpoint.name), averaged(checkpoint))
        assert f"exported to {tmp_path / checkpoint.name / 'export'}" in printed
    assert not (run / "export").exists()


def test_without_a_checkpoint_it_is_the_newest(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "--run", run, "--out", tmp_path) == 0
    assert same(exported(tmp_path / "newest"), averaged(list_checkpoints(run)[-1]))


def test_the_card_may_say_another_name_and_licence_than_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "--run", run, "--out", tmp_path, "--name", "shipped", "--license", "apache-2.0") == 0
    folder = tmp_path / "newest" / "export"
    card, config = (folder / "README.md").read_text(), load_config(RunConfig, folder / "run.yaml")
    assert "\n# shipped\n" in card and "license: apache-2.0" in card
    assert (config.name, config.license) == ("shipped", "apache-2.0")
    assert same(exported(tmp_path / "newest"), averaged(list_checkpoints(run)[-1]))


def test_an_empty_name_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--run", run, "--out", tmp_path, "--name", "") == 2
    assert "name: an empty one says nothing" in capsys.readouterr().err


def test_several_checkpoints_without_a_place_for_each_are_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--run", run, "--checkpoint", *list_checkpoints(run)) == 2
    assert "several checkpoints only with --out DIR" in capsys.readouterr().err
    assert not (run / "export").exists()


def test_another_runs_checkpoint_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    assert call(monkeypatch, "--run", tmp_path / "other", "--checkpoint", *list_checkpoints(run)[:1]) == 2
    assert "is no checkpoint of" in capsys.readouterr().err
