"""The exponential moving average of the student: what is validated and exported."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn


@dataclass
class EMAConfig:
    """Moving average of the student's weights.

    Attributes:
        decay: the ceiling that a long run reaches.
        warmup_power: at step t the decay is min(decay, 1 - (1 + t)^-power), so that the average works from the first
            step and in short runs too.
    """

    decay: float = 0.999
    warmup_power: float = 0.75


def make_ema(student: nn.Module, config: EMAConfig) -> EMAModel:
    """An average that starts at the student's present weights."""
    return EMAModel(
        student.parameters(),
        decay=config.decay,
        use_ema_warmup=True,
        power=config.warmup_power,
        foreach=True,
    )


@contextmanager
def ema_weights(student: nn.Module, ema: EMAModel) -> Iterator[None]:
    """Inside, the student carries its averaged weights and is in eval mode; afterwards both are as before."""
    was_training = student.training
    present = [parameter.detach().clone() for parameter in student.parameters()]
    _copy(ema.shadow_params, student)
    student.eval()
    try:
        yield
    finally:
        _copy(present, student)
        student.train(was_training)


@torch.no_grad()
def _copy(values: list[Tensor], student: nn.Module) -> None:
    """Tensor by tensor: EMAModel's own copy_to has no version for sharded parameters."""
    for parameter, value in zip(student.parameters(), values, strict=True):
        parameter.copy_(value)
