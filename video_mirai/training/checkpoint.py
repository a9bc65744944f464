"""Checkpoints of a training run: a folder that is either whole or absent, and of which nothing is unpickled.

RUN/checkpoints/step_00000500/
    objective.safetensors, ema.safetensors, optimizer_<name>.safetensors
    state.json                     step, schedulers, optimiser settings, what the run ran on
    generators_<rank>.safetensors, generators_<rank>.json
    run.yaml                       the resolved config
"""

import json
import logging
import os
import random
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

CHECKPOINTS = "checkpoints"
STATE_FILE = "state.json"
_STEP_FOLDER = re.compile(r"step_(\d{8})")

logger = logging.getLogger(__name__)


class Snapshot(NamedTuple):
    """What a checkpoint holds, the same on every rank.

    tensors: {file stem: {name: tensor}}; state: JSON-able, with "step"; config_yaml: the resolved config.
    """

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    config_yaml: str


def save_checkpoint(
    run_dir: Path,
    snapshot: Snapshot,
    generators: dict[str, torch.Generator],
    *,
    keep: int,
    rank: int,
    barrier: Callable[[], None],
) -> Path:
    """Write a checkpoint; every rank calls it. The folder gets its name only when all its files are on the disk.

    Args:
        generators: this rank's own, beside the global ones, which are saved too.
        keep: so many newest checkpoints stay.
        barrier: waits for all ranks.
    """
    root = run_dir / CHECKPOINTS
    step = snapshot.state["step"]
    final = root / f"step_{step:08d}"
    unfinished = root / f"unfinished_{step:08d}"
    if rank == 0:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob("unfinished_*"):
            shutil.rmtree(leftover)
        unfinished.mkdir()
    barrier()
    _save_generators(unfinished, rank, generators)
    if rank == 0:
        for stem, tensors in snapshot.tensors.items():
            _write_tensors(unfinished / f"{stem}.safetensors", tensors)
        _write_text(unfinished / "run.yaml", snapshot.config_yaml)
        _write_text(unfinished / STATE_FILE, json.dumps(snapshot.state, indent=1))
    barrier()
    if rank == 0:
        if final.exists():
            shutil.rmtree(final)
        _sync_folder(unfinished)
        unfinished.rename(final)
        _sync_folder(root)
        for old in list_checkpoints(run_dir)[:-keep]:
            shutil.rmtree(old)
    barrier()
    return final


def list_checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    root = run_dir / CHECKPOINTS
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if _STEP_FOLDER.fullmatch(folder.name))


def load_checkpoint(folder: Path) -> Snapshot:
    """Everything of a checkpoint but the generators, on the CPU.

    Raises:
        FileNotFoundError, ValueError: it is missing, incomplete or unreadable.
    """
    if not (folder / STATE_FILE).is_file():
        raise FileNotFoundError(f"{folder} is not a checkpoint: it has no {STATE_FILE}.")
    tensors = {
        file.stem: _read_tensors(file)
        for file in sorted(folder.glob("*.safetensors"))
        if not file.stem.startswith("generators_")
    }
    state = json.loads((folder / STATE_FILE).read_text())
    return Snapshot(tensors, state, (folder / "run.yaml").read_text())


def restore_generators(folder: Path, rank: int, generators: dict[str, torch.Generator]) -> bool:
    """Set this rank's generators and the global ones as saved; False where this rank saved none."""
    tensor_file, json_file = _generator_files(folder, rank)
    if not json_file.is_file():
        return False
    states = _read_tensors(tensor_file)
    for name, generator in generators.items():
        generator.set_state(states[f"own.{name}"])
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    other = json.loads(json_file.read_text())
    version, words, gauss = other["python"]
    random.setstate((version, tuple(words), gauss))
    name, words, position, has_gauss, cached = other["numpy"]
    np.random.set_state((name, np.array(words, dtype=np.uint32), position, has_gauss, cached))
    return True


def optimizer_snapshot(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """({"<parameter index>.<state name>": tensor}, settings of the groups), the latter JSON-able."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": whole(value) for index, entries in state["state"].items() for name, value in entries.items()
    }
    return tensors, {"param_groups": state["param_groups"]}


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """Load what `optimizer_snapshot` gave."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        like = parameters[int(index)]
        state.setdefault(int(index), {})[name] = sharded_like(value, like) if value.shape == like.shape else value
    optimizer.load_state_dict({"state": state, "param_groups": settings["param_groups"]})


def whole(tensor: Tensor) -> Tensor:
    """A tensor's full value, on the CPU, also where it is sharded over ranks (then every rank must call this)."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous()


def sharded_like(full: Tensor, like: Tensor) -> Tensor:
    """`full` on the device, and with the sharding, of `like`."""
    if isinstance(like, DTensor):
        return distribute_tensor(full.to(like.device), like.device_mesh, like.placements)
    return full.to(like.device)


def copy_parameters(source: dict[str, Tensor], target: Iterable[tuple[str, Tensor]], described_as: str) -> None:
    """Copy named tensors into parameters and buffers of the same names and shapes.

    Raises:
        ValueError: names or shapes differ.
    """
    targets = dict(target)
    missing, surplus = sorted(targets.keys() - source.keys()), sorted(source.keys() - targets.keys())
    if missing or surplus:
        raise ValueError(
            f"{described_as} does not fit this config: {len(missing)} tensors missing {missing[:2]}, "
            f"{len(surplus)} surplus {surplus[:2]}."
        )
    with torch.no_grad():
        for name, tensor in targets.items():
            if source[name].shape != tensor.shape:
                raise ValueError(
                    f"{described_as} does not fit this config: {name} is {tuple(source[name].shape)} there "
                    f"and {tuple(tensor.shape)} here."
                )
            tensor.copy_(sharded_like(source[name], tensor))


def _generator_files(folder: Path, rank: int) -> tuple[Path, Path]:
    return folder / f"generators_{rank}.safetensors", folder / f"generators_{rank}.json"


def _save_generators(folder: Path, rank: int, generators: dict[str, torch.Generator]) -> None:
    tensor_file, json_file = _generator_files(folder, rank)
    states = {f"own.{name}": generator.get_state() for name, generator in generators.items()}
    states["torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    _write_tensors(tensor_file, states)
    name, words, position, has_gauss, cached = cast(tuple, np.random.get_state())
    other = {"python": random.getstate(), "numpy": [name, words.tolist(), position, has_gauss, cached]}
    _write_text(json_file, json.dumps(other))


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    _sync_file(path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
    _sync_file(path)


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
