"""The rollout script as a user meets it: files that play, seeds that repeat, one line per mistake."""

import sys
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from tiny_training import REPOSITORY, make_trainer, tiny_config

import rollout
from _cli import run_script
from video_mirai import build
from video_mirai.data.video_reader import probe
from video_mirai.media import VideoWriter, to_uint8, write_video

HISTORY_FRAMES = 3
Call = Callable[..., int]


def frames_of(path: Path) -> np.ndarray:
    return iio.imread(path, plugin="pyav" if path.suffix == ".mp4" else "pillow")


def test_file_holds_the_last_frames_of_the_history_and_then_the_frames_asked_for(
    call: Call, clip: Path, tmp_path: Path, run_folder: Path
) -> None:
    out = tmp_path / "new" / "long.mp4"
    assert call("--history", clip, "--frames", 7, "--out", out) == 0
    config = build.load_run(run_folder).config.data.scenes
    assert config is not None
    info = probe(out, "pyav")
    assert (info.num_frames, info.height, info.width) == (HISTORY_FRAMES + 7, config.height, config.width)
    assert info.fps == pytest.approx(config.fps)  # the file has another; its frames were taken at the model's
    given = frames_of(clip)[-HISTORY_FRAMES:].astype(int).mean((1, 2, 3))
    written = frames_of(out)[:HISTORY_FRAMES].astype(int).mean((1, 2, 3))
    assert np.abs(given - written).max() < 6  # means survive the resizing


def test_the_same_seed_gives_the_same_file_and_another_seed_another(call: Call, clip: Path, tmp_path: Path) -> None:
    contents = []
    for number, seed in enumerate((5, 5, 6)):
        out = tmp_path / f"{number}.mp4"
        assert call("--history", clip, "--frames", 3, "--out", out, "--seed", seed) == 0
        contents.append(out.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_history_comes_from_the_runs_data_set_too(call: Call, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "long.mp4"
    words = ("--history", "dataset", "--index", 3, "--history-frames", 2, "--frames", 4, "--out", out, "--steps", 2)
    assert call(*words, "--window", 4, "--fps", 5) == 0
    frames = frames_of(out)
    assert len(frames) == 6
    clip = build.build_data_set(build.load_run(run_folder).config.data, split="val")[3]["video"]
    truth = to_uint8(clip[:2]).astype(int)
    assert np.abs(frames[:2].astype(int) - truth).mean() < 4  # but for the compression of the file


def test_settings_files_replace_the_runs_own_and_options_replace_both(run_folder: Path, tmp_path: Path) -> None:
    run = build.load_run(run_folder)
    required = ["--checkpoint", "-", "--history", "-", "--frames", "1", "--out", "-"]
    for name in ("fast", "careful"):
        words = ["--settings", str(REPOSITORY / "configs" / "rollout" / f"{name}.yaml"), "--window", "5"]
        settings = rollout.rollout_settings(run, rollout.build_parser().parse_args([*required, *words]))
        assert settings.window_frames == 5
        assert settings.num_steps == {"fast": 4, "careful": 12}[name]
        assert settings.history_sigma == run.rollout.history_sigma
    bad = tmp_path / "bad.yaml"
    bad.write_text("num_step: 3\n")
    with pytest.raises(ValueError, match=r"--settings .*bad\.yaml: Key 'num_step'"):
        rollout.rollout_settings(run, rollout.build_parser().parse_args([*required, "--settings", str(bad)]))


def test_chunks_are_written_one_by_one_as_they_are_made(
    call: Call, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    append = VideoWriter.append

    def note_and_append(self: VideoWriter, frames: torch.Tensor) -> None:
        written.append(len(frames))
        append(self, frames)

    monkeypatch.setattr(VideoWriter, "append", note_and_append)
    assert call("--history", clip, "--frames", 20, "--out", tmp_path / "long.mp4") == 0
    assert written == [HISTORY_FRAMES] + [1] * 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--history", "nowhere.mp4"), "error: nowhere.mp4: no such file"),
        (("--history-frames", "50"), "too short: 9 frames, history needs 50"),
        (("--history-frames", "0"), "--history-frames 0 must be at least 1"),
        (("--frames", "0"), "--frames 0 must be at least 1"),
        (("--steps", "0"), "--steps 0 must be at least 1"),
        (("--out", "long.avi"), "unknown video suffix '.avi'; known: .gif, .mp4"),
        (("--checkpoint", "nowhere"), "checkpoint folder nowhere does not exist"),
        (("--settings", "nowhere.yaml"), "nowhere.yaml"),
        (("--device", "abacus"), "device 'abacus' cannot be used here"),
        (("--history", "dataset", "--index", "100000"), "--index 100000 is not in 0.."),
    ],
)
def test_users_mistake_is_one_line_and_exit_code_2(
    words: tuple[str, ...], message: str, call: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ("--history", clip, "--frames", 2, "--out", tmp_path / "long.mp4")
    assert call(*usual, *words) == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert last_line.startswith("error: ")
    assert message in last_line
    assert not (tmp_path / "long.mp4").exists()


def test_the_history_is_never_written_over(call: Call, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = clip.read_bytes()
    assert call("--history", clip, "--frames", 2, "--out", clip) == 2
    assert "own file" in capsys.readouterr().err
    assert clip.read_bytes() == before
