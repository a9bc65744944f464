"""What a readout is given: a causal model's hidden states, or raw pixels; and the check that neither saw the future."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from video_mirai.evaluation.generation import clip_generator
from video_mirai.flow.path import interpolate
from video_mirai.models.cache import KVCache
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.sampling.rollout import RolloutSettings

# Of the noise that stands for another future in the causality check.
OTHER_FUTURE_SEED = 20_240_101


class ClipBatch(NamedTuple):
    """Clips to read.

    numbers: each clip's number, which fixes its noise. video: (B, T, 3, H, W) in [-1, 1]. latents: (B, F, C, h, w)
    where the data is encoded already; the video is then what they decode to.
    """

    numbers: list[int]
    video: Tensor
    latents: Tensor | None


FeatureReader = Callable[[ClipBatch], Tensor]  # (B, R, d): one row of features for every frame that is read


def frames_to_read(history_frames: int, rows: int, stride_frames: int, chunk_frames: int) -> list[int]:
    """Latent frames whose state is read: last frames of chunks, so that nothing after them has been looked at.

    Args:
        history_frames: at least so many come before the first chunk that is read.
        stride_frames: between one and the next, rounded up to whole chunks.
    """
    first_chunk = math.ceil(history_frames / chunk_frames)
    stride = math.ceil(stride_frames / chunk_frames)
    return [(first_chunk + row * stride + 1) * chunk_frames - 1 for row in range(rows)]


@dataclass(frozen=True)
class HiddenReader:
    """Reads h_t as a rollout does: chunk t at one noise level beside a cache of clean history, and nothing else.

    Attributes:
        frames: latent frames to read, each the last of its chunk.
        layer: transformer block (1-based) whose residual stream is read.
        sigma: noise level of the chunk that is read.
        settings: chunk, window and sink as in the model's rollouts; the history is clean.
        max_features: numbers of a state at most; see `block_side`.
        seed: of the noise, which every model gets alike.
    """

    model: CausalVideoDiT
    codec: Codec
    frames: Sequence[int]
    layer: int
    sigma: float
    settings: RolloutSettings
    max_features: int
    seed: int

    @torch.no_grad()
    def __call__(self, clips: ClipBatch) -> Tensor:
        device = self.model.device
        latents = self.codec.encode(clips.video.to(device)) if clips.latents is None else clips.latents.to(device)
        latents = latents[:, : self.frames[-1] + 1]
        noise = torch.stack(
            [
                torch.randn(latents.shape[1:], generator=clip_generator(self.seed, number, device), device=device)
                for number in clips.numbers
            ]
        )
        states = self._states(latents, noise)  # (B, R, N, D)
        rows, columns = self.model.grid(*latents.shape[-2:])
        grids = rearrange(states, "b r (h w) d -> b r d h w", h=rows, w=columns)
        side = block_side(states.shape[-1], rows, columns, self.max_features)
        return block_means(grids, side).flatten(2)

    def _states(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Residual stream of every frame that is read, (B, R, N, D)."""
        chunk_frames = self.settings.chunk_frames
        tokens = self.model.tokens_per_frame(*latents.shape[-2:])
        cache = KVCache.allocate(
            self.model,
            len(latents),
            tokens,
            self.settings.sink_frames,
            self.settings.window_frames,
            room_frames=chunk_frames,
        )
        states = []
        for start in range(0, latents.shape[1], chunk_frames):
            chunk = latents[:, start : start + chunk_frames]
            if start + chunk_frames - 1 in self.frames:
                sigmas = torch.full(chunk.shape[:2], self.sigma, device=chunk.device)
                noisy = interpolate(chunk, noise[:, start : start + chunk_frames], sigmas)
                hidden = self.model(noisy, sigmas, cache=cache, capture=(self.layer,)).hidden[self.layer]
                states.append(hidden[:, -tokens:])
            self.model(
                chunk, torch.zeros(chunk.shape[:2], device=chunk.device), cache=cache, commit_frames=chunk_frames
            )
        return torch.stack(states, dim=1)


@dataclass(frozen=True)
class PixelReader:
    """The clean pictures of frame t and of the frame before it: where everything is, and how it moves.

    Attributes:
        frames: latent frames to read. frame_stride: pixel frames of a latent frame.
        max_features: numbers of both pictures at most; see `block_side`.
    """

    frames: Sequence[int]
    frame_stride: int
    max_features: int

    def __call__(self, clips: ClipBatch) -> Tensor:
        shown = torch.tensor(self.frames, device=clips.video.device) * self.frame_stride
        pair = torch.stack([clips.video[:, (shown - 1).clamp_min(0)], clips.video[:, shown]], dim=2)
        grids = rearrange(pair, "b r two c h w -> b r (two c) h w")
        _, _, channels, height, width = grids.shape
        side = block_side(channels, height, width, self.max_features)
        return block_means(grids, side).flatten(2)


def block_side(channels: int, height: int, width: int, max_numbers: int) -> int:
    """Side of the smallest square blocks whose means are at most max_numbers; all of it in one block at worst."""
    for side in range(1, max(height, width)):
        if channels * math.ceil(height / side) * math.ceil(width / side) <= max_numbers:
            return side
    return max(height, width)


def block_means(grids: Tensor, side: int) -> Tensor:
    """Means over square blocks of (..., C, H, W); blocks at the lower and right edge may be smaller."""
    if side == 1:
        return grids
    flat = grids.flatten(0, -4)
    means = functional.avg_pool2d(flat, side, ceil_mode=True, count_include_pad=False)
    return means.unflatten(0, grids.shape[:-3])


def require_causal(reader: FeatureReader, clips: ClipBatch, frames: Sequence[int], frame_stride: int) -> None:
    """Gives the clips another future after every frame that is read; features up to there have to stay bit for bit.

    Args:
        frames: latent frames that the reader reads. frame_stride: pixel frames of a latent frame.

    Raises:
        ValueError: they change, so they have seen the future.
    """
    features = reader(clips)
    for row, frame in enumerate(frames):
        changed = reader(_with_other_future(clips, frame, frame_stride))
        difference = float((changed[:, : row + 1] - features[:, : row + 1]).abs().max())
        if difference != 0:
            raise ValueError(
                f"the features of frame {frame} change (by up to {difference:.2g}) when only later frames do: they "
                f"have seen the future, so nothing is fitted; read a causal model."
            )


def _with_other_future(clips: ClipBatch, frame: int, frame_stride: int) -> ClipBatch:
    """The clips with noise for everything after a latent frame."""
    generator = torch.Generator().manual_seed(OTHER_FUTURE_SEED)
    video, latents = clips.video.clone(), clips.latents
    later = video[:, frame * frame_stride + 1 :]
    later.copy_(torch.rand(later.shape, generator=generator) * 2 - 1)
    if latents is not None:
        latents = latents.clone()
        later = latents[:, frame + 1 :]
        later.copy_(torch.randn(later.shape, generator=generator))
    return ClipBatch(clips.numbers, video, latents)
