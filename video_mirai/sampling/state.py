"""What a rollout needs to go on later, in another process too."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_mirai.models.cache import KVCache
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.decoder_memory import DecoderMemory

FORMAT = "video_mirai rollout state 1"
Generators = torch.Generator | Sequence[torch.Generator]


class Pending(NamedTuple):
    """The newest chunk (B, F, C, H, W), generated or given, and its context; it is yet to enter the cache."""

    latents: Tensor
    context: Tensor | None


@dataclass
class RolloutState:
    """Filled in by the rollout it is given to, and right between any two chunks."""

    cache: KVCache | None = None
    pending: Pending | None = None


class SavedRollout(NamedTuple):
    """What `load_state` gives back."""

    state: RolloutState
    generator: Generators
    decoder: DecoderMemory


def save_state(
    path: str | Path, state: RolloutState, generator: Generators, decoder: DecoderMemory | None = None
) -> None:
    """Write a state, where its noise is, and what a streaming decoder remembers, to a safetensors file.

    Raises:
        ValueError: the state has not been through a rollout.
    """
    if state.cache is None:
        raise ValueError("this state is empty: give it to a rollout and take a chunk first.")
    cache = state.cache
    tensors = {f"cache.{name}": tensor for name, tensor in cache.state_dict().items()}
    if state.pending is not None:
        tensors["pending.latents"] = state.pending.latents
        if state.pending.context is not None:
            tensors["pending.context"] = state.pending.context
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    tensors |= {f"generator.{number}": source.get_state() for number, source in enumerate(generators)}
    sizes = {
        "batch_size": cache.batch_size,
        "tokens_per_frame": cache.tokens_per_frame,
        "sink_frames": cache.sink_frames,
        "window_frames": cache.capacity_frames - cache.sink_frames,
        "one_generator": isinstance(generator, torch.Generator),
        "noise_on_cpu": generators[0].device.type == "cpu",
        "decoder_marks": decoder.marks() if decoder is not None else [],
    }
    if decoder is not None:
        tensors |= {f"decoder.{number}": tensor for number, tensor in decoder.state_dict().items()}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"format": FORMAT, "sizes": json.dumps(sizes)})


def load_state(path: str | Path, model: CausalVideoDiT) -> SavedRollout:
    """A saved state on the model's device; its generators go on where those that were saved stopped.

    Raises:
        FileNotFoundError, ValueError: no such file, not a saved state, or another model's.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"rollout state {path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is no saved rollout state: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no saved rollout state of this version ({FORMAT!r}).")
    sizes = json.loads(metadata["sizes"])
    one_generator, decoder_marks = sizes.pop("one_generator"), sizes.pop("decoder_marks")
    noise_device = torch.device("cpu") if sizes.pop("noise_on_cpu") else model.device
    cache = KVCache.allocate(model, **sizes, dtype=tensors["cache.values.0"].dtype)
    cache.load_state_dict(_with_prefix(tensors, "cache."))
    pending = None
    if "pending.latents" in tensors:
        context = tensors.get("pending.context")
        pending = Pending(
            tensors["pending.latents"].to(model.device), None if context is None else context.to(model.device)
        )
    saved = _with_prefix(tensors, "generator.")
    generators = [torch.Generator(noise_device) for _ in saved]
    for number, generator in enumerate(generators):
        generator.set_state(saved[str(number)])
    decoder = DecoderMemory()
    decoder.load(
        {name: tensor.to(model.device) for name, tensor in _with_prefix(tensors, "decoder.").items()}, decoder_marks
    )
    return SavedRollout(RolloutState(cache, pending), generators[0] if one_generator else generators, decoder)


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
