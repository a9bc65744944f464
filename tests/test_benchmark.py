"""The benchmark runs, counts what torch counts, and writes every row; how fast anything is, is not asserted."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import forget_accelerator
from torch.utils.flop_counter import FlopCounterMode

import benchmark
from _cli import run_script
from benchmarks.measure import Findings
from benchmarks.peers import SkyReelsFrames
from benchmarks.profile_frame import measure_profile
from benchmarks.reference_frame import (
    OurFrames,
    OurVariant,
    Reference,
    cached_frame_flops,
    make_reference,
    recomputed_frame_flops,
)
from benchmarks.report import to_markdown
from benchmarks.side_by_side import RIVALS, check_peer_frame, check_same_frame, peer_frames
from benchmarks.sizes import QUICK
from benchmarks.training import make_inputs, make_models, step_flops, training_step

GROUPS = {"Machine", "Training step", "Foresight", "Rollout", "Frame beside others", "Loader", "Frechet distance"}
RATIOS = [
    "width 32: ours (native) / diffusers",
    "width 32: ours (matmul) / diffusers",
    "width 32: ours (native), share of the matmul rate",
    "with foresight / without",
    "source moving average, 6 heads / none",
    "source non-causal DiT, shuffled future / none, counted FLOPs",
    "parameters at inference, any source / none",
    "counted FLOPs of a frame at inference, any source / none",
    "computed bytes of the KV cache at inference, any source / none",
    "without a cache / with",
    "width 8, from features: torchmetrics / ours",
    "width 8, from moments: pytorch-fid's formula / ours",
    "last tenth of the chunks / first tenth",
    "ours / counted FLOPs at the matmul rate",
    "best peer / ours",
    "ours, a pass for each commit / ours",
    "ours, first frame / a later one",
    "6 history frames: ours without a cache / ours",
    "width 48, 3 layers: ours, share of the matmul rate",
    "64x48, key frame every 30: VideoFolder, pyav / PyAV to RGB",
    "64x48, key frame every 30: VideoFolder, decord / PyAV to RGB",
    "64x48, key frame every 30: VideoFolder, pyav, 2 clips a place, one worker / PyAV to RGB",
]


def quick_reference() -> Reference:
    size = QUICK.peers
    return make_reference(size, size.width, size.num_layers, size.history_frames, torch.device("cpu"))


@pytest.mark.slow
def test_every_part_leaves_rows_with_positive_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_accelerator()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--quick", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_info:
        run_script(benchmark.main)
    forget_accelerator()
    assert exit_info.value.code == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert len(rows) == len(result["rows"])
    assert {row["group"] for row in rows.values()} == GROUPS
    assert set(RATIOS) <= rows.keys()
    for row in rows.values():
        assert 0 < row["low"] <= row["value"] <= row["high"] < math.inf
    assert len(result["series"]["rollout run 1, ms a frame, by chunk"]) == QUICK.rollout.chunks - 1
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert (tmp_path / "benchmark.md").read_text() in capsys.readouterr().out


def test_counted_flops_are_those_that_torch_counts() -> None:
    width = QUICK.step.widths[0]
    models = make_models(QUICK.step, width, make_inputs(QUICK.step, torch.device("cpu")), torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        training_step(*models["ours (matmul)"])()
    assert counter.get_total_flops() == pytest.approx(step_flops(QUICK.step, width), rel=0.05)


def test_counted_flops_of_a_frame_are_those_that_torch_counts() -> None:
    reference = quick_reference()
    stream = OurFrames(reference, OurVariant("matmul")).start()
    next(stream)  # reads the history, and makes the text's keys once for all
    with FlopCounterMode(display=False) as counter:
        next(stream)
    assert counter.get_total_flops() == pytest.approx(cached_frame_flops(reference), rel=0.05)
    stream = OurFrames(reference, OurVariant("matmul")).start_without_cache()
    with FlopCounterMode(display=False) as counter:
        next(stream)
    assert counter.get_total_flops() == pytest.approx(recomputed_frame_flops(reference), rel=0.05)


def test_a_frame_that_the_cache_changed_is_not_timed() -> None:
    frame = torch.ones(1, 1, 4, 4, 4)
    check_same_frame(frame + 1e-6, frame, "ours")
    with pytest.raises(RuntimeError, match=r"ours: the frame differs .* by 1\.00e-03"):
        check_same_frame(frame + 1e-3, frame, "ours")
    with pytest.raises(RuntimeError, match="peer: expected finite numbers"):
        check_peer_frame(frame * math.nan, frame, "peer")


@pytest.mark.slow
def test_every_peer_generates_finite_frames_like_ours() -> None:
    reference = quick_reference()
    expected = next(OurFrames(reference, OurVariant()).start())
    peers = peer_frames(reference, compiled=False)
    assert set(RIVALS) < peers.keys()
    for name, stream in peers.items():
        frames = [next(stream) for _ in range(2)]
        for frame in frames:
            check_peer_frame(frame, expected, name)
        assert not torch.equal(frames[0], frames[1])


@pytest.mark.parametrize("causal", [True, False])
def test_history_of_skyreels_sees_the_new_frame_only_without_the_causal_mask(causal: bool) -> None:
    reference = quick_reference()
    peer = SkyReelsFrames(reference, causal=causal, compiled=False)
    sigma = torch.tensor(0.5)
    with torch.no_grad():
        one = peer.velocity(torch.cat([reference.history, reference.history[:, :1]], dim=1), sigma)
        other = peer.velocity(torch.cat([reference.history, -reference.history[:, :1]], dim=1), sigma)
    assert not torch.allclose(one[:, -1], other[:, -1])
    assert torch.equal(one[:, :-1], other[:, :-1]) == causal


@pytest.mark.slow
def test_every_kernel_of_a_frame_has_a_kind_and_a_caller() -> None:
    rows = {row.name: row.value for row in measure_profile(QUICK).rows}
    kinds = ["matrix products", "attention", "norms", "activations", "rotation", "cache"]
    assert all(rows[kind] > 0 for kind in kinds)
    functions = {name: value for name, value in rows.items() if name.startswith("kernels called in ")}
    assert "kernels called in ops/attention.py attend" in functions
    assert not any("outside" in name for name in functions)


def test_table_says_whether_a_target_was_met() -> None:
    findings = Findings()
    findings.add("Part", "fast enough", [0.8, 0.9, 1.2], "x", at_most=1.0)
    findings.add("Part", "too little", [0.5], "x", at_least=0.6)
    findings.add("Part", "just a number", [3.0], "s")
    table = to_markdown({"threads": 1}, "command", findings.rows)
    assert "| fast enough | 0.9 x | 0.8 – 1.2 | ≤ 1: met |" in table
    assert "| too little | 0.5 x |  | ≥ 0.6: missed |" in table
    assert "| just a number | 3 s |  |  |" in table
