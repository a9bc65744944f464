"""Checkpoints of a training run: a folder that is either whole or absent, and of which nothing is unpickled.

RUN/checkpoints/step_00000500/
    objective.safetensors, ema.safetensors, optimizer_<name>.safetensors
    state.json                     step, schedulers, optimiser settings, validation loss, what the run ran on
    generators_<rank>.safetensors, generators_<rank>.json
    run.yaml                       the resolved config
    SHA256SUMS                     checksum of each of these; written last
"""

import json
import logging
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

from video_mirai.training.integrity import check_sums, remove_folder, sync_file, sync_folder, write_sums, write_text

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


class CheckpointFailed(RuntimeError):
    """A checkpoint could not be written; those that were there before are untouched."""


def save_checkpoint(
    run_dir: Path,
    snapshot: Snapshot,
    generators: dict[str, torch.Generator],
    *,
    keep: int,
    rank: int,
    all_agree: Callable[[bool], bool],
) -> Path:
    """Write a checkpoint; every rank calls it. The folder gets its name only when all its files are on the disk.

    Args:
        generators: this rank's own, beside the global ones, which are saved too.
        keep: so many newest checkpoints stay, and the best.
        all_agree: waits for all ranks; whether every one of them said yes.

    Raises:
        CheckpointFailed: on every rank, where one of them cannot write.
    """
    root = run_dir / CHECKPOINTS
    step = snapshot.state["step"]
    final = root / f"step_{step:08d}"
    unfinished = root / f"unfinished_{step:08d}"

    def together(what: Callable[[], None], *, everywhere: bool = False) -> None:
        error = None
        if rank == 0 or everywhere:
            try:
                what()
            except OSError as caught:
                error = caught
        if not all_agree(error is None):
            if rank == 0:
                shutil.rmtree(unfinished, ignore_errors=True)  # a full disk needs the room
            reason = str(error) if error is not None else "another process could not write its part"
            raise CheckpointFailed(f"the checkpoint of step {step} could not be written: {reason}") from error

    together(lambda: _make_room(root, unfinished))
    together(lambda: _save_generators(unfinished, rank, generators), everywhere=True)
    together(lambda: _save_snapshot(unfinished, snapshot))
    together(lambda: _give_name(unfinished, final))
    together(lambda: _remove_old(run_dir, keep))
    return final


def best_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint with the lowest validation loss, of those written at a step that was validated."""
    losses = {folder: _validation_loss(folder) for folder in list_checkpoints(run_dir)}
    validated = {folder: loss for folder, loss in losses.items() if loss is not None}
    return min(validated, key=lambda folder: validated[folder]) if validated else None


def list_checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    root = run_dir / CHECKPOINTS
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if _STEP_FOLDER.fullmatch(folder.name))


def newest_whole_checkpoint(run_dir: Path) -> Path:
    """The newest checkpoint that is as it was written; damaged ones are named in the log and passed over.

    Raises:
        ValueError: there are none, or all are damaged.
    """
    saved = list_checkpoints(run_dir)
    for folder in reversed(saved):
        try:
            check_checkpoint(folder)
        except (OSError, ValueError) as error:
            logger.warning("%s It is passed over; the one before it is tried.", error)
            continue
        return folder
    raise ValueError(
        f"all {len(saved)} checkpoints in {run_dir / CHECKPOINTS} are damaged; move the folder away to start anew."
    )


def check_checkpoint(folder: Path) -> None:
    """Whether a checkpoint is as it was written.

    Raises:
        FileNotFoundError, ValueError: it is missing, or names the file that is missing or damaged.
    """
    if not folder.is_dir() or not any(folder.glob("*.json")):
        raise FileNotFoundError(f"{folder} is not a checkpoint: it has no {STATE_FILE}.")
    check_sums(folder)


def load_checkpoint(folder: Path) -> Snapshot:
    """Everything of a checkpoint but the generators, on the CPU.

    Raises:
        FileNotFoundError, ValueError: it is missing, incomplete or unreadable.
    """
    check_checkpoint(folder)
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


def _make_room(root: Path, unfinished: Path) -> None:
    """An empty folder to write into; what earlier writing or removing left half done goes."""
    root.mkdir(parents=True, exist_ok=True)
    for leftover in (*root.glob("unfinished_*"), *root.glob("removed_*")):
        shutil.rmtree(leftover)
    unfinished.mkdir()


def _save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    for stem, tensors in snapshot.tensors.items():
        _write_tensors(folder / f"{stem}.safetensors", tensors)
    write_text(folder / "run.yaml", snapshot.config_yaml)
    write_text(folder / STATE_FILE, json.dumps(snapshot.state, indent=1))
    write_sums(folder)


def _give_name(unfinished: Path, final: Path) -> None:
    sync_folder(unfinished)
    if final.exists():  # damaged, or of the same step before a resume
        remove_folder(final)
    unfinished.rename(final)
    sync_folder(final.parent)


def _remove_old(run_dir: Path, keep: int) -> None:
    best = best_checkpoint(run_dir)
    for old in list_checkpoints(run_dir)[:-keep]:
        if old != best:
            remove_folder(old)


def _validation_loss(folder: Path) -> float | None:
    try:
        return json.loads((folder / STATE_FILE).read_text())["validation_loss"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: not worth keeping


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
    write_text(json_file, json.dumps(other))


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # also what a full disk gives
        raise OSError(f"{path}: {error}") from error
    sync_file(path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
