"""Continuing held-out videos with a model, and keeping the frames on disk without loss for the metrics."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from video_mirai.media import VideoWriter, to_uint8
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.sampling.rollout import RolloutSettings, rollout


class StoredClip(NamedTuple):
    """One video. frames: (T, H, W, 3) uint8, history included; state: what the data set knows of it, often nothing."""

    name: str
    frames: np.ndarray
    state: dict[str, np.ndarray]


def settings_hash(settings: Mapping[str, Any]) -> str:
    """sha256 of settings in canonical JSON: equal settings, equal hash, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def clip_generator(seed: int, clip_index: int, device: torch.device, sample: int = 0) -> torch.Generator:
    """The noise source of one sample of a clip: the same for every model, process count and batch size."""
    # NumPy pads with zeros, so the first sample has the noise of (seed, clip).
    state = np.random.SeedSequence([seed, clip_index, sample]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> 1))


def as_model_input(frames: np.ndarray, device: torch.device) -> Tensor:
    """(..., T, H, W, 3) uint8 becomes (..., T, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(frames).to(device).movedim(-1, -3).float() / 127.5 - 1


@torch.no_grad()
def continue_videos(
    model: CausalVideoDiT,
    codec: Codec,
    history: Tensor,
    horizon_frames: int,
    settings: RolloutSettings,
    generators: Sequence[torch.Generator],
) -> Iterator[Tensor]:
    """Generate what follows the history and decode it chunk by chunk.

    Args:
        history: (B, T, C, H, W) in [-1, 1].
        horizon_frames: pixel frames to generate.
        generators: one per video.
    Yields (B, t, C, H, W) in [-1, 1], horizon_frames in all.
    """
    latents = codec.encode(history)
    chunks = rollout(model, latents, settings, list(generators))
    # The history goes through the decoder too: one that mixes frames over time needs what came before a chunk.
    position = -history.shape[1]
    for video in codec.decode_stream(chain([latents], chunks)):
        wanted = video[:, max(0, -position) : horizon_frames - position]
        position += video.shape[1]
        if wanted.shape[1]:
            yield wanted
        if position >= horizon_frames:
            return


@torch.no_grad()
def reconstruct(codec: Codec, frames: np.ndarray, device: torch.device) -> np.ndarray:
    """What the codec makes of real frames, (T, H, W, 3) uint8 to the same shape: the best any model on it can do."""
    padding = -(len(frames) - 1) % codec.temporal_factor
    padded = np.concatenate([frames, np.repeat(frames[-1:], padding, axis=0)])
    return to_uint8(codec.decode(codec.encode(as_model_input(padded[None], device))))[0, : len(frames)]


class ClipStore:
    """Videos of one row in a folder: <clip>.npz holds the exact frames, <clip>.mp4 is for people.

    A clip counts as done only when it was stored under the same settings hash.
    """

    def __init__(self, frames_folder: Path, video_folder: Path, settings: str) -> None:
        self._frames_folder = frames_folder
        self._video_folder = video_folder
        self._settings = settings

    def video_path(self, index: int) -> Path:
        return self._video_folder / f"{index:04d}.mp4"

    def has(self, index: int) -> bool:
        """Whether this clip is complete and made with the same settings."""
        path = self._frames_path(index)
        if not (path.is_file() and self.video_path(index).is_file()):
            return False
        try:
            with np.load(path) as stored:
                return str(stored["settings"]) == self._settings
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError):
            return False

    def save(self, index: int, clip: StoredClip, fps: float) -> None:
        """Store a clip; the frames come last and in one move, so that a killed run leaves no half clip behind."""
        with VideoWriter(self.video_path(index), fps) as writer:
            writer.append(clip.frames)
        path = self._frames_path(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        state: dict[str, Any] = {f"state_{key}": value for key, value in clip.state.items()}
        np.savez_compressed(part, settings=self._settings, name=clip.name, frames=clip.frames, **state)
        os.replace(part, path)

    def load(self, index: int) -> StoredClip:
        with np.load(self._frames_path(index)) as stored:
            prefix = "state_"
            state = {key.removeprefix(prefix): stored[key] for key in stored.files if key.startswith(prefix)}
            return StoredClip(str(stored["name"]), stored["frames"], state)

    def _frames_path(self, index: int) -> Path:
        return self._frames_folder / f"{index:04d}.npz"
