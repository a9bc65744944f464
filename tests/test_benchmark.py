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
from benchmarks.report import to_markdown
from benchmarks.sizes import QUICK
from benchmarks.training import make_inputs, make_models, step_flops, training_step

RATIOS = [
    "width 32: ours (native) / diffusers",
    "width 32: ours (matmul) / diffusers",
    "width 32: ours (native), share of the matmul rate",
    "with foresight / without",
    "without a cache / with",
    "width 8, from features: torchmetrics / ours",
    "width 8, from moments: pytorch-fid's formula / ours",
    "last tenth of the chunks / first tenth",
    "64x48, key frame every 30: VideoFolder, pyav / PyAV to RGB",
    "64x48, key frame every 30: VideoFolder, decord / PyAV to RGB",
]


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
    groups = {"Machine", "Training step", "Foresight", "Rollout", "Loader", "Frechet distance"}
    assert {row["group"] for row in rows.values()} == groups
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


def test_table_says_whether_a_target_was_met() -> None:
    findings = Findings()
    findings.add("Part", "fast enough", [0.8, 0.9, 1.2], "x", at_most=1.0)
    findings.add("Part", "too little", [0.5], "x", at_least=0.6)
    findings.add("Part", "just a number", [3.0], "s")
    table = to_markdown({"threads": 1}, "command", findings.rows)
    assert "| fast enough | 0.9 x | 0.8 – 1.2 | ≤ 1: met |" in table
    assert "| too little | 0.5 x |  | ≥ 0.6: missed |" in table
    assert "| just a number | 3 s |  |  |" in table
