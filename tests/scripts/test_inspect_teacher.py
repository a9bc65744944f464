"""How much of the future a teacher's features hold."""

import sys

import pytest
import torch
from tiny_models import NUM_LAYERS, random_latents, tiny_model

from _cli import run_script
from inspect_teacher import SIGMAS, future_sensitivity, main


def test_every_layer_and_sigma_gets_a_number_and_a_full_mask_lets_the_future_in():
    table = future_sensitivity(tiny_model(), random_latents(4), kept_frames=2, seed=0)
    assert table.shape == (NUM_LAYERS, len(SIGMAS))
    assert (table > 0).all()


def test_an_unchanged_future_changes_nothing():
    latents = random_latents(4, batch=1).expand(2, -1, -1, -1, -1)
    table = future_sensitivity(tiny_model(), latents, kept_frames=2, seed=0)
    torch.testing.assert_close(table, torch.zeros_like(table), atol=1e-5, rtol=0)


def call(monkeypatch: pytest.MonkeyPatch, *given: object) -> int:
    """Exit code of the script, run in this process."""
    monkeypatch.setattr(sys, "argv", ["inspect_teacher.py", *map(str, given)])
    with pytest.raises(SystemExit) as exit_info:
        run_script(main)
    return int(exit_info.value.code or 0)


def test_a_teacher_of_scenes_needs_no_other_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--teacher", "asset:occlusion_teacher", "--frames", 8, "--clips", 3) == 0
    printed = capsys.readouterr().out
    assert "the first 4 frames" in printed and "(3 clips of 8 frames)" in printed
    assert sum(line.startswith(f"| {layer} |") for layer in range(1, 7) for line in printed.splitlines()) == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--frames", "1"], "--frames 1 leaves no future"),
        (["--latents", "none/here"], "none/here"),
        (["--teacher", "asset:none"], "asset:none is not shipped"),
        (["--clips", "1"], "--clips 1: two are needed"),
    ],
)
def test_users_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert call(monkeypatch, "--teacher", "asset:occlusion_teacher", *given) == 2
    assert message in capsys.readouterr().err
