"""Parameter groups, schedule, clipping."""

import math

import pytest
import torch
from tiny_training import TINY_FORESIGHT, tiny_config

from video_mirai import build
from video_mirai.objectives.flow_matching import Objective
from video_mirai.training.optimizers import (
    OptimizerConfig,
    ScheduleConfig,
    clip_gradients,
    make_optimizers,
    schedule_factor,
)


@pytest.fixture
def objective(tmp_path) -> Objective:
    return build.build_objective(tiny_config(tmp_path, base=TINY_FORESIGHT), latent_channels=3, teacher_width=24)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_is_in_exactly_one_group(objective: Objective, kind: str) -> None:
    optimizers = make_optimizers(objective, OptimizerConfig(kind=kind))  # type: ignore[arg-type]
    grouped = [
        id(parameter)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(grouped) == sorted(id(parameter) for parameter in objective.parameters())


def test_muon_takes_the_matrices_of_the_students_blocks_and_nothing_else(objective: Objective) -> None:
    optimizers = make_optimizers(objective, OptimizerConfig(kind="muon"))
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    taken = {names[id(parameter)] for group in optimizers["muon"].param_groups for parameter in group["params"]}
    assert taken == {
        f"student.blocks.{block}.{part}.weight"
        for block in range(2)
        for part in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ffn.net.0.proj", "ffn.net.2")
    }


def test_predictor_has_its_own_learning_rate(objective: Objective) -> None:
    optimizers = make_optimizers(objective, OptimizerConfig(lr=1e-3, predictor_lr=5e-4))
    rates = {group["name"]: group["lr"] for group in optimizers["adamw"].param_groups}
    assert rates == {
        "student_matrices": 1e-3,
        "student_other": 1e-3,
        "predictor_matrices": 5e-4,
        "predictor_other": 5e-4,
    }


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_schedule_warms_up_then_decays_to_its_final_fraction(decay: str) -> None:
    config = ScheduleConfig(warmup_steps=10, decay=decay, final_fraction=0.1)  # type: ignore[arg-type]
    factor = schedule_factor(config, num_steps=110)
    assert 0 < factor(0) < factor(5) < 1
    assert factor(10) == 1.0
    assert factor(110) == pytest.approx(1.0 if decay == "constant" else 0.1)
    assert factor(60) == pytest.approx(1.0 if decay == "constant" else 0.55)


def test_predictors_gradient_does_not_change_how_the_students_is_clipped(objective: Objective) -> None:
    for parameter in objective.student.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert objective.predictor is not None
    for parameter in objective.predictor.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    norms = clip_gradients(objective, max_norm=1.0)
    count = sum(parameter.numel() for parameter in objective.student.parameters())
    assert float(norms["student"]) == pytest.approx(math.sqrt(count))
    squares = sum(float(parameter.grad.square().sum()) for parameter in objective.student.parameters())
    assert math.sqrt(squares) == pytest.approx(1.0, rel=1e-4)
