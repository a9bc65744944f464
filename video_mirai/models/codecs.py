"""Codecs between pixels and latents: the identity, and diffusers' autoencoders from local folders.

Latents leave a codec normalised per channel, (z - mean) / std, so that a model sees about unit variance.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from einops import rearrange
from torch import Tensor

from video_mirai.models.autoencoders import (
    LatentStats,
    check_latent_stats,
    is_video_autoencoder,
    latent_channels,
    load_autoencoder,
    raw_latents,
    read_json,
    read_latent_stats,
    save_autoencoder,
    spatial_factor,
    temporal_factor,
    write_latent_stats,
)
from video_mirai.models.decoder_memory import DecoderMemory

# Frame-by-frame autoencoders take about so many pixels in one pass: memory doesn't grow with the video, and on a CPU
# the activations of a pass stay near its caches.
PIXELS_PER_PASS = 2**17
CODEC_FILE = "codec.json"


@dataclass
class CodecConfig:
    """Which codec.

    kind: "pixels" (the latents are the pixels) or "diffusers".
    path: folder of the autoencoder, for "diffusers".
    """

    kind: str = "pixels"
    path: str | None = None


def build_codec(config: CodecConfig) -> Codec:
    """The codec a config names; ValueError for an unknown kind or a missing path."""
    if config.kind == "pixels":
        return PixelsCodec()
    if config.kind == "diffusers":
        if config.path is None:
            raise ValueError("codec kind 'diffusers' needs a path: the folder of the autoencoder.")
        return load_codec(config.path)
    raise ValueError(f"unknown codec kind '{config.kind}'; known: diffusers, pixels.")


def load_codec(path: str | Path) -> Codec:
    """The codec that save_pretrained wrote to a folder, or any folder with one of diffusers' autoencoders in it."""
    marker = Path(path) / CODEC_FILE
    if marker.is_file() and read_json(marker).get("kind") == "pixels":
        return PixelsCodec()
    return DiffusersCodec.from_pretrained(path)


class Codec(ModelMixin, ABC):
    """Maps video (B, T, C, H, W) in [-1, 1] to latents (B, F, C_l, h, w) and back; frozen and deterministic.

    With temporal_factor 1, T = F. With k > 1 the first frame stands alone and every further latent frame covers k
    frames: T = 1 + k (F - 1). A ModelMixin, because only those can be parts of a diffusers pipeline.
    """

    latent_channels: int
    spatial_factor: int
    temporal_factor: int

    @abstractmethod
    def encode(self, video: Tensor) -> Tensor:
        """Normalised latents, the posterior's mode; ValueError where sizes or length don't fit the factors."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Video, clamped to [-1, 1], of normalised latents."""

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of all that decides what latents mean: architecture, weights, statistics."""

    @abstractmethod
    def save_pretrained(self, path: str | Path) -> None:
        """Writes a folder that load_codec reads."""

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        device_map: Any = None,
        **unused: Any,
    ) -> Codec:
        """What save_pretrained wrote.

        Args:
            torch_dtype: of the autoencoder; the latents' statistics stay in fp32.
            device_map: a device by its name; diffusers itself follows any other map.
            unused: what else diffusers' pipelines hand to each of their parts.
        """

    def decode_stream(self, chunks: Iterable[Tensor], memory: DecoderMemory | None = None) -> Iterator[Tensor]:
        """Decodes chunks of consecutive latent frames as they come; joined, they are what decode gives at once.

        memory: of an earlier stream, to go on from; it is kept up to date between any two chunks.
        """
        for latents in chunks:
            yield self.decode(latents)

    def num_latent_frames(self, num_frames: int) -> int:
        """Latent frames of a video of num_frames; ValueError when that length can't be encoded."""
        if num_frames == 0:
            return 0
        if num_frames < 0 or (num_frames - 1) % self.temporal_factor:
            fitting = (max(num_frames, 1) - 1) // self.temporal_factor * self.temporal_factor + 1
            raise ValueError(
                f"num_frames={num_frames} is not 1 + a multiple of the codec's temporal factor "
                f"{self.temporal_factor}; try {fitting}."
            )
        return (num_frames - 1) // self.temporal_factor + 1

    def num_pixel_frames(self, num_latent_frames: int) -> int:
        """Frames that so many latent frames, counted from the video's first, decode to."""
        return 0 if num_latent_frames == 0 else (num_latent_frames - 1) * self.temporal_factor + 1

    def check_video(self, video: Tensor) -> None:
        """ValueError unless the video's axes and sizes can be encoded."""
        if video.ndim != 5 or video.shape[2] != 3:
            raise ValueError(f"expected video (B, T, 3, H, W), got shape {tuple(video.shape)}.")
        self.num_latent_frames(video.shape[1])
        height, width = video.shape[-2:]
        factor = self.spatial_factor
        if height % factor or width % factor:
            raise ValueError(
                f"frames of {height}x{width} (height x width) don't divide by the codec's factor {factor}."
            )

    def check_latents(self, latents: Tensor) -> None:
        """ValueError unless these can be this codec's latents."""
        if latents.ndim != 5 or latents.shape[2] != self.latent_channels:
            expected = f"(B, F, {self.latent_channels}, h, w)"
            raise ValueError(f"expected latents {expected}, got shape {tuple(latents.shape)}.")


class PixelsCodec(Codec):
    """The identity: latents are RGB pixels in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_channels, self.spatial_factor, self.temporal_factor = 3, 1, 1
        self.register_buffer("placement", torch.empty(0), persistent=False)  # a module without a tensor has no device

    def encode(self, video: Tensor) -> Tensor:
        self.check_video(video)
        return video

    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        return latents.clamp(-1, 1)

    def fingerprint(self) -> str:
        return hashlib.sha256(b"pixels").hexdigest()

    def save_pretrained(self, path: str | Path) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / CODEC_FILE).write_text(json.dumps({"kind": "pixels"}) + "\n")

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        device_map: Any = None,
        **unused: Any,
    ) -> PixelsCodec:
        return cls().to(device_map) if isinstance(device_map, str) else cls()


class DiffusersCodec(Codec):
    """One of diffusers' autoencoders with the statistics of its latents.

    AutoencoderKLWan takes whole videos; the others go frame by frame, in passes of bounded size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, autoencoder: ModelMixin, stats: LatentStats) -> None:
        super().__init__()
        self.latent_channels = latent_channels(autoencoder)
        self.spatial_factor = spatial_factor(autoencoder)
        self.temporal_factor = temporal_factor(autoencoder)
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        if not is_video_autoencoder(autoencoder):
            self.autoencoder.to(memory_format=torch.channels_last)
        stats = check_latent_stats(stats.mean, stats.std, self.latent_channels, "the caller")
        self.register_buffer("mean", stats.mean.clone())
        self.register_buffer("std", stats.std.clone())

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        device_map: Any = None,
        **unused: Any,
    ) -> DiffusersCodec:
        """Loads a local folder, as load_autoencoder and read_latent_stats say; their errors."""
        autoencoder = load_autoencoder(path, torch_dtype)
        codec = cls(autoencoder, read_latent_stats(path, autoencoder))
        return codec.to(device_map) if isinstance(device_map, str) else codec

    def save_pretrained(self, path: str | Path) -> None:
        save_autoencoder(self.autoencoder, path)
        write_latent_stats(path, LatentStats(self.mean, self.std))
        (Path(path) / CODEC_FILE).write_text(json.dumps({"kind": "diffusers"}) + "\n")

    def fingerprint(self) -> str:
        settings = {key: value for key, value in self.autoencoder.config.items() if not key.startswith("_")}
        digest = hashlib.sha256(type(self.autoencoder).__name__.encode())
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        self.check_video(video)
        if video.shape[1] == 0:
            return video.new_zeros(*video.shape[:2], self.latent_channels, *self._sizes(video, 1 / self.spatial_factor))
        pixels = video.to(self.autoencoder.dtype)
        if is_video_autoencoder(self.autoencoder):
            raw = raw_latents(self.autoencoder, rearrange(pixels, "b t c h w -> b c t h w"))
            raw = rearrange(raw, "b c f h w -> b f c h w")
        else:
            raw = self._frame_by_frame(pixels, lambda frames: raw_latents(self.autoencoder, frames), scale=1)
        mean, std = (values.view(-1, 1, 1) for values in (self.mean, self.std))
        return ((raw.float() - mean) / std).to(video.dtype)  # (B, F, C_l, h, w)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        if latents.shape[1] == 0:
            return latents.new_zeros(*latents.shape[:2], 3, *self._sizes(latents, self.spatial_factor))
        raw = self._denormalise(latents)
        if is_video_autoencoder(self.autoencoder):
            video = self.autoencoder.decode(rearrange(raw, "b f c h w -> b c f h w")).sample
            video = rearrange(video, "b c t h w -> b t c h w")
        else:
            video = self._frame_by_frame(
                raw, lambda frames: self.autoencoder.decode(frames).sample, scale=self.spatial_factor
            )
        return video.clamp(-1, 1).to(latents.dtype)  # (B, T, 3, H, W)

    @torch.no_grad()
    def decode_stream(self, chunks: Iterable[Tensor], memory: DecoderMemory | None = None) -> Iterator[Tensor]:
        if not is_video_autoencoder(self.autoencoder):
            yield from super().decode_stream(chunks)
            return
        # Wan's decoder is causal: each convolution remembers its last inputs. The autoencoder's own decode forgets them
        # when it returns, so the same frame loop is run here with the memory kept from chunk to chunk.
        wan = self.autoencoder
        memory = memory if memory is not None else DecoderMemory()
        memory.entries = memory.entries or [None] * wan._cached_conv_counts["decoder"]
        is_first = all(entry is None for entry in memory.entries)
        for latents in chunks:
            if latents.shape[1] == 0:
                yield self.decode(latents)
                continue
            self.check_latents(latents)
            frames = []
            raw = wan.post_quant_conv(rearrange(self._denormalise(latents), "b f c h w -> b c f h w"))
            for frame in raw.split(1, dim=2):
                decoded = wan.decoder(frame, feat_cache=memory.entries, feat_idx=[0], first_chunk=is_first)
                frames.append(_unpatchify(decoded, wan.config.patch_size or 1).clamp(-1, 1).to(latents.dtype))
                is_first = False
            yield torch.cat(frames, dim=1)

    def _frame_by_frame(self, video: Tensor, function: Callable[[Tensor], Tensor], scale: int) -> Tensor:
        """Applies the function to (n, C, H, W) parts; scale: pixels per position of the input, along each side."""
        frames_per_pass = max(1, PIXELS_PER_PASS // (video.shape[-1] * video.shape[-2] * scale**2))
        parts = rearrange(video, "b t c h w -> (b t) c h w").split(frames_per_pass)
        outputs = [function(part.contiguous(memory_format=torch.channels_last)) for part in parts]
        return rearrange(torch.cat(outputs), "(b t) c h w -> b t c h w", b=video.shape[0])

    def _denormalise(self, latents: Tensor) -> Tensor:
        raw = latents.float() * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)
        return raw.to(self.autoencoder.dtype)

    @staticmethod
    def _sizes(tensor: Tensor, scale: float) -> tuple[int, int]:
        return int(tensor.shape[-2] * scale), int(tensor.shape[-1] * scale)


def _unpatchify(video: Tensor, patch: int) -> Tensor:
    # Wan 2.2 folds patches into channels; the order is that of diffusers' own decode.
    return rearrange(video, "b (c q r) t h w -> b t c (h r) (w q)", q=patch, r=patch)
