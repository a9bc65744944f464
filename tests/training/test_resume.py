"""A run that was stopped and resumed is the run that was never stopped."""

import json
from pathlib import Path

import pytest
import torch
from tiny_training import TINY_FORESIGHT, assert_same_tensors, make_trainer, tiny_config
from video_folders import moving_texture, write_folder

from video_mirai.training import checkpoint
from video_mirai.training.tracking import read_metrics
from video_mirai.training.trainer import Trainer


def snapshot(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Every number that a later step depends on."""
    found = {f"objective.{name}": value for name, value in trainer.objective.state_dict().items()}
    found |= {f"ema.{name}": value for name, value in trainer.ema_state().items()}
    found["ema_step"] = torch.tensor(trainer.ema.optimization_step)
    for name, optimizer in trainer.optimizers.items():
        tensors, settings = checkpoint.optimizer_snapshot(optimizer)
        found |= {f"{name}.{key}": value for key, value in tensors.items()}
        found |= {f"{name}.lr.{group['name']}": torch.tensor(group["lr"]) for group in settings["param_groups"]}
        found[f"{name}.schedule"] = torch.tensor(trainer.schedulers[name].last_epoch)
    return found | {f"generator.{name}": value.get_state() for name, value in trainer.generators.items()}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path: Path, teacher: Path, num_workers: int) -> None:
    settings = [
        f"foresight.teacher.checkpoint={teacher}",
        "train.optimizer.kind=muon",
        f"train.loader.num_workers={num_workers}",
    ]
    whole = make_trainer(tiny_config(tmp_path, "name=whole", *settings, base=TINY_FORESIGHT))
    whole.fit(6)

    config = tiny_config(tmp_path, "name=parts", *settings, base=TINY_FORESIGHT)
    first = make_trainer(config)
    first.fit(3)
    saved = first.save()
    first.fit(4)  # lost again: a kill comes after a checkpoint, not with it
    second = make_trainer(config)
    torch.rand(5)
    second.load(saved)
    second.fit(6)

    assert_same_tensors(snapshot(whole), snapshot(second))
    logged = [
        [{key: value for key, value in line.items() if "per_second" not in key} for line in read_metrics(run)]
        for run in (whole.run_dir, second.run_dir)
    ]
    assert logged[0] == logged[1]


def test_a_run_on_clips_that_share_a_place_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "videos", {str(seed): moving_texture(seed, frames=40) for seed in range(3)})
    folder = {"root": root, "num_frames": 8, "height": 16, "width": 16, "split": "all", "clips_per_video": 4,
              "clips_per_place": 2, "backend": "pyav"}  # fmt: skip
    settings = ["data.kind=video_folder", *(f"data.video_folder.{key}={value}" for key, value in folder.items())]
    whole = make_trainer(tiny_config(tmp_path, "name=whole", *settings))
    whole.fit(6)

    config = tiny_config(tmp_path, "name=parts", *settings)
    first = make_trainer(config)
    first.fit(4)  # an epoch has three steps
    saved = first.save()
    second = make_trainer(config)
    second.load(saved)
    second.fit(6)
    assert_same_tensors(snapshot(whole), snapshot(second))


def test_loading_restores_the_global_generators(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path))
    saved = trainer.save()
    expected = torch.rand(3)
    torch.rand(7)
    trainer.load(saved)
    assert torch.equal(torch.rand(3), expected)


def test_only_the_newest_checkpoints_are_kept_and_unfinished_ones_are_ignored(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path, "train.keep_checkpoints=2"))
    killed_while_writing = trainer.run_dir / "checkpoints" / "unfinished_00000009"
    killed_while_writing.mkdir(parents=True)
    for trainer.step in (1, 2, 10):
        trainer.save()
    assert [folder.name for folder in checkpoint.list_checkpoints(trainer.run_dir)] == [
        "step_00000002",
        "step_00000010",
    ]
    assert not killed_while_writing.exists()


def test_checkpoints_hold_nothing_that_needs_unpickling(tmp_path: Path) -> None:
    saved = make_trainer(tiny_config(tmp_path)).save()
    kinds = {file.suffix for file in saved.iterdir() if file.name != "SHA256SUMS"}
    assert kinds == {".safetensors", ".json", ".yaml"}


def test_checkpoint_of_another_model_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    saved = make_trainer(tiny_config(tmp_path)).save()
    wider = make_trainer(tiny_config(tmp_path, "name=wider", "model.ffn_dim=32"))
    with pytest.raises(ValueError, match=r"does not fit this config: student\..*ffn"):
        wider.load(saved)


def test_damaged_or_missing_checkpoint_is_named(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path))
    saved = trainer.save()
    (saved / "ema.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match=r"ema\.safetensors is damaged"):
        trainer.load(saved)
    with pytest.raises(FileNotFoundError, match="nowhere is not a checkpoint"):
        trainer.load(tmp_path / "nowhere")


def test_checkpoint_says_what_the_run_ran_on(tmp_path: Path) -> None:
    saved = make_trainer(tiny_config(tmp_path)).save()
    state = json.loads((saved / "state.json").read_text())
    assert state["ran_on"]["processes"] == 1
    assert state["ran_on"]["torch"] == torch.__version__
