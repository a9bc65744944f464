"""Every shipped source, control and switch, as its config says: what it changes, and what it must not."""

from pathlib import Path

import pytest
import torch
from tiny_training import (
    REPOSITORY,
    TINY_FORESIGHT,
    assert_same_tensors,
    forget_accelerator,
    make_trainer,
    student_weights,
    tiny_config,
)

from video_mirai import build
from video_mirai.config import RunConfig
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import PixelsCodec
from video_mirai.training.trainer import Trainer

ENCODER_FAMILIES = ("dinov2", "videomae", "vjepa2")
ARMS = sorted((REPOSITORY / "configs" / "train").glob("*/scenes_tiny_*.yaml"))
AVERAGE = REPOSITORY / "configs" / "train" / "sources" / "scenes_tiny_ema.yaml"
STEPS = 3  # gates that start at 0 move in the first, what is behind them in the next
EXACT = "train.precision=fp32"  # bf16 is slow on CPUs


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> dict[str, Path]:
    """A checkpoint for every kind of teacher and every family of encoders."""
    folder = tmp_path_factory.mktemp("checkpoints")
    causal = tiny_config(folder, "name=causal", "objective.kind=diffusion_forcing", "seed=7")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        build.export_run(causal, make_trainer(causal))
    forget_accelerator()
    return {"dit": teacher, "causal_dit": build.run_dir(causal)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """Without foresight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        trainer = make_trainer(tiny_config(tmp_path_factory.mktemp("plain"), "name=plain", EXACT))
        trainer.fit(STEPS)
    forget_accelerator()
    return trainer


def arm_config(arm: Path, tmp_path: Path, checkpoints: dict[str, Path], *overrides: str) -> RunConfig:
    """The shipped config with checkpoints that are there, early enough in its schedule to do something."""
    settings = [EXACT, "foresight.schedule.start_step=0", "foresight.schedule.warmup_steps=1", *overrides]
    family = arm.stem.removeprefix("scenes_tiny_")
    if family in ENCODER_FAMILIES:
        encoders = pytest.importorskip("tiny_encoders", reason="needs the extra hf", exc_type=ImportError)
        folder = encoders.write_encoder(family, tmp_path / "encoder")
        settings += [f"foresight.teacher.checkpoint={folder}", "foresight.teacher.image_size=null"]
    else:
        kind = tiny_config(tmp_path, base=arm).foresight.teacher.kind
        if kind in checkpoints:
            settings.append(f"foresight.teacher.checkpoint={checkpoints[kind]}")
    return tiny_config(tmp_path, "name=arm", *settings, base=arm)


def test_there_is_an_arm_for_every_control_source_and_switch() -> None:
    assert [arm.stem.removeprefix("scenes_tiny_") for arm in ARMS] == [
        *("causal_teacher", "random_teacher", "shuffled_future", "weight0", "window0"),
        *("dinov2", "ema", "videomae", "vjepa2"),
        *("clean_tap", "decay", "heads", "linear", "linear_decay", "mlp", "no_predictor", "skip", "smooth_l1"),
        *("teacher_layer", "teacher_sigma", "three_blocks", "two_layers", "window012", "window1"),
    ]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.stem)
def test_every_arm_at_weight_zero_is_bit_identical_to_no_foresight(
    arm: Path, tmp_path: Path, checkpoints: dict[str, Path], plain: Trainer
) -> None:
    trainer = make_trainer(arm_config(arm, tmp_path, checkpoints, "foresight.weight=0"))
    trainer.fit(STEPS)
    assert trainer.foresight is not None
    assert_same_tensors(student_weights(plain), student_weights(trainer))
    assert_same_tensors(plain.ema_state(), trainer.ema_state())


@pytest.mark.parametrize("arm", [arm for arm in ARMS if "weight0" not in arm.stem], ids=lambda arm: arm.stem)
def test_every_arm_moves_student_and_predictor_but_no_frozen_teacher_nor_the_noise(
    arm: Path, tmp_path: Path, checkpoints: dict[str, Path], plain: Trainer
) -> None:
    config = arm_config(arm, tmp_path, checkpoints)
    trainer = make_trainer(config)
    assert trainer.foresight is not None and trainer.objective.predictor is not None
    network = trainer.foresight.teacher.network
    teacher_before = {name: value.clone() for name, value in network.state_dict().items()}
    predictor_before = {name: value.clone() for name, value in trainer.objective.predictor.named_parameters()}
    trainer.fit(STEPS)
    predictor = trainer.objective.predictor.named_parameters()
    assert not [name for name, value in predictor if torch.equal(value, predictor_before[name])]
    moved = [name for name, value in network.state_dict().items() if not torch.equal(value, teacher_before[name])]
    assert bool(moved) == (config.foresight.teacher.kind == "ema")
    weights = student_weights(plain)
    assert any(not torch.equal(value, weights[name]) for name, value in student_weights(trainer).items())
    noise = plain.generators["noise"].get_state()
    assert torch.equal(trainer.generators["noise"].get_state(), noise), "the student sees the same noise in every arm"
    assert {name: value.shape for name, value in trainer.ema_state().items()} == {
        name: value.shape for name, value in plain.ema_state().items()
    }, "what is exported, and so what inference costs, is the plain model's"


def test_the_average_teacher_is_the_trainers_average_at_every_step(tmp_path: Path) -> None:
    trainer = make_trainer(arm_config(AVERAGE, tmp_path, {}))
    assert trainer.foresight is not None
    for step in (1, 3):
        trainer.fit(step)
        average = trainer.ema_state()
        for name, value in trainer.foresight.teacher.network.state_dict().items():
            assert torch.equal(value, average[name]), name


def test_a_resumed_run_with_the_average_teacher_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = make_trainer(arm_config(AVERAGE, tmp_path / "whole", {}))
    whole.fit(6)
    config = arm_config(AVERAGE, tmp_path / "parts", {})
    first = make_trainer(config)
    first.fit(3)
    saved = first.save()
    second = make_trainer(config)
    second.load(saved)
    second.fit(6)
    assert_same_tensors(whole.objective.state_dict(), second.objective.state_dict())
    assert_same_tensors(whole.ema_state(), second.ema_state())
    assert second.foresight is not None
    for name, value in second.foresight.teacher.network.state_dict().items():
        assert torch.equal(value, second.ema_state()[name]), name


def test_a_random_teacher_follows_from_the_runs_seed(tmp_path: Path, teacher: Path) -> None:
    def features(*overrides: str) -> torch.Tensor:
        settings = [f"foresight.teacher.checkpoint={teacher}", "foresight.teacher.sigma=0", *overrides]
        config = tiny_config(tmp_path, EXACT, *settings, base=TINY_FORESIGHT)
        student = CausalVideoDiT(**build.student_settings(config.model, 3))
        source = build.build_foresight(config, student, PixelsCodec(), torch.Generator())
        return source.teacher.encode(torch.ones(1, 2, 3, 16, 16), None)

    random = features("foresight.teacher.untrained=true")
    assert torch.equal(random, features("foresight.teacher.untrained=true"))
    assert not torch.equal(random, features("foresight.teacher.untrained=true", "seed=1"))
    assert not torch.equal(random, features())


def test_a_shuffled_future_with_one_clip_at_a_time_is_refused(tmp_path: Path, teacher: Path) -> None:
    settings = [f"foresight.teacher.checkpoint={teacher}", "foresight.shuffle_future=true"]
    parts = ["train.batch_size=4", "train.gradient_accumulation=4"]
    with pytest.raises(ValueError, match=r"leaves 1 clip at a time; foresight\.shuffle_future"):
        make_trainer(tiny_config(tmp_path, *settings, *parts, base=TINY_FORESIGHT))
