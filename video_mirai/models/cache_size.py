"""What a KV cache costs, known before it is allocated, and how much memory there is for it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from video_mirai.models.cache import CacheSizes
from video_mirai.models.causal_dit import CausalVideoDiT

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def cache_bytes(model: CausalVideoDiT, sizes: CacheSizes) -> int:
    """`KVCache.allocate(...).num_bytes`, without allocating anything."""
    capacity = sizes.sink_frames + sizes.window_frames
    frames = 3 * capacity + 2 * sizes.room_frames  # keys; rotated keys and values, with room for a pass
    per_head = model.config.attention_head_dim * (sizes.dtype or model.dtype).itemsize
    per_token = model.config.num_attention_heads * per_head
    return len(model.blocks) * sizes.batch_size * frames * sizes.tokens_per_frame * per_token


def check_cache_fits(model: CausalVideoDiT, sizes: CacheSizes) -> None:
    """ValueError, with the bytes needed and those there are, where such a cache is larger than the memory left."""
    needed, available = cache_bytes(model, sizes), available_bytes(model.device)
    if available is None or needed <= available:
        return
    no_window, one_frame = (cache_bytes(model, sizes._replace(window_frames=window)) for window in (0, 1))
    fits = (available - no_window) // (one_frame - no_window)
    advice = f"at most window_frames={fits} fits" if fits > 0 else "no window fits: take fewer videos at a time"
    raise ValueError(
        f"a KV cache of sink_frames={sizes.sink_frames} and window_frames={sizes.window_frames} for a batch of "
        f"{sizes.batch_size} needs {needed:,} bytes, but {available:,} are available on {model.device}; {advice}."
    )


def available_bytes(device: torch.device) -> int | None:
    """Memory that could be allocated now; None where that cannot be known.

    On CUDA what the driver says is free, and what torch holds unused. On a CPU the kernel's MemAvailable, within the
    container's limit; where the kernel doesn't tell, all the memory that the machine has.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return None
    known = [_meminfo_available(), *(_limit_in(path) for path in CGROUP_LIMITS)]
    limits = [limit for limit in known if limit is not None]
    return min(limits) if limits else _physical_bytes()


def _meminfo_available() -> int | None:
    if not MEMINFO.is_file():
        return None
    values = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def _limit_in(path: Path) -> int | None:
    """A cgroup's limit; None where there is no such file, and for "max", which is none."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _physical_bytes() -> int | None:
    if os.name != "posix" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
