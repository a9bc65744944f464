"""The size of a cache is known before there is one."""

from pathlib import Path

import pytest
import torch
from tiny_models import TOKENS_PER_FRAME, tiny_model

from video_mirai.models import cache_size
from video_mirai.models.cache import CacheSizes, KVCache
from video_mirai.models.cache_size import available_bytes, cache_bytes, check_cache_fits

MODEL = tiny_model()


@pytest.mark.parametrize(("batch", "sink", "window", "room"), [(1, 0, 1, 1), (2, 1, 8, 3), (3, 4, 0, 2)])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_size_said_is_the_size_allocated(
    batch: int, sink: int, window: int, room: int, dtype: torch.dtype | None
) -> None:
    sizes = CacheSizes(batch, TOKENS_PER_FRAME, sink, window, room, dtype)
    assert cache_bytes(MODEL, sizes) == KVCache.allocate(MODEL, **sizes._asdict()).num_bytes


def test_a_window_that_does_not_fit_is_refused_with_the_bytes_and_the_largest_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    six, seven = (CacheSizes(2, TOKENS_PER_FRAME, 1, window) for window in (6, 7))
    monkeypatch.setattr(cache_size, "available_bytes", lambda device: cache_bytes(MODEL, six))
    check_cache_fits(MODEL, six)
    bytes_of = f"needs {cache_bytes(MODEL, seven):,} bytes, but {cache_bytes(MODEL, six):,} are available on cpu"
    with pytest.raises(ValueError, match=rf"{bytes_of}; at most window_frames=6 fits"):
        check_cache_fits(MODEL, seven)
    monkeypatch.setattr(cache_size, "available_bytes", lambda device: 10)
    with pytest.raises(ValueError, match="no window fits"):
        check_cache_fits(MODEL, seven)


def test_a_container_s_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    monkeypatch.setattr(cache_size, "MEMINFO", meminfo)
    monkeypatch.setattr(cache_size, "CGROUP_LIMITS", (limit,))
    cpu = torch.device("cpu")
    assert (available_bytes(cpu) or 0) > 10**8  # all there is
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:  7 kB\n")
    assert available_bytes(cpu) == 7 * 1024
    limit.write_text("max\n")
    assert available_bytes(cpu) == 7 * 1024
    limit.write_text("5000\n")
    assert available_bytes(cpu) == 5000
    assert available_bytes(torch.device("meta")) is None
