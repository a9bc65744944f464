"""One video to one sample of a latent shard: what `encode_latents` does with each, in whichever process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from video_mirai.data.captions import folder_label
from video_mirai.data.clip_context import ACTIONS_SUFFIX, ActionContext
from video_mirai.data.latent_header import CONTEXT, LATENTS, TIMES, LatentHeader
from video_mirai.data.latent_writer import pack_sample
from video_mirai.data.video_folder import clip_indices, count_starts, piece_times
from video_mirai.data.video_list import VideoFile
from video_mirai.data.video_reader import OpenVideo, UnreadableVideo, fit_frames, open_video
from video_mirai.models.codecs import Codec, load_codec
from video_mirai.models.text_encoder import TextEncoder

FRAMES_PER_PART = 256  # encoded at a time, where the codec works frame by frame
PIXELS_PER_READ = 2**24  # decoded or encoded at a time, so that memory grows neither with the video nor with its size
HIGHEST_RATE = 1000.0  # frames per second to resample to


@dataclass(frozen=True)
class EncodeSettings:
    """What decides the numbers: codec folder, size and rate of the frames, how many are encoded together, context.

    fps: None = every frame. clip_frames: None = frame by frame. dtype: "float16" or "float32".
    context: "none", "text", "class" or "actions"; text_encoder, max_tokens: for text; actions: the fields' names.
    """

    codec: Path
    height: int
    width: int
    fps: float | None
    clip_frames: int | None
    dtype: str
    backend: str
    device: str
    context: str
    text_encoder: Path | None
    max_tokens: int
    actions: tuple[str, ...]


class EncodeTask(NamedTuple):
    """A video, the header that its sample will have but for fps and arrays, its key, and the file to write it to."""

    video: VideoFile
    header: LatentHeader
    settings: EncodeSettings
    key: str
    part: Path


def shared_header(settings: EncodeSettings, codec: Codec) -> LatentHeader:
    """What all samples say alike; the rest is empty."""
    context_from = ""
    if settings.text_encoder is not None:
        context_from = TextEncoder.fingerprint(settings.text_encoder, settings.max_tokens)
    elif settings.context == "actions":
        context_from = ",".join(settings.actions)
    return LatentHeader(
        name="",
        source="",
        source_bytes=0,
        codec=codec.fingerprint(),
        height=settings.height,
        width=settings.width,
        fps=settings.fps or 0.0,
        arrays={},
        resampled=settings.fps is not None,
        segment_frames=0 if settings.clip_frames is None else codec.num_latent_frames(settings.clip_frames),
        context=settings.context,
        context_from=context_from,
    )


def planned_header(video: VideoFile, shared: LatentHeader) -> LatentHeader:
    """The header that a video's sample will have, but for arrays and, where every frame is taken, fps."""
    return replace(
        shared,
        name=video.name,
        source=video.source,
        source_bytes=video.path.stat().st_size if video.path.is_file() else 0,
        first_frame=video.first_frame,
        end_frame=video.end_frame,
        caption=video.caption,
        label=folder_label(video) if shared.context == "class" else None,
        actions_sha256=actions_sum(video.path) if shared.context == "actions" else None,
    )


def is_made_as_planned(found: LatentHeader, planned: LatentHeader, dtype: str) -> bool:
    """Whether a sample was made from this very video with these very settings."""
    same = replace(planned, arrays=found.arrays, fps=planned.fps if planned.resampled else found.fps)
    return found == same and found.arrays[LATENTS].dtype == dtype


def encode_video(task: EncodeTask) -> str:
    """Writes the part of a shard that holds the video's sample; returns why it could not be read, or nothing.

    Raises ValueError where the settings don't fit this video.
    """
    settings, video = task.settings, task.video
    codec, text_encoder = load_parts(settings)
    try:
        arrays, fps = encode_frames_of(video, codec, settings)
    except UnreadableVideo as error:
        return str(error)
    if text_encoder is not None:
        arrays[CONTEXT] = as_stored(text_encoder.encode(video.caption or ""), settings.dtype, f"{video.path}: caption")
    packed = pack_sample(task.key, replace(task.header, fps=fps), arrays)
    task.part.write_bytes(packed)
    return ""


def encode_on_one_thread(task: EncodeTask) -> str:
    """As encode_video; with one thread, so that the number of processes doesn't change the sums' last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return encode_video(task)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def load_parts(settings: EncodeSettings) -> tuple[Codec, TextEncoder | None]:
    """Codec and text encoder, loaded once in a process."""
    codec = load_codec(settings.codec).to(settings.device)
    if settings.text_encoder is None:
        return codec, None
    return codec, TextEncoder(settings.text_encoder, settings.max_tokens, settings.device)


def encode_frames_of(video: VideoFile, codec: Codec, settings: EncodeSettings) -> tuple[dict[str, np.ndarray], float]:
    """Arrays and frame rate of a video, or of its piece; read and encoded part by part."""
    with open_video(video.path, settings.backend) as opened:
        times = piece_times(video, opened.timestamps)
        indices = frame_indices(times, settings.fps)
        step = settings.clip_frames or frames_at_once(settings.height, settings.width)
        # A last part that is too short cannot be encoded by a codec that compresses in time.
        end = len(indices) - len(indices) % step if settings.clip_frames else len(indices)
        if end == 0:
            reason = f"too short ({len(indices)} frames; --clip-frames {settings.clip_frames})"
            raise UnreadableVideo(video.path, reason)
        numbers = [video.first_frame + index for index in indices[:end]]
        context = None
        if settings.context == "actions":
            make_context = ActionContext(settings.actions)
            context = make_context(video, [numbers[0], *numbers], len(opened.timestamps)).numpy()
        parts = [
            as_stored(
                encode_part(opened, numbers[first : first + step], codec, settings),
                settings.dtype,
                f"{video.path}: latents",
            )
            for first in range(0, end, step)
        ]
        fps = settings.fps if settings.fps is not None else opened.info.fps
    starts = latent_starts(end, codec, settings)
    arrays = {
        LATENTS: np.concatenate(parts),
        TIMES: times[indices][starts].astype(np.float64),
    }
    if context is not None:
        arrays[CONTEXT] = as_stored(context, settings.dtype, f"{video.path}: actions")
    return arrays, float(fps)


def frame_indices(timestamps: np.ndarray, fps: float | None) -> list[int]:
    """All frames, or those nearest to regular times for as long as the video lasts."""
    if fps is None:
        return list(range(len(timestamps)))
    num_frames = int(timestamps[-1] * fps) + 2
    while count_starts(timestamps, num_frames, fps) == 0:
        num_frames -= 1
    return clip_indices(timestamps, 0, num_frames, fps)


def latent_starts(num_frames: int, codec: Codec, settings: EncodeSettings) -> list[int]:
    """For each latent frame the first of the frames that it stands for."""
    if settings.clip_frames is None:
        return list(range(num_frames))
    in_segment = [0, *range(1, settings.clip_frames, codec.temporal_factor)]
    return [first + frame for first in range(0, num_frames, settings.clip_frames) for frame in in_segment]


def encode_part(video: OpenVideo, numbers: Sequence[int], codec: Codec, settings: EncodeSettings) -> np.ndarray:
    """Latents (F, C, h, w) float32 of some frames."""
    step = frames_at_once(video.info.height, video.info.width)
    reads = (video.read(numbers[first : first + step]) for first in range(0, len(numbers), step))
    frames = np.concatenate([fit_frames(read, settings.height, settings.width) for read in reads])
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return codec.encode(pixels[None].to(settings.device))[0].cpu().numpy()


def frames_at_once(height: int, width: int) -> int:
    """How many frames of a size are held in memory together."""
    return min(FRAMES_PER_PART, max(1, PIXELS_PER_READ // (height * width)))


def as_stored(values: np.ndarray, dtype: str, what: str) -> np.ndarray:
    """In the number format of the shard; ValueError where that format or the network gives no finite numbers."""
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        advice = "; try --dtype float32" if np.isfinite(values).all() else ""
        raise ValueError(f"{what} are not finite in {dtype} (largest: {np.abs(values).max():g}){advice}.")
    return stored


def actions_sum(video: Path) -> str | None:
    """SHA-256 of the file with a video's actions; None where there is none."""
    path = video.with_suffix(ACTIONS_SUFFIX)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
