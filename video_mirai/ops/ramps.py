"""How a rate or a weight goes over a run: nothing at first, a linear rise, then a decay to a fraction of the peak."""

import math
from collections.abc import Callable

DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
    "constant": lambda progress: 1.0,
}


def decay_factor(kind: str, final_fraction: float, step: int, start: int, end: int) -> float:
    """1 at step `start`, `final_fraction` from step `end` on; "constant" stays at 1."""
    progress = min(1.0, (step - start) / max(1, end - start))
    return final_fraction + (1 - final_fraction) * DECAYS[kind](progress)
