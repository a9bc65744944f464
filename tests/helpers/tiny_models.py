"""Tiny models for tests: every size derived from a few numbers, random weights with a fixed seed."""

import torch

from video_mirai.models.causal_dit import CausalVideoDiT

CHANNELS = 4
HEIGHT, WIDTH = 8, 6
TOKENS_PER_FRAME = (HEIGHT // 2) * (WIDTH // 2)
TEXT_DIM = 20
NUM_LAYERS = 3


def wan_arguments(text_dim: int | None = None) -> dict:
    """Keyword arguments that WanTransformer3DModel and CausalVideoDiT share."""
    return {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 3,
        "attention_head_dim": 24,
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "text_dim": text_dim,
        "freq_dim": 32,
        "ffn_dim": 96,
        "num_layers": NUM_LAYERS,
    }


def tiny_model(text_dim: int | None = None, seed: int = 0, **extra: object) -> CausalVideoDiT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CausalVideoDiT(**{**wan_arguments(text_dim), **extra}).eval()


def random_latents(frames: int, batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, frames, CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def random_sigmas(frames: int, batch: int = 2, seed: int = 2) -> torch.Tensor:
    return torch.rand(batch, frames, generator=torch.Generator().manual_seed(seed))


def random_context(batch: int = 2, length: int = 7, seed: int = 3) -> torch.Tensor:
    return torch.randn(batch, length, TEXT_DIM, generator=torch.Generator().manual_seed(seed))
