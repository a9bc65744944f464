"""From a loader's batch to what the objective takes."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from video_mirai.data.batch import ClipKey, VideoBatch, VideoSample
from video_mirai.models.codecs import Codec


class ClipSet(Protocol):
    """A map-style data set of clips of equal length."""

    fps: float

    def __len__(self) -> int: ...

    def __getitem__(self, key: int | ClipKey) -> VideoSample: ...


def encode_batch(batch: VideoBatch, codec: Codec, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """(latents (B, F, C, h, w), context or None) on the device; encoded here where the data set didn't.

    Raises ValueError for a context per frame that does not have one for every latent frame.
    """
    if "latents" in batch:
        latents = batch["latents"].to(device, non_blocking=True)
    else:
        with torch.no_grad():
            latents = codec.encode(batch["video"].to(device, non_blocking=True))
    if "context" not in batch:
        return latents, None
    context = batch["context"].to(device, non_blocking=True)
    if context.ndim == 4:
        check_frame_contexts(context.shape[1], latents.shape[1])
    return latents, context


def check_frame_contexts(num_contexts: int, num_latent_frames: int) -> None:
    """ValueError unless every latent frame of a clip has the context of one video frame."""
    if num_contexts != num_latent_frames:
        raise ValueError(
            f"the clips have a context for each of {num_contexts} video frames, but the codec makes "
            f"{num_latent_frames} latent frames of them; use a codec that works frame by frame, or a context that is "
            f"the same for the whole clip."
        )


def split_batch(batch: VideoBatch, parts: int) -> Iterator[VideoBatch]:
    """Equal consecutive parts of what the objective needs of a batch."""
    for index in range(parts):
        part = VideoBatch()
        if "latents" in batch:
            part["latents"] = batch["latents"].chunk(parts)[index]
        else:
            part["video"] = batch["video"].chunk(parts)[index]
        if "context" in batch:
            part["context"] = batch["context"].chunk(parts)[index]
        yield part


def count_frames(batch: VideoBatch) -> int:
    """Frames in a batch, of video or, where it is encoded already, of latents."""
    clips = batch["latents"] if "latents" in batch else batch["video"]
    return clips.shape[0] * clips.shape[1]


def check_batch_size(batch_size: int, num_processes: int, gradient_accumulation: int, clips_needed: int) -> None:
    """ValueError unless a batch splits evenly, with at least `clips_needed` clips in each part."""
    parts = num_processes * gradient_accumulation
    split = f"{num_processes} processes x {gradient_accumulation} accumulation steps"
    if batch_size % parts:
        raise ValueError(f"train.batch_size={batch_size} does not divide into {split}.")
    if batch_size // parts < clips_needed:
        raise ValueError(
            f"train.batch_size={batch_size} over {split} leaves {batch_size // parts} clip at a time; "
            f"foresight.shuffle_future takes the future of another one and needs {clips_needed}."
        )
