"""The exponential moving average of the student: what is validated and exported."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from diffusers.training_utils import EMAModel
from torch import nn


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
    ema.store(student.parameters())
    ema.copy_to(student.parameters())
    student.eval()
    try:
        yield
    finally:
        ema.restore(student.parameters())
        student.train(was_training)
