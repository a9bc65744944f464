"""A small network as a readout: what is in a state but not on a straight line."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

# Validation error is looked at so often; the best weights seen are kept.
CHECK_EVERY_STEPS = 25


@dataclass
class MlpConfig:
    """One hidden layer (GELU), trained with AdamW on mean squared error; one network a target, for all offsets at once.

    Attributes:
        seeds: networks for every readout, each from other weights; 0 = no networks.
        hidden: width of the hidden layer.
        steps, batch_rows, lr, weight_decay: of the training.
    """

    seeds: int = 3
    hidden: int = 256
    steps: int = 400
    batch_rows: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        if self.seeds < 0:
            raise ValueError(f"mlp.seeds={self.seeds} must not be negative.")
        for name in ("hidden", "steps", "batch_rows"):
            if vars(self)[name] < 1:
                raise ValueError(f"mlp.{name}={vars(self)[name]} must be at least 1.")


class MlpReadout:
    """A trained network, seen as a readout of one of its blocks of outputs, with the units of its targets.

    Attributes:
        block: of the outputs, (first, after the last).
    """

    def __init__(self, network: nn.Sequential, block: tuple[int, int], mean: Tensor, scale: Tensor) -> None:
        self._network = network
        self._block = block
        self._mean = mean
        self._scale = scale

    @torch.no_grad()
    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n, d) standardised features to (n, m) predictions."""
        output = self._network(_tensor(features, self._mean.device))[:, slice(*self._block)]
        return (output * self._scale + self._mean).double().cpu().numpy()


def fit_mlp(
    train: NDArray[np.floating],
    train_targets: Sequence[NDArray[np.floating]],
    validation: NDArray[np.floating],
    validation_targets: Sequence[NDArray[np.floating]],
    config: MlpConfig,
    seed: int,
    device: torch.device,
) -> list[MlpReadout]:
    """One network for several targets; for each of them as it was when it did best on that target's validation rows.

    Args:
        train, validation: (n, d), standardised.
        train_targets, validation_targets: (n, m) each.
        seed: of the weights and of the order of the rows.
    """
    rows, checked = _tensor(train, device), _tensor(validation, device)
    known = [_tensor(target, device) for target in train_targets]
    means = [target.mean(dim=0) for target in known]
    scales = [
        (target - mean).square().mean().sqrt().clamp_min(1e-12) for target, mean in zip(known, means, strict=True)
    ]
    units = list(zip(means, scales, strict=True))
    targets = torch.cat([(target - mean) / scale for target, (mean, scale) in zip(known, units, strict=True)], dim=1)
    wanted = [
        (_tensor(target, device) - mean) / scale
        for target, (mean, scale) in zip(validation_targets, units, strict=True)
    ]
    ends = np.cumsum([0, *(target.shape[1] for target in known)]).tolist()
    blocks = list(pairwise(ends))

    network = _network(rows.shape[1], config.hidden, ends[-1], seed).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    order = torch.Generator().manual_seed(seed)
    best_errors = [float(target.square().mean()) for target in wanted]  # so far it says the mean
    best = [copy.deepcopy(network)] * len(wanted)
    for step in range(1, config.steps + 1):
        chosen = torch.randint(len(rows), (min(config.batch_rows, len(rows)),), generator=order).to(device)
        loss = functional.mse_loss(network(rows[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % CHECK_EVERY_STEPS == 0 or step == config.steps:
            snapshot = copy.deepcopy(network)
            for index, error in enumerate(_errors(snapshot, checked, wanted, blocks)):
                if error < best_errors[index]:
                    best_errors[index], best[index] = error, snapshot
    return [MlpReadout(*parts) for parts in zip(best, blocks, means, scales, strict=True)]


@torch.no_grad()
def _errors(network: nn.Sequential, rows: Tensor, wanted: list[Tensor], blocks: list[tuple[int, int]]) -> list[float]:
    """Mean squared error of every block of outputs."""
    output = network(rows)
    return [
        float(functional.mse_loss(output[:, slice(*block)], target))
        for block, target in zip(blocks, wanted, strict=True)
    ]


def _network(width: int, hidden: int, outputs: int, seed: int) -> nn.Sequential:
    """The output layer starts at zero, so that the first prediction is the mean."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.GELU(), last)


def _tensor(array: NDArray[np.floating], device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32)).to(device)
