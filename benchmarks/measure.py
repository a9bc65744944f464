"""How everything is timed: variants take turns in one run, and a ratio is made within a turn.

A slow moment of the machine then hits all variants alike. Figures are medians over the turns, with the least and the
greatest.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

# Runs a variant once and says how many seconds of it count.
Timed = Callable[[], float]
Turns = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """One measured number: median over the turns, least and greatest, and the target, where there is one."""

    group: str
    name: str
    value: float
    low: float
    high: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the target; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None


@dataclass
class Findings:
    """Rows for the table, and whole series (seconds of every turn, milliseconds of every frame) for the JSON."""

    rows: list[Row] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self,
        group: str,
        name: str,
        values: Sequence[float],
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """A row from the values of all turns."""
        middle = statistics.median(values)
        self.rows.append(Row(group, name, middle, min(values), max(values), unit, at_most, at_least))

    def extend(self, other: "Findings") -> None:
        """Take in another part's."""
        self.rows += other.rows
        self.series |= other.series


def timed(action: Callable[[], object], device: torch.device) -> Timed:
    """The action with a stopwatch around it; on an accelerator its work is waited for."""

    def run() -> float:
        wait(device)
        start = time.perf_counter()
        action()
        wait(device)
        return time.perf_counter() - start

    return run


def wait(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(variants: Mapping[str, Timed], repetitions: int, warmup: int, label: str) -> Turns:
    """Seconds of every turn, by variant; each repetition starts with another one, so that none always comes last."""
    names = list(variants)
    seconds: Turns = {name: [] for name in names}
    bar = progress_bar((warmup + repetitions) * len(names), label)
    for repetition in range(-warmup, repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            bar.set_postfix_str(name, refresh=False)
            elapsed = variants[name]()
            if repetition >= 0:
                seconds[name].append(elapsed)
            bar.update()
    bar.close()
    return seconds


def progress_bar(total: int, label: str) -> tqdm:
    """A bar over turns; quiet where nobody watches more often than twice a minute."""
    interval = 0.5 if os.isatty(2) else 30.0
    return tqdm(total=total, desc=label, unit="turn", dynamic_ncols=True, mininterval=interval)


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Turn by turn."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]
