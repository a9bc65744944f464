"""Proof that an exported model generates at the cost of one trained without foresight, from the files written."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from video_mirai.export_folder import CLIPS_FILE, CODEC, CONFIG_FILE, PIPELINE_FILE, TRANSFORMER
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.sampling.guidance import guidance_views
from video_mirai.sampling.rollout import RolloutSettings
from video_mirai.training.estimate import RolloutCost, count_parameters, denoising_passes, rollout_cost

PARTS = {TRANSFORMER, CODEC, CLIPS_FILE, CONFIG_FILE, PIPELINE_FILE}


class Baseline(NamedTuple):
    """What an export is measured against.

    student: as the same config builds it without foresight; on the meta device.
    settings: None for a model that sees the future: it has no rollouts, and only its parameters are compared.
    latent_height, latent_width: of the training's frames.
    """

    student: CausalVideoDiT
    settings: RolloutSettings | None
    latent_height: int
    latent_width: int
    context_tokens: int


def prove_export(folder: Path, baseline: Baseline) -> list[str]:
    """Lines for log and model card: parameters, FLOPs of a frame and bytes of the KV cache equal the baseline's.

    Raises:
        ValueError: they do not, or the folder holds anything else than an export's parts.
    """
    surplus = {entry.name for entry in folder.iterdir()} - PARTS
    if surplus:
        raise ValueError(f"{folder} holds {', '.join(sorted(surplus))}, which no export has; nothing is exported.")
    stored = stored_shapes(folder / TRANSFORMER)
    with torch.device("meta"):
        exported = CausalVideoDiT.from_config(CausalVideoDiT.load_config(folder / TRANSFORMER))
    _require_same_tensors(f"{folder}: the weights and the baseline", stored, _shapes_of(baseline.student))
    _require_same_tensors(f"{folder}: the config and the baseline", _shapes_of(exported), _shapes_of(baseline.student))
    counts = sum(map(math.prod, stored.values())), count_parameters(baseline.student)
    _require_equal(folder, "parameters", *counts)
    names = f"the {len(stored)} tensors in the file have the baseline's names and shapes"
    lines = [f"parameters: {counts[0]:,}, baseline {counts[1]:,}: equal; {names}"]
    if baseline.settings is None:
        return lines
    ours, theirs = (_cost(model, baseline.settings, baseline) for model in (exported, baseline.student))
    _require_equal(folder, "FLOPs per frame", ours.flops_per_frame, theirs.flops_per_frame)
    _require_equal(folder, "bytes of KV cache", ours.cache_bytes, theirs.cache_bytes)
    return [*lines, *_in_words(baseline.settings, ours, theirs)]


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a folder's safetensors files, read off their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def _shapes_of(model: CausalVideoDiT) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _require_same_tensors(what: str, ours: dict[str, tuple[int, ...]], theirs: dict[str, tuple[int, ...]]) -> None:
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if different:
        name = different[0]
        raise ValueError(
            f"{what} differ in {len(different)} tensors, such as {name}: {ours.get(name, 'missing')} against "
            f"{theirs.get(name, 'missing')}; nothing is exported."
        )


def _cost(model: CausalVideoDiT, settings: RolloutSettings, baseline: Baseline) -> RolloutCost:
    tokens = model.tokens_per_frame(baseline.latent_height, baseline.latent_width)
    return rollout_cost(model, settings, tokens, baseline.context_tokens)


def _require_equal(folder: Path, what: str, ours: float, theirs: float) -> None:
    if ours != theirs:
        raise ValueError(f"{folder}: {what}: {ours:,}, but {theirs:,} in the baseline; nothing is exported.")


def _in_words(settings: RolloutSettings, ours: RolloutCost, theirs: RolloutCost) -> list[str]:
    views = len(guidance_views(settings.guidance, settings.history_sigma))
    guided = f", {views} views of guidance" if views > 1 else ""
    held = f"{settings.sink_frames} + {settings.window_frames} frames of sink and window{guided}"
    passes = f"{denoising_passes(settings)} denoising passes and one that commits"
    return [
        f"FLOPs per generated frame: {ours.flops_per_frame:,.0f}, baseline {theirs.flops_per_frame:,.0f}: equal "
        f"({passes}, {held})",
        f"KV cache: {ours.cache_bytes:,} bytes a video in {settings.precision}, baseline {theirs.cache_bytes:,}: equal "
        f"({held})",
    ]
