"""Which optimiser moves which weight, how the learning rate goes, and how gradients are clipped."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from video_mirai.ops.ramps import decay_factor

PREDICTOR_PREFIX = "predictor."
HIDDEN_PREFIX = "student.blocks."


@dataclass
class ScheduleConfig:
    """Learning rate over the run: linear warm-up, then decay to a fraction of its peak.

    Attributes:
        final_fraction: of the peak, reached at the last step.
    """

    warmup_steps: int = 100
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final_fraction: float = 0.0


@dataclass
class OptimizerConfig:
    """AdamW for everything, or Muon for the hidden matrices and AdamW for the rest.

    Attributes:
        lr: AdamW's, for the student.
        muon_lr: of the matrices inside the student's blocks, when kind is "muon".
        predictor_lr: of the foresight predictor, always under AdamW.
        weight_decay: on matrices only.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = 3e-4
    muon_lr: float = 0.02
    predictor_lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    muon_momentum: float = 0.95
    weight_decay: float = 0.0


def make_optimizers(objective: nn.Module, config: OptimizerConfig) -> dict[str, Optimizer]:
    """{"adamw": ..., "muon": ...}; each trainable parameter is in exactly one group, groups carry a "name".

    Muon takes the 2-D weights inside the student's blocks. Patch embedding (5-D), condition embedder, output
    projection, norms, biases, scale_shift_table and the whole predictor go to AdamW (Jordan 2024, "Muon").
    """
    groups: dict[str, list[Tensor]] = {name: [] for name in (*_ADAMW_GROUPS, "hidden")}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            groups[_group_of(name, parameter, config.kind)].append(parameter)
    adamw_groups = [
        {
            "name": name,
            "params": groups[name],
            "lr": config.predictor_lr if name.startswith("predictor") else config.lr,
            "weight_decay": config.weight_decay if name.endswith("matrices") else 0.0,
        }
        for name in _ADAMW_GROUPS
        if groups[name]
    ]
    optimizers: dict[str, Optimizer] = {}
    if adamw_groups:
        optimizers["adamw"] = AdamW(adamw_groups, lr=config.lr, betas=config.betas, fused=True)
    if groups["hidden"]:
        optimizers["muon"] = Muon(
            [{"name": "hidden", "params": groups["hidden"]}],
            lr=config.muon_lr,
            momentum=config.muon_momentum,
            weight_decay=config.weight_decay,
        )
    return optimizers


def make_schedulers(optimizers: dict[str, Optimizer], config: ScheduleConfig, num_steps: int) -> dict[str, LambdaLR]:
    """One schedule per optimiser. Not for accelerator.prepare, which would step them once per process."""
    return {name: LambdaLR(optimizer, schedule_factor(config, num_steps)) for name, optimizer in optimizers.items()}


def schedule_factor(config: ScheduleConfig, num_steps: int) -> Callable[[int], float]:
    """Step (from 0) -> the factor on the peak learning rate; never 0 at the first step."""

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        return decay_factor(config.decay, config.final_fraction, step, config.warmup_steps, num_steps)

    return factor


def clip_gradients(objective: nn.Module, max_norm: float) -> dict[str, Tensor]:
    """Clip student and predictor to `max_norm` each, and return both norms from before.

    Apart, because with one common norm the predictor's gradient would scale the student's.
    """
    norms: dict[str, Tensor] = {}
    for part, is_predictor in (("student", False), ("predictor", True)):
        parameters = [
            parameter
            for name, parameter in objective.named_parameters()
            if name.startswith(PREDICTOR_PREFIX) == is_predictor and parameter.grad is not None
        ]
        if parameters:
            norms[part] = _full(nn.utils.clip_grad_norm_(parameters, max_norm))
    return norms


def learning_rates(optimizers: dict[str, Optimizer]) -> dict[str, float]:
    """{group name: current learning rate}."""
    return {group["name"]: float(group["lr"]) for group in _all_groups(optimizers.values())}


_ADAMW_GROUPS = ("student_matrices", "student_other", "predictor_matrices", "predictor_other")


def _group_of(name: str, parameter: Tensor, kind: str) -> str:
    shape = "matrices" if parameter.ndim >= 2 and not name.endswith("scale_shift_table") else "other"
    if name.startswith(PREDICTOR_PREFIX):
        return f"predictor_{shape}"
    if kind == "muon" and name.startswith(HIDDEN_PREFIX) and parameter.ndim == 2:
        return "hidden"
    return f"student_{shape}"


def _all_groups(optimizers: Iterable[Optimizer]) -> Iterable[dict]:
    for optimizer in optimizers:
        yield from optimizer.param_groups


def _full(norm: Tensor) -> Tensor:
    """The norm of sharded gradients as an ordinary tensor."""
    if isinstance(norm, torch.distributed.tensor.DTensor):
        return norm.full_tensor()
    return norm
