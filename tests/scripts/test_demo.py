"""The demo's options; its stages are the other scripts, which have tests of their own."""

import sys
from pathlib import Path

import pytest
import yaml
from tiny_training import REPOSITORY

import demo
from _cli import run_script
from _stages import Stage, run_stages
from video_mirai.config import RunConfig, load_config
from video_mirai.evaluation.probe_run import ProbeConfig
from video_mirai.evaluation.protocol import EvaluateConfig


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Titles of the stages of every demo that got as far as starting them."""
    titles: list[list[str]] = []

    def note(stages: list[Stage]) -> float:
        titles.append([stage.title for stage in stages])
        return 0.0

    monkeypatch.setattr(demo, "run_stages", note)
    return titles


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        run_script(demo.main)
    return int(exit_info.value.code or 0)


def test_a_folder_is_not_gone_on_with_by_another_recipe(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "demo"))
    assert call(monkeypatch, *out) == call(monkeypatch, *out) == 0
    assert call(monkeypatch, *out, "--from-scratch") == 2
    assert "was made with from_scratch=False; choose another --out" in capsys.readouterr().err
    assert call(monkeypatch, *out, "--from-scratch", "--fresh") == 0
    assert len(started) == 3
    assert "Train the codec" in started[2] and "Train the codec" not in started[1]


@pytest.mark.parametrize(("words", "message"), [(("--clips", "9"), "at least 40"), (("--seed", "0"), "trained on")])
def test_options_that_would_fail_or_flatter_are_refused(
    words: tuple[str, str],
    message: str,
    started: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "--out", str(tmp_path), *words) == 2
    assert message in capsys.readouterr().err
    assert not started


def test_a_stage_that_fails_is_no_mistake_of_the_users(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"stage 1 \(fails\) failed with exit code 3"):
        run_stages([Stage("fails", ("-c", "raise SystemExit(3)"), None)])


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "eval").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_evaluation_config_loads(path: Path) -> None:
    kind = ProbeConfig if path.stem.startswith("probe") else EvaluateConfig
    assert load_config(kind, path).num_clips > 0


@pytest.mark.parametrize("name", ["doom_finetune", "doom_scratch"])
def test_the_demo_s_evaluation_has_the_split_of_its_trainings(name: str) -> None:
    trained = load_config(RunConfig, REPOSITORY / "configs" / "train" / f"{name}.yaml").data.latent_shards
    evaluated = load_config(EvaluateConfig, REPOSITORY / "configs" / "eval" / "doom.yaml").data.video_folder
    assert trained is not None and evaluated is not None
    for setting in ("seed", "val_fraction", "test_fraction"):
        assert getattr(trained, setting) == getattr(evaluated, setting)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem
)
def test_accelerate_knows_every_setting_of_its_configs(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(path)).num_processes == yaml.safe_load(path.read_text())["num_processes"]
