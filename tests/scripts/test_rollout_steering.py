"""Rollouts that classes and actions steer, from the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import forget_accelerator, make_trainer, tiny_config

import rollout
from _cli import run_script
from _steering import ContextKind, FrameContexts, read_lines
from video_mirai import build
from video_mirai.media import write_video

NUM_FRAMES = 12
CONTEXTS = {
    "class": ["data.video_folder.context=class"],
    "actions": ["data.video_folder.context=actions", "data.video_folder.actions=[turn,forward]"],
}
Steer = Callable[..., int]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of noise in two folders, with actions beside each."""
    root = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    for number in range(6):
        path = root / ("run", "walk")[number % 2] / f"{number}.mp4"
        write_video(path, generator.integers(0, 256, (NUM_FRAMES, 16, 16, 3)).astype(np.uint8), fps=10)
        write_actions(path.with_suffix(".jsonl"), generator.normal(size=NUM_FRAMES).tolist())
    return root


@pytest.fixture(scope="module", params=list(CONTEXTS))
def steered(request: pytest.FixtureRequest, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A kind of context, and the export of a model with random weights that takes it."""
    folder = {"root": videos, "num_frames": 8, "height": 16, "width": 16, "val_fraction": 0.4, "fps": 10}
    settings = [f"data.video_folder.{name}={value}" for name, value in folder.items()]
    more = [
        "data.kind=video_folder",
        "model.text_dim=2",
        "model.prediction_type=velocity",
        "validation.history_frames=3",
    ]
    config = tiny_config(tmp_path_factory.mktemp("runs"), *settings, *more, *CONTEXTS[request.param])
    trainer = make_trainer(config)
    for weights in trainer.ema.shadow_params:  # a new model's last layer is zero: nothing would show
        weights.add_(torch.randn_like(weights), alpha=0.1)
    path = build.export_run(config, trainer)
    assert path is not None
    return request.param, path


@pytest.fixture
def steer(steered: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Steer:
    """Exit code of the script, run in this process with the steered model."""

    def run(*words: object) -> int:
        forget_accelerator()
        usual = ["--checkpoint", steered[1], "--steps", 2]
        monkeypatch.setattr(sys, "argv", ["rollout.py", *map(str, [*usual, *words])])
        with pytest.raises(SystemExit) as exit_info:
            run_script(rollout.main)
        return int(exit_info.value.code or 0)

    return run


def write_actions(path: Path, turns: list[float]) -> Path:
    lines = [{"frame": number, "turn": turn, "forward": 1.0} for number, turn in enumerate(turns)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def write_classes(path: Path, labels: list[str]) -> Path:
    path.write_text("\n".join(json.dumps({"class": label}) for label in labels))
    return path


def test_a_changed_line_changes_its_own_frame_and_those_after_it_alone(
    steer: Steer, steered: tuple[str, Path], tmp_path: Path
) -> None:
    frames = []
    for name, fourth in (("a", 0), ("b", 1)):
        lines = [0, 1, 1, fourth, 0]
        path = tmp_path / f"{name}.jsonl"
        if steered[0] == "class":
            write_classes(path, [("run", "walk")[number] for number in lines])
        else:
            write_actions(path, [3.0 * number for number in lines])
        out = tmp_path / f"{name}.npy"
        assert steer("--history", "none", "--frames", 5, "--actions", path, "--out", out) == 0
        frames.append(np.load(out).astype(int))
    differs = np.abs(frames[0] - frames[1]).max((1, 2, 3)) > 0
    assert differs.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("steered", ["class"], indirect=True)
def test_one_class_for_all_frames_is_the_same_class_line_by_line(steer: Steer, tmp_path: Path) -> None:
    lines = write_classes(tmp_path / "lines.jsonl", ["walk"] * 3)
    usual = ("--history", "none", "--frames", 3, "--out")
    assert steer(*usual, tmp_path / "lines.npy", "--actions", lines) == 0
    assert steer(*usual, tmp_path / "class.npy", "--class", "walk") == 0
    assert steer(*usual, tmp_path / "other.npy", "--class", "run") == 0
    by_line, by_class, other = (np.load(tmp_path / f"{n}.npy").astype(int) for n in ("lines", "class", "other"))
    assert np.abs(by_line - by_class).max() <= 1
    assert np.abs(other - by_class).max() > 1


@pytest.mark.parametrize("steered", ["actions"], indirect=True)
def test_a_comparison_with_a_file_follows_the_actions_recorded_beside_it(
    steer: Steer, videos: Path, tmp_path: Path
) -> None:
    clip = videos / "run" / "0.mp4"
    usual = ("--history", clip, "--frames", 6, "--compare", "--out")
    assert steer(*usual, tmp_path / "recorded.npy") == 0
    turns = [json.loads(line)["turn"] for line in clip.with_suffix(".jsonl").read_text().splitlines()]
    given = write_actions(tmp_path / "given.jsonl", turns[2:])  # frame 3, the first new one, is led to by line 2
    assert steer(*usual, tmp_path / "given.npy", "--actions", given) == 0
    assert np.array_equal(np.load(tmp_path / "recorded.npy"), np.load(tmp_path / "given.npy"))


@pytest.mark.parametrize(
    ("words", "for_classes", "for_actions"),
    [
        ((), "'class' (run, walk), and the history knows it for 0 of the 4", "'actions' (turn, forward), and the"),
        (("--actions", "short"), "has 2 lines, and 4 frames are to be generated", "has 2 lines, and 4 frames are to"),
        (("--actions", "nowhere"), "--actions nowhere: no such file", "--actions nowhere: no such file"),
        (
            ("--actions", "bad"),
            "bad, line 1: class 'fly' is unknown; known: run, walk",
            "bad, line 1: no finite number",
        ),
        (("--class", "fly"), "class 'fly' is unknown; known: run, walk", "this model's context is 'actions'"),
        (("--class", "run", "--actions", "bad"), "choose one", "choose one"),
    ],
)
def test_a_mistake_in_steering_is_one_line_and_exit_code_2(
    steer: Steer,
    steered: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    for_classes: str,
    for_actions: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "short", ["run"] * 2)
    write_classes(tmp_path / "bad", ["fly"] * 4)
    assert steer("--history", "none", "--frames", 4, "--out", "new.npy", *words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert (for_classes if steered[0] == "class" else for_actions) in line


def test_lines_are_read_when_their_frame_s_turn_comes_so_that_a_pipe_can_steer(tmp_path: Path) -> None:
    path = write_classes(tmp_path / "lines", ["a", "b", "b", "a"])
    read = []
    lines = (read.append(line) or line for line in read_lines(path, ContextKind("class", ("a", "b"))))
    contexts = FrameContexts(torch.full((3, 1, 2), 0.5), lines, num_frames=3, batch_size=2, name="lines")
    assert contexts(0, 2).shape == (2, 2, 1, 2) and not read
    assert contexts(2, 2)[1, :, 0, 0].tolist() == [0.5, 1] and len(read) == 1
    # Chunks are whole: behind the third and last frame its context is repeated.
    assert contexts(4, 4)[0, :, 0, 1].tolist() == [1, 1, 1, 1] and len(read) == 3


def test_a_pipe_that_ends_too_early_is_named_with_its_number_of_lines() -> None:
    contexts = FrameContexts(torch.zeros(0, 1, 2), iter([torch.zeros(1, 2)]), num_frames=5, batch_size=1, name="pipe")
    contexts(0, 1)
    with pytest.raises(ValueError, match="pipe ends after 1 frames, and 5 are to be generated"):
        contexts(1, 1)
