"""What foresight may and may not change in training."""

from pathlib import Path

import pytest
import torch
from tiny_training import TINY_FORESIGHT, assert_same_tensors, make_trainer, student_weights, tiny_config

from video_mirai.training.trainer import Trainer


def train(tmp_path: Path, name: str, *overrides: str) -> Trainer:
    trainer = make_trainer(tiny_config(tmp_path, f"name={name}", *overrides, base=TINY_FORESIGHT))
    trainer.fit(4)
    return trainer


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_foresight_weight_zero_is_bit_identical_to_no_predictor(tmp_path: Path, teacher: Path, precision: str) -> None:
    # A small norm, so that gradients are really clipped.
    settings = [f"train.precision={precision}", "train.max_grad_norm=0.01"]
    without = train(tmp_path, "without", "foresight=null", *settings)
    weightless = train(
        tmp_path, "weightless", "foresight.weight=0", f"foresight.teacher.checkpoint={teacher}", *settings
    )
    assert weightless.objective.predictor is not None
    assert_same_tensors(student_weights(without), student_weights(weightless))
    assert_same_tensors(without.ema_state(), weightless.ema_state())


def test_foresight_changes_the_student(tmp_path: Path, teacher: Path) -> None:
    without = train(tmp_path, "without", "foresight=null")
    trained = train(tmp_path, "with", f"foresight.teacher.checkpoint={teacher}")
    changed = [
        name
        for name, value in student_weights(without).items()
        if not torch.equal(value, student_weights(trained)[name])
    ]
    assert any(name.startswith("blocks.0.") for name in changed)


def test_every_predictor_weight_moves_and_the_teachers_never_do(tmp_path: Path, teacher: Path) -> None:
    config = tiny_config(tmp_path, f"foresight.teacher.checkpoint={teacher}", base=TINY_FORESIGHT)
    trainer = make_trainer(config)
    assert trainer.foresight is not None and trainer.objective.predictor is not None
    predictor = {name: value.clone() for name, value in trainer.objective.predictor.named_parameters()}
    frozen = {name: value.clone() for name, value in trainer.foresight.teacher.network.state_dict().items()}
    trainer.fit(4)
    still = [
        name for name, value in trainer.objective.predictor.named_parameters() if torch.equal(value, predictor[name])
    ]
    assert not still
    assert_same_tensors(frozen, trainer.foresight.teacher.network.state_dict())


def test_teacher_is_in_no_checkpoint_and_the_predictor_not_in_the_average(tmp_path: Path, teacher: Path) -> None:
    config = tiny_config(tmp_path, f"foresight.teacher.checkpoint={teacher}", base=TINY_FORESIGHT)
    trainer = make_trainer(config)
    names = trainer.objective.state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"student", "predictor"}
    assert trainer.ema_state().keys() == trainer.objective.student.state_dict().keys()
