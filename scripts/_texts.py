"""Texts that steer a rollout, each from a frame on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TextFormat(NamedTuple):
    """How the captions of a run's latents were embedded: tokens of each, and the encoder's fingerprint."""

    max_tokens: int
    encoder: str


class ScheduledText(NamedTuple):
    """frame: the first generated frame, from 0, that the text is meant for."""

    frame: int
    text: str


class TextContexts:
    """One context for each chunk: that of the newest text whose frame has come when the chunk begins.

    While the text stays the same so does the tensor, by which the model's cache of its keys and values knows it.
    """

    def __init__(
        self, texts: Sequence[tuple[int, Tensor]], history_frames: int, num_pixel_frames: Callable[[int], int]
    ) -> None:
        """texts: (first frame, (batch_size, L, D)), ascending from 0; num_pixel_frames: of so many latent frames."""
        self._texts = list(texts)
        self._history_frames = history_frames
        self._num_pixel_frames = num_pixel_frames

    def __call__(self, first_frame: int, num_frames: int) -> Tensor:
        """(batch_size, L, D) for latent frames that follow those asked for before; the history has the first text."""
        frame = self._num_pixel_frames(first_frame) - self._num_pixel_frames(self._history_frames)
        return next(context for start, context in reversed(self._texts) if start <= max(0, frame))


def parse_schedule(words: Sequence[str]) -> list[ScheduledText]:
    """ "TEXT" from the first frame on, "FRAME:TEXT" from a later one; ValueError unless they ascend from frame 0."""
    found = [re.fullmatch(r"(?:(\d+):)?(.*)", word, re.DOTALL) for word in words]
    schedule = [ScheduledText(int(match[1] or 0), match[2].strip()) for match in found if match is not None]
    frames = [scheduled.frame for scheduled in schedule]
    if frames[0] != 0 or frames != sorted(set(frames)):
        raise ValueError(
            f"--text begins at the frames {', '.join(map(str, frames))}; give 'TEXT' first and then 'FRAME:TEXT', each "
            f"for a later frame."
        )
    return schedule


def encode_schedule(
    schedule: Sequence[ScheduledText], folder: Path, text_format: TextFormat, device: torch.device
) -> list[tuple[int, Tensor]]:
    """(frame, (1, L, D)) of every text.

    Raises:
        ValueError: no encoder in the folder, or another than the run's captions were embedded with.
    """
    import torch

    from video_mirai.models.text_encoder import TextEncoder

    if TextEncoder.fingerprint(folder, text_format.max_tokens) != text_format.encoder:
        raise ValueError(f"--text-encoder {folder} is not the one that embedded the captions of the run's latents.")
    encoder = TextEncoder(folder, text_format.max_tokens, str(device))
    return [(frame, torch.from_numpy(encoder.encode(text))[None].to(device)) for frame, text in schedule]
