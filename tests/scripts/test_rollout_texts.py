"""Rollouts that texts steer, from the command line."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from text_encoders import write_text_encoder
from tiny_training import forget_accelerator, make_trainer, tiny_config

import encode_latents
import rollout
from _cli import run_script
from _texts import TextContexts, parse_schedule
from video_mirai import build
from video_mirai.media import write_video
from video_mirai.models.codecs import PixelsCodec

Steer = Callable[..., int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text encoder, and the export of a model with random weights for texts that it embedded."""
    root = tmp_path_factory.mktemp("texts")
    write_text_encoder(root / "pipeline", ("run", "walk"))
    write_text_encoder(root / "other", ("run", "walk", "jump"))
    PixelsCodec().save_pretrained(root / "codec")
    generator = np.random.default_rng(0)
    for number in range(6):
        path = root / "videos" / ("run", "walk")[number % 2] / f"{number}.mp4"
        write_video(path, generator.integers(0, 256, (9, 16, 16, 3)).astype(np.uint8), fps=10)
    places = ["--videos", root / "videos", "--codec", root / "codec", "--out", root / "latents"]
    texts = ["--captions", "folder", "--text-encoder", root / "pipeline" / "text_encoder", "--max-tokens", 4]
    words = [*places, *texts, "--height", 16, "--width", 16, "--processes", 1]
    assert encode_latents.main([str(word) for word in words]) == 0
    shards = {"root": root / "latents", "num_frames": 8, "val_fraction": 0.4}
    settings = [f"data.latent_shards.{name}={value}" for name, value in shards.items()]
    more = ["data.kind=latent_shards", "model.text_dim=8", "model.prediction_type=velocity"]
    config = tiny_config(root / "runs", *settings, *more, "validation.history_frames=3")
    trainer = make_trainer(config)
    for weights in trainer.ema.shadow_params:  # a new model's last layer is zero: nothing would show
        weights.add_(torch.randn_like(weights), alpha=0.1)
    assert build.export_run(config, trainer) is not None
    return root


@pytest.fixture
def steer(made: Path, monkeypatch: pytest.MonkeyPatch) -> Steer:
    """Exit code of the script, run in this process."""

    def run(*words: object) -> int:
        forget_accelerator()
        (checkpoint,) = (made / "runs").glob("*/export")
        monkeypatch.setattr(
            sys, "argv", ["rollout.py", "--checkpoint", str(checkpoint), "--steps", "2", *map(str, words)]
        )
        with pytest.raises(SystemExit) as exit_info:
            run_script(rollout.main)
        return int(exit_info.value.code or 0)

    return run


def test_a_text_changes_the_frames_from_its_own_on_and_no_earlier_one(steer: Steer, made: Path, tmp_path: Path) -> None:
    usual = ("--history", "none", "--frames", 5, "--text-encoder", made / "pipeline" / "text_encoder", "--out")
    assert steer(*usual, tmp_path / "run.npy", "--text", "run") == 0
    assert steer(*usual, tmp_path / "both.npy", "--text", "run", "3:walk") == 0
    run, both = (np.load(tmp_path / f"{name}.npy").astype(int) for name in ("run", "both"))
    assert (np.abs(run - both).max((1, 2, 3)) > 0).tolist() == [False, False, False, True, True]


def test_clips_of_the_data_set_bring_their_own_text(steer: Steer, tmp_path: Path) -> None:
    assert steer("--history", "dataset", "--frames", 2, "--out", tmp_path / "long.npy") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "this model's context is 'text', and the history knows it for 0 of the 4 frames to come; give --text and"),
        (("--text", "run"), "--text and --text-encoder go together"),
        (("--text", "run", "--text-encoder", "other"), "is not the one that embedded the captions"),
        (("--text", "2:run", "--text-encoder", "pipeline"), "--text begins at the frames 2; give 'TEXT' first"),
        (("--class", "run"), "--class run: this model's context is 'text'"),
    ],
)
def test_a_mistake_with_texts_is_one_line_and_exit_code_2(
    steer: Steer,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    words = tuple(str(made / word / "text_encoder") if word in ("other", "pipeline") else word for word in words)
    assert steer("--history", "none", "--frames", 4, "--out", tmp_path / "new.npy", *words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and message in line


def test_schedules_ascend_from_frame_0_and_a_text_may_hold_colons() -> None:
    assert parse_schedule(["at noon: rain", "12:30:snow"]) == [(0, "at noon: rain"), (12, "30:snow")]
    for words in (["1:a"], ["a", "b"], ["a", "5:b", "3:c"]):
        with pytest.raises(ValueError, match="--text begins at the frames"):
            parse_schedule(words)


def test_a_text_begins_with_the_first_chunk_that_begins_at_its_frame_or_later() -> None:
    first, second = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    contexts = TextContexts([(0, first), (5, second)], history_frames=2, num_pixel_frames=lambda n: max(0, 4 * n - 3))
    # Latent frames of four video frames: chunks begin at latent 0 (history), 2, 3 and 4, which are frames 0, 4 and 8.
    given = [contexts(number, 1) for number in (0, 2, 3, 4)]
    assert [context is second for context in given] == [False, False, False, True]
