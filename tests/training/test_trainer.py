"""The training loop."""

import math
from pathlib import Path

import pytest
import torch
from tiny_training import TINY_FORESIGHT, assert_same_tensors, make_trainer, next_batches, student_weights, tiny_config

from video_mirai import build
from video_mirai.training.batches import encode_batch, split_batch
from video_mirai.training.tracking import read_metrics
from video_mirai.training.trainer import TrainingDiverged


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path, "train.num_steps=30", "train.optimizer.lr=3e-3"))
    trainer.fit(30)
    losses = [line["train/flow"] for line in read_metrics(trainer.run_dir)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_weights_and_optimiser_state_stay_fp32_under_bf16(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path, "train.precision=bf16"))
    trainer.fit(1)
    state = [
        value
        for optimizer in trainer.optimizers.values()
        for entries in optimizer.state.values()
        for value in entries.values()
    ]
    assert {value.dtype for value in [*trainer.objective.parameters(), *trainer.ema.shadow_params, *state]} == {
        torch.float32
    }


def test_accumulated_gradient_is_the_mean_over_the_parts(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "train.gradient_accumulation=2", "train.precision=fp32")
    trainer, expected = make_trainer(config), make_trainer(config)
    (batch,) = next_batches(trainer, 1)
    trainer._backward(batch)
    losses = []
    for part in split_batch(batch, 2):
        latents, context = encode_batch(part, expected.codec, torch.device("cpu"))
        losses.append(expected.objective(latents, context, expected.generators["noise"])["total"])
    ((losses[0] + losses[1]) / 2).backward()
    for ours, theirs in zip(trainer.objective.parameters(), expected.objective.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_batch_that_does_not_divide_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train.batch_size=4 does not divide into 1 processes x 3"):
        make_trainer(tiny_config(tmp_path, "train.gradient_accumulation=3"))


def test_nan_stops_training_before_the_weights_change_and_names_step_and_term(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path))
    trainer.fit(2)
    before = student_weights(trainer)
    (batch,) = next_batches(trainer, 1)
    batch["video"][0, 0, 0, 0, 0] = math.nan
    with pytest.raises(TrainingDiverged, match="step 3: loss term 'flow' is nan"):
        trainer.train_step(batch)
    assert_same_tensors(before, student_weights(trainer))


def test_average_starts_at_the_first_step_and_follows_its_formula(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path))
    average = student_weights(trainer)
    names = [name for name, _ in trainer.objective.student.named_parameters()]
    for step, batch in enumerate(next_batches(trainer, 3)):
        trainer.train_step(batch)
        decay = 0.0 if step == 0 else min(0.999, 1 - (1 + step) ** -0.75)
        present = student_weights(trainer)
        average = {name: decay * average[name] + (1 - decay) * present[name] for name in names}
    for name, value in trainer.ema_state().items():
        torch.testing.assert_close(value, average[name])


def test_exported_model_is_the_averaged_student_without_predictor_or_teacher(tmp_path: Path, teacher: Path) -> None:
    config = tiny_config(tmp_path, f"foresight.teacher.checkpoint={teacher}", base=TINY_FORESIGHT)
    trainer = make_trainer(config)
    trainer.fit(3)
    assert trainer.objective.predictor is not None and trainer.foresight is not None
    folder = build.export_run(config, trainer)
    loaded = build.load_run(build.run_dir(config))
    assert_same_tensors(trainer.ema_state(), dict(loaded.model.state_dict()))
    assert loaded.config == config
    assert loaded.rollout == config.rollout
    assert folder is not None
    assert {entry.name for entry in folder.iterdir()} == {
        "transformer",
        "clips.json",
        "codec",
        "run.yaml",
        "model_index.json",
        "README.md",
    }


def test_validation_does_not_change_training(tmp_path: Path) -> None:
    settings = ["validation.num_clips=4", "validation.batch_size=4", "validation.rollout_clips=1"]
    with_it = make_trainer(tiny_config(tmp_path, "name=with", "validation.every_steps=1", *settings))
    without = make_trainer(tiny_config(tmp_path, "name=without"))
    with_it.fit(3)
    without.fit(3)
    assert_same_tensors(student_weights(with_it), student_weights(without))
    last = [line for line in read_metrics(with_it.run_dir) if "validation/loss" in line][-1]
    assert {"validation/frame_7", "validation/rollout_psnr", "validation/copy_last_psnr"} <= last.keys()
    assert any(key.startswith("validation/sigma_") for key in last)
    assert (with_it.run_dir / "validation" / "step_00000003" / "clip_0.mp4").stat().st_size > 0


def test_validation_repeats_itself(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "validation.every_steps=1", "validation.num_clips=6", "validation.batch_size=4")
    trainer = make_trainer(config)
    assert trainer.validate() == trainer.validate()


def test_accelerates_own_accumulation_setting_does_not_scale_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_trainer(tiny_config(tmp_path, "name=plain"))
    plain.fit(2)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    launched = make_trainer(tiny_config(tmp_path, "name=launched"))
    launched.fit(2)
    assert_same_tensors(student_weights(plain), student_weights(launched))
