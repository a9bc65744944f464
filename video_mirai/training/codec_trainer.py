"""Training of a small per-frame codec, one of diffusers' classes, on the user's own videos.

One process and one device are enough: a codec of this kind is done in minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, ModelMixin
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.loader import epoch_order
from video_mirai.data.video_folder import VideoFolderConfig
from video_mirai.media import psnr
from video_mirai.models.autoencoders import LatentStats, raw_latents
from video_mirai.models.codecs import DiffusersCodec
from video_mirai.training.ema import EMAConfig, make_ema
from video_mirai.training.optimizers import ScheduleConfig, schedule_factor
from video_mirai.training.seeds import make_generator

AUTOCAST_DTYPES = {"fp32": None, "bf16": torch.bfloat16}
STATS_FRAMES = 2048
SHOW_EVERY_STEPS = 20


@dataclass
class AutoencoderConfig:
    """Size and kind of the autoencoder; every level after the first halves the resolution.

    kind: AutoencoderDC (residual blocks and pixel shuffles between levels, Chen et al. 2024, arXiv 2410.10733; the best
        for its time on a CPU), AutoencoderTiny (convolutions and ReLU, no norms; one width for all levels) or
        AutoencoderKL (group norms, a Gaussian posterior).
    widths: channels of each level, from full resolution down.
    encoder_blocks, decoder_blocks: residual blocks of each level, from full resolution down. AutoencoderKL has one
        number for all: they must be equal. AutoencoderDC without blocks at full resolution has one
        narrow convolution there.
    """

    kind: Literal["AutoencoderDC", "AutoencoderTiny", "AutoencoderKL"] = "AutoencoderDC"
    latent_channels: int = 16
    widths: list[int] = field(default_factory=lambda: [16, 16, 32, 128])
    encoder_blocks: list[int] = field(default_factory=lambda: [0, 1, 1, 2])
    decoder_blocks: list[int] = field(default_factory=lambda: [0, 1, 1, 2])


@dataclass
class CodecTrainConfig:
    """One codec training, written to the folder `output_dir`.

    data: its clips are read once and their frames kept in memory, as many as fit into pool_megabytes; num_frames is
        only how many are read at a time.
    batch_frames: frames per step.
    pixel_loss: mean "l2" (what PSNR measures) or "l1" difference of the pixels, in [-1, 1].
    gradient_weight: of the L1 distance between neighbouring pixels' differences: edges.
    kl_weight: of the KL divergence from a unit normal, per latent number (without a posterior: 0.5 z^2, the mean's
        part).
    latent_noise: largest standard deviation, in units of the latents' own, of the noise added before decoding; each
        frame draws its own level. It makes the decoder tolerate what a generator will really produce.
    precision: "bf16" runs the networks under autocast, weights stay fp32.
    """

    data: VideoFolderConfig
    output_dir: str
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    num_steps: int = 3000
    batch_frames: int = 8
    lr: float = 3e-3
    weight_decay: float = 1e-4
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(warmup_steps=50, final_fraction=0.01))
    ema: EMAConfig = field(default_factory=lambda: EMAConfig(decay=0.995))
    max_gradient_norm: float = 1.0
    pixel_loss: Literal["l1", "l2"] = "l2"
    gradient_weight: float = 0.0
    kl_weight: float = 2e-5
    latent_noise: float = 0.1
    precision: Literal["fp32", "bf16"] = "bf16"
    device: str = "cpu"
    pool_megabytes: int = 512
    seed: int = 0


class CodecLoss(NamedTuple):
    """total is what is minimised; psnr (dB, a mean over frames) is for people."""

    total: Tensor
    pixel: Tensor
    gradient: Tensor
    kl: Tensor
    psnr: Tensor


class CodecDiverged(RuntimeError):
    """The loss is no longer a finite number."""


def check_codec_config(config: CodecTrainConfig) -> None:
    """ValueError naming the first setting that can't be, before any file is read."""
    sizes = config.autoencoder
    lengths = {len(sizes.widths), len(sizes.encoder_blocks), len(sizes.decoder_blocks)}
    if len(lengths) > 1 or min(lengths) < 1:
        raise ValueError(
            f"autoencoder.widths, encoder_blocks and decoder_blocks need one entry per level each; got "
            f"{sizes.widths}, {sizes.encoder_blocks}, {sizes.decoder_blocks}."
        )
    if sizes.kind == "AutoencoderTiny" and len(set(sizes.widths)) > 1:
        raise ValueError(f"AutoencoderTiny has one width for all levels; got autoencoder.widths={sizes.widths}.")
    if sizes.kind == "AutoencoderKL" and len({*sizes.encoder_blocks, *sizes.decoder_blocks}) > 1:
        raise ValueError(
            "AutoencoderKL has one number of blocks for all levels; make encoder_blocks and decoder_blocks so."
        )
    if sizes.kind == "AutoencoderDC":
        _check_dc(sizes)
    factor = 2 ** (len(sizes.widths) - 1)
    if config.data.height % factor or config.data.width % factor:
        raise ValueError(
            f"data.height={config.data.height} and data.width={config.data.width} don't divide by the codec's factor "
            f"{factor} ({len(sizes.widths)} levels)."
        )
    for name, value in (("num_steps", config.num_steps), ("batch_frames", config.batch_frames)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


def _check_dc(sizes: AutoencoderConfig) -> None:
    """ValueError for sizes that diffusers' AutoencoderDC would build wrongly or not at all."""
    if len(sizes.widths) < 2:
        raise ValueError(f"autoencoder.widths={sizes.widths}: AutoencoderDC needs at least two levels.")
    if 0 in (*sizes.encoder_blocks[1:], *sizes.decoder_blocks[1:]):
        raise ValueError("AutoencoderDC needs a block at each level but the first, else it has no halving there.")
    shortcuts = zip(sizes.widths, sizes.widths[1:], strict=False)
    if any(4 * upper % lower or 4 * upper < lower for upper, lower in shortcuts) or sizes.widths[1] % 4:
        raise ValueError(
            f"autoencoder.widths={sizes.widths}: AutoencoderDC needs each width to divide 4 x the one before, and the "
            f"second to be a multiple of 4."
        )
    if sizes.widths[-1] % sizes.latent_channels:
        raise ValueError(
            f"autoencoder.widths[-1]={sizes.widths[-1]} is no multiple of latent_channels={sizes.latent_channels}, as "
            f"AutoencoderDC needs it."
        )


def make_autoencoder(config: AutoencoderConfig) -> ModelMixin:
    """The autoencoder with random weights from torch's global generator."""
    levels = len(config.widths)
    if config.kind == "AutoencoderDC":
        return AutoencoderDC(
            latent_channels=config.latent_channels,
            encoder_block_out_channels=tuple(config.widths),
            decoder_block_out_channels=tuple(config.widths),
            encoder_layers_per_block=tuple(config.encoder_blocks),
            decoder_layers_per_block=tuple(config.decoder_blocks),
            encoder_qkv_multiscales=((),) * levels,
            decoder_qkv_multiscales=((),) * levels,
        )
    if config.kind == "AutoencoderTiny":
        return AutoencoderTiny(
            latent_channels=config.latent_channels,
            encoder_block_out_channels=tuple(config.widths),
            decoder_block_out_channels=tuple(config.widths[::-1]),
            num_encoder_blocks=tuple(config.encoder_blocks),
            num_decoder_blocks=tuple(config.decoder_blocks[::-1]),  # diffusers counts the decoder's levels upwards
        )
    return AutoencoderKL(
        latent_channels=config.latent_channels,
        block_out_channels=tuple(config.widths),
        layers_per_block=config.encoder_blocks[0],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=math.gcd(8, *config.widths),
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def read_frames(dataset: Dataset[VideoSample], max_bytes: int, seed: int) -> Tensor:
    """Frames (N, 3, H, W) uint8 of clips in random order, until all are read or max_bytes are full."""
    clips: list[Tensor] = []
    num_bytes = 0
    order = epoch_order(len(dataset), seed, 0)  # type: ignore[arg-type]
    for index in tqdm(order, desc="reading frames", unit="clip"):
        video = dataset[ClipKey(0, index)]["video"]
        clips.append(video.add(1).mul(127.5).round().to(torch.uint8))
        num_bytes += clips[-1].numel()
        if num_bytes >= max_bytes:
            break
    return torch.cat(clips)


def train_codec(config: CodecTrainConfig, frames: Tensor) -> DiffusersCodec:
    """Trains on frames (N, 3, H, W) uint8 and returns the averaged codec with the statistics of its latents.

    Deterministic in config.seed on one machine. Raises CodecDiverged when the loss stops being finite.
    """
    torch.manual_seed(config.seed)
    autoencoder = make_autoencoder(config.autoencoder).to(config.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        autoencoder.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule_factor(config.schedule, config.num_steps))
    ema = make_ema(autoencoder, config.ema)
    batches = random_batches(frames, config)
    noise = make_generator(config.device, config.seed, "latent noise")
    autoencoder.train()
    with tqdm(total=config.num_steps, desc="training codec", unit="step") as progress:
        for step in range(1, config.num_steps + 1):
            loss = codec_loss(autoencoder, next(batches), config, noise)
            optimizer.zero_grad()
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), config.max_gradient_norm)
            optimizer.step()
            scheduler.step()
            ema.step(autoencoder.parameters())
            progress.update()
            if step % SHOW_EVERY_STEPS == 0 or step == config.num_steps:
                if not torch.isfinite(loss.total):
                    raise CodecDiverged(f"the loss is {loss.total.item()} at step {step}; lower lr={config.lr}.")
                progress.set_postfix(loss=f"{loss.total.item():.4f}", psnr=f"{loss.psnr.item():.2f} dB", refresh=False)
    ema.copy_to(autoencoder.parameters())
    return finish_codec(autoencoder, frames)


def random_batches(frames: Tensor, config: CodecTrainConfig) -> Iterator[Tensor]:
    """Batches (batch_frames, 3, H, W) in [-1, 1], drawn with replacement, half of them mirrored."""
    generator = make_generator("cpu", config.seed, "frames")
    while True:
        rows = torch.randint(len(frames), (config.batch_frames,), generator=generator)
        mirrored = torch.rand(config.batch_frames, 1, 1, 1, generator=generator) < 0.5
        batch = frames[rows].to(config.device).float().div_(127.5).sub_(1)
        batch = torch.where(mirrored.to(batch.device), batch.flip(-1), batch)
        yield batch.contiguous(memory_format=torch.channels_last)


def codec_loss(autoencoder: Any, images: Tensor, config: CodecTrainConfig, generator: torch.Generator) -> CodecLoss:
    """Reconstruction through noisy latents. images: (B, 3, H, W) in [-1, 1]."""
    dtype = AUTOCAST_DTYPES[config.precision]
    with torch.autocast(images.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        if isinstance(autoencoder, AutoencoderKL):
            posterior = autoencoder.encode(images).latent_dist
            latents = posterior.sample(generator).float()
            kl = posterior.kl().float().mean() / latents[0].numel()
        else:
            latents = raw_latents(autoencoder, images).float()
            kl = 0.5 * latents.square().mean()
        level = config.latent_noise * torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
        scale = latents.detach().std(dim=(0, 2, 3), keepdim=True)
        noise = torch.randn(latents.shape, generator=generator, device=images.device)
        decoded = autoencoder.decode(latents + level * scale * noise).sample
    error = decoded.float() - images
    pixel = error.square().mean() if config.pixel_loss == "l2" else error.abs().mean()
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    total = pixel + config.gradient_weight * gradient + config.kl_weight * kl
    return CodecLoss(total, pixel, gradient, kl, psnr(error.detach()).mean())


def finish_codec(autoencoder: ModelMixin, frames: Tensor) -> DiffusersCodec:
    """A codec with the per-channel mean and standard deviation of the latents of up to STATS_FRAMES frames."""
    channels = autoencoder.config.latent_channels
    plain = DiffusersCodec(autoencoder, LatentStats(torch.zeros(channels), torch.ones(channels)))
    rows = torch.linspace(0, len(frames) - 1, min(len(frames), STATS_FRAMES)).long()
    device = next(autoencoder.parameters()).device
    latents = plain.encode(frames[rows].to(device).float().div(127.5).sub(1)[None])[0].cpu()
    return DiffusersCodec(autoencoder, LatentStats(latents.mean((0, 2, 3)), latents.std((0, 2, 3)).clamp_min(1e-6)))
