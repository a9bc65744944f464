"""What a trained codec does to videos it has not seen: numbers and a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from video_mirai.media import image_grid, psnr, write_image
from video_mirai.models.codecs import DiffusersCodec

NOISE_LEVEL = 0.1
SPEED_FRAMES = 64
PICTURE_ROWS = 4


@dataclass
class CodecReport:
    """psnr: dB on held-out frames, mean over frames; p10: the worst tenth starts there.

    psnr_noisy: the same with noise of NOISE_LEVEL standard deviations on the latents.
    neighbour_correlation: of latents of neighbouring positions; low means a texture that is hard to model.
    encode_fps, decode_fps: frames per second, with the threads torch has now.
    """

    num_frames: int
    psnr: float
    psnr_p10: float
    psnr_noisy: float
    neighbour_correlation: float
    encode_fps: float
    decode_fps: float
    num_parameters: int
    fingerprint: str


def report_codec(codec: DiffusersCodec, frames: Tensor) -> CodecReport:
    """Measures the codec on held-out frames (N, 3, H, W) uint8."""
    device = codec.mean.device
    video = frames.to(device).float().div(127.5).sub(1)[None]
    latents = codec.encode(video)
    generator = torch.Generator(device).manual_seed(0)
    noise = torch.randn(latents.shape, generator=generator, device=device)
    clean = psnr(codec.decode(latents)[0] - video[0])
    noisy = psnr(codec.decode(latents + NOISE_LEVEL * noise)[0] - video[0])
    few = video[:, :SPEED_FRAMES]
    return CodecReport(
        num_frames=len(frames),
        psnr=clean.mean().item(),
        psnr_p10=clean.quantile(0.1).item(),
        psnr_noisy=noisy.mean().item(),
        neighbour_correlation=_neighbour_correlation(latents[0]),
        encode_fps=few.shape[1] / _seconds(lambda: codec.encode(few)),
        decode_fps=few.shape[1] / _seconds(lambda: codec.decode(latents[:, :SPEED_FRAMES])),
        num_parameters=sum(parameter.numel() for parameter in codec.parameters()),
        fingerprint=codec.fingerprint(),
    )


def write_report(folder: str | Path, codec: DiffusersCodec, frames: Tensor, report: CodecReport) -> None:
    """report.json, and report.png: columns of original, reconstruction, and the difference enlarged four times."""
    (Path(folder) / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    columns = 6
    rows = torch.linspace(0, len(frames) - 1, min(len(frames), columns * PICTURE_ROWS)).long()
    video = frames[rows].to(codec.mean.device).float().div(127.5).sub(1)
    decoded = codec.decode(codec.encode(video[None]))[0]
    triples = rearrange([video, decoded, (4 * (decoded - video)).clamp(-1, 1)], "k n c h w -> n c h (k w)")
    write_image(Path(folder) / "report.png", image_grid(triples, columns=2, scale=2))


def _neighbour_correlation(latents: Tensor) -> float:
    """Mean correlation between neighbouring positions of latents (N, C, h, w), over channels and both directions."""
    if min(latents.shape[-2:]) < 2:
        return float("nan")
    centred = latents - latents.mean(dim=(0, 2, 3), keepdim=True)
    variance = centred.square().mean()
    across = (centred[..., 1:] * centred[..., :-1]).mean()
    down = (centred[..., 1:, :] * centred[..., :-1, :]).mean()
    return ((across + down) / (2 * variance)).item()


def _seconds(function: Callable[[], Tensor]) -> float:
    function()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
