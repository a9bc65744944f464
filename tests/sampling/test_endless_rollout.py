"""The soak script with few frames; docs/performance.md says how to run it with a hundred thousand."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.soak import endless_rollout
from tests.soak.endless_rollout import FLAT, SETTINGS, fill, make_model, python_growth, start
from video_mirai.sampling.state import RolloutState

CHUNKS = 100
BYTES_A_CHUNK = 100


@pytest.mark.slow
def test_hundreds_of_frames_leave_nothing_behind_in_python() -> None:
    stream = start(make_model(), RolloutState())
    fill(stream)
    growth = python_growth(stream, CHUNKS)
    assert growth.objects < CHUNKS // 4
    assert growth.traced_bytes < BYTES_A_CHUNK * CHUNKS


def test_a_stream_that_keeps_its_chunks_is_found_out() -> None:
    kept = []

    def leaking() -> Iterator[Tensor]:
        while True:
            kept.append([torch.zeros(1)])
            yield kept[-1][0]

    growth = python_growth(leaking(), CHUNKS)
    assert growth.objects >= CHUNKS
    assert growth.traced_bytes > BYTES_A_CHUNK * CHUNKS


def test_a_state_with_one_infinite_key_is_not_finite() -> None:
    state = RolloutState()
    next(start(make_model(), state))
    assert endless_rollout.is_finite(state)
    assert state.cache is not None
    saved = state.cache.state_dict()
    saved["keys.0"] = saved["keys.0"].index_fill(2, torch.tensor([0]), float("inf"))
    state.cache.load_state_dict(saved)
    assert not endless_rollout.is_finite(state)


@pytest.mark.slow
def test_short_soak_keeps_its_memory_and_writes_every_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "soak.json"
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["soak", "--frames", "400", "--threads", threads, "--out", str(out)])
    code = endless_rollout.main()
    result = json.loads(out.read_text())
    assert result["frames"] == 400
    assert result["is_finite"]
    assert result["memory_ratio"] <= FLAT
    assert len(result["ms_a_frame"]) == len(result["memory_bytes"]) == 10
    assert all(value > 0 for value in result["ms_a_frame"] + result["memory_bytes"])
    assert code == (0 if result["is_flat"] else 1)  # how fast anything is, is not asserted
    assert "last tenth / first tenth" in capsys.readouterr().out


def test_fewer_frames_than_a_chunk_for_each_tenth_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["soak", "--frames", str(10 * SETTINGS.chunk_frames - 1)])
    with pytest.raises(SystemExit) as exit_info:
        endless_rollout.main()
    assert exit_info.value.code == 2
