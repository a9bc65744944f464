"""Latent shards whose numbers say where they come from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from video_mirai.data.latent_header import LatentHeader
from video_mirai.data.latent_index import Shard
from video_mirai.data.latent_writer import pack_sample, write_shard

HEADER = LatentHeader("a.mp4", "a.mp4", 100, codec="abc", height=16, width=32, fps=8.0, arrays={})


def named(name: str, **changes: Any) -> LatentHeader:
    """The header of a whole video."""
    return replace(HEADER, **{"name": name, "source": name, **changes})


def arrays_of(num_frames: int, first: float = 0.0, **more: np.ndarray) -> dict[str, np.ndarray]:
    """Latents (F, 2, 3, 4) of which frame i is first + i throughout, at 8 frames per second."""
    latents = np.broadcast_to(first + np.arange(num_frames)[:, None, None, None], (num_frames, 2, 3, 4))
    return {"latents": latents.astype(np.float32), "times": np.arange(num_frames) / 8, **more}


def write_samples(
    root: Path, headers: Sequence[LatentHeader], num_frames: int = 6, shard: int = 0, **more: np.ndarray
) -> Shard:
    """One shard; sample number i starts at 100 i."""
    packed = [
        pack_sample(f"{shard:06d}-{number:05d}", header, arrays_of(num_frames, 100.0 * number, **more))
        for number, header in enumerate(headers)
    ]
    written = write_shard(root / f"shard-{shard:06d}.tar", packed)
    assert written is not None
    return written
