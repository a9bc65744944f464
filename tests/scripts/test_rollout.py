"""The rollout script as a user meets it: files that play, seeds that repeat, one line per mistake."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tiny_training import REPOSITORY

import rollout
from video_mirai import build
from video_mirai.data.video_reader import probe
from video_mirai.media import VideoWriter, to_uint8, write_image

HISTORY_FRAMES = 3
RollOut = Callable[..., int]


def frames_of(path: Path) -> np.ndarray:
    return iio.imread(path, plugin="pyav" if path.suffix == ".mp4" else "pillow")


def test_file_holds_the_last_frames_of_the_history_and_then_the_frames_asked_for(
    roll_out: RollOut, clip: Path, tmp_path: Path, run_folder: Path
) -> None:
    out = tmp_path / "new" / "long.mp4"
    assert roll_out("--history", clip, "--frames", 7, "--out", out) == 0
    config = build.load_run(run_folder).config.data.scenes
    assert config is not None
    info = probe(out, "pyav")
    assert (info.num_frames, info.height, info.width) == (HISTORY_FRAMES + 7, config.height, config.width)
    assert info.fps == pytest.approx(config.fps)  # the file has another; its frames were taken at the model's
    given = frames_of(clip)[-HISTORY_FRAMES:].astype(int).mean((1, 2, 3))
    written = frames_of(out)[:HISTORY_FRAMES].astype(int).mean((1, 2, 3))
    assert np.abs(given - written).max() < 6  # means survive the resizing


def test_the_same_seed_gives_the_same_file_and_another_seed_another(
    roll_out: RollOut, clip: Path, tmp_path: Path
) -> None:
    contents = []
    for number, seed in enumerate((5, 5, 6)):
        out = tmp_path / f"{number}.mp4"
        assert roll_out("--history", clip, "--frames", 3, "--out", out, "--seed", seed) == 0
        contents.append(out.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_history_comes_from_the_runs_data_set_too(roll_out: RollOut, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "long.mp4"
    words = ("--history", "dataset", "--index", 3, "--history-frames", 2, "--frames", 4, "--out", out, "--steps", 2)
    assert roll_out(*words, "--window", 4, "--fps", 5) == 0
    frames = frames_of(out)
    assert len(frames) == 6
    clip = build.build_data_set(build.load_run(run_folder).config.data, split="val")[3]["video"]
    truth = to_uint8(clip[:2]).astype(int)
    assert np.abs(frames[:2].astype(int) - truth).mean() < 4  # but for the compression of the file


def test_settings_files_replace_the_runs_own_and_options_replace_both(run_folder: Path, tmp_path: Path) -> None:
    run = build.load_run(run_folder)
    required = ["--checkpoint", "-", "--history", "-", "--frames", "1", "--out", "-"]
    changed = {path.stem: OmegaConf.load(path) for path in (REPOSITORY / "configs" / "rollout").glob("*.yaml")}
    assert changed
    for name, changes in changed.items():
        words = ["--settings", str(REPOSITORY / "configs" / "rollout" / f"{name}.yaml"), "--window", "5"]
        settings = rollout.rollout_settings(run, rollout.build_parser().parse_args([*required, *words]))
        assert settings.window_frames == 5
        assert settings.num_steps == changes.get("num_steps", run.rollout.num_steps)
        assert settings.guidance.history_scale == changes.get("guidance", {}).get("history_scale", 1.0)
        assert settings.history_sigma == run.rollout.history_sigma
    bad = tmp_path / "bad.yaml"
    bad.write_text("num_step: 3\n")
    with pytest.raises(ValueError, match=r"--settings .*bad\.yaml: Key 'num_step'"):
        rollout.rollout_settings(run, rollout.build_parser().parse_args([*required, "--settings", str(bad)]))


def test_chunks_are_written_one_by_one_as_they_are_made(
    roll_out: RollOut, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    append = VideoWriter.append

    def note_and_append(self: VideoWriter, frames: torch.Tensor) -> None:
        written.append(len(frames))
        append(self, frames)

    monkeypatch.setattr(VideoWriter, "append", note_and_append)
    assert roll_out("--history", clip, "--frames", 20, "--out", tmp_path / "long.mp4") == 0
    assert written == [HISTORY_FRAMES] + [1] * 20


@pytest.mark.parametrize("words", [("--history", "none"), ("--history-frames", 0)], ids=["none", "no frames"])
def test_a_rollout_from_nothing_holds_generated_frames_alone(
    roll_out: RollOut, clip: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert roll_out("--history", clip, *words, "--frames", 4, "--out", tmp_path / "new.npy") == 0
    assert len(np.load(tmp_path / "new.npy")) == 4


def test_a_picture_is_a_history_of_one_frame_resized_as_videos_are(
    roll_out: RollOut, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 250  # the middle square is what is left
    write_image(tmp_path / "first.png", picture)
    assert roll_out("--history", tmp_path / "first.png", "--frames", 2, "--out", tmp_path / "new.npy") == 0
    assert f"{tmp_path / 'first.png'}: 60x20 resized to 16x16 (the shorter side is fitted" in caplog.text
    frames = np.load(tmp_path / "new.npy")
    assert len(frames) == 3 and frames[0, :, 1:-1].min() > 200


def test_what_is_resized_and_resampled_is_said(
    roll_out: RollOut, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert roll_out("--history", clip, "--frames", 1, "--out", tmp_path / "long.mp4") == 0
    assert f"{clip}: 64x40 resized to 16x16 (the shorter side is fitted, the centre kept)" in caplog.text
    assert f"{clip}: 12 frames a second taken as 10 (the nearest frames in time)" in caplog.text


def test_several_histories_and_seeds_make_files_named_after_them_and_equal_to_each_made_alone(
    roll_out: RollOut, tmp_path: Path
) -> None:
    usual = ("--history", "dataset", "--frames", 3, "--format", "npy")
    assert roll_out(*usual, "--index", 4, 2, "--seeds", 0, 7, "--out", tmp_path / "all") == 0
    names = [f"{index:04d}_val_seed{seed}.npy" for index in (2, 4) for seed in (0, 7)]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == names
    assert roll_out(*usual, "--index", 2, "--seed", 7, "--out", tmp_path / "alone.npy") == 0
    contents = [(tmp_path / "all" / name).read_bytes() for name in names]
    assert contents[1] == (tmp_path / "alone.npy").read_bytes()
    assert len(set(contents)) == 4


def test_files_and_folders_of_videos_are_numbered_in_order(roll_out: RollOut, clip: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        shutil.copy(clip, tmp_path / "clips" / name / "clip.mp4")
    assert roll_out("--history", clip, tmp_path / "clips", "--frames", 1, "--out", f"{tmp_path}/out/") == 0
    names = [f"{number:04d}_clip_seed0.mp4" for number in range(3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_grid_holds_the_videos_of_all_seeds(roll_out: RollOut, tmp_path: Path) -> None:
    usual = ("--history", "none", "--frames", 3, "--out")
    assert roll_out(*usual, tmp_path / "grid.npy", "--grid", "--seeds", 5, 6, 7) == 0
    assert roll_out(*usual, tmp_path / "alone.npy", "--seed", 7) == 0
    grid, alone = (np.load(tmp_path / f"{name}.npy").astype(int) for name in ("grid", "alone"))
    assert grid.shape == (3, 34, 34, 3)
    assert np.abs(grid[:, 18:, :16] - alone).max() <= 1  # a batch rounds otherwise than one alone


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_a_comparison_shows_a_scenes_truth_for_as_long_as_it_is(
    roll_out: RollOut, run_folder: Path, tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    config = build.load_run(run_folder).config.data
    frames = 10  # beyond a training clip
    truth = to_uint8(build.build_data_set(config, split="val", num_frames=HISTORY_FRAMES + frames)[1]["video"])
    words = ("--history", "dataset", "--index", 1, "--frames", frames, "--compare", "--seeds", *seeds)
    assert roll_out(*words, "--out", tmp_path / "row.npy", "--scale", 2) == 0
    row = np.load(tmp_path / "row.npy")[:, -32:]
    assert row.shape == (HISTORY_FRAMES + frames, 32, 32 + 34 * len(seeds), 3)
    assert np.array_equal(row[:, ::2, :32:2], truth)
    assert np.array_equal(row[:HISTORY_FRAMES, :, -32:], row[:HISTORY_FRAMES, :, :32])  # pixels are the latents
    assert not np.array_equal(row[HISTORY_FRAMES, :, -32:], row[HISTORY_FRAMES, :, :32])


def test_a_file_is_compared_from_its_first_frames_on(roll_out: RollOut, clip: Path, tmp_path: Path) -> None:
    assert roll_out("--history", clip, "--frames", 8, "--compare", "--out", tmp_path / "row.npy") == 0
    row = np.load(tmp_path / "row.npy")
    given = frames_of(clip).astype(int).mean((1, 2, 3))
    known = np.round(np.arange(8) / 10 * 12 - 0.01).astype(int)  # 10 frames a second of 12; it ends after 9 frames
    assert np.abs(row[:8, -16:, :16].astype(int).mean((1, 2, 3)) - given[known]).max() < 6
    assert row[8:, -16:, :16].max() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--history", "nowhere.mp4"), "error: nowhere.mp4: no such file"),
        (("--history-frames", "50"), "too short: 9 frames, history needs 50"),
        (("--history-frames", "-1"), "--history-frames -1 must be at least 0"),
        (("--history", "none", "--history-frames", "2"), "--history-frames 2: none is 0 frames of history"),
        (("--history", "none", "--compare"), "--compare: no truth is known of none"),
        (("--history", "none", "dataset"), "go alone"),
        (("--history", "nowhere.png"), "nowhere.png: no such file"),
        (("--seeds", "1", "1"), "--seeds 1 1: numbers from 0, each once"),
        (("--seeds", "1", "2"), "1 histories and 2 seeds make 2 videos; name a folder"),
        (("--window", "1000000000000"), "and window_frames=1000000000000 for a batch of 1 needs "),
        (("--class", "walk"), "--class walk: this model's context is 'none'"),
        (("--fps", "0"), "--fps 0.0 must be positive"),
        (("--out", "folder/", "--format", "avi"), "unknown video suffix '.avi'; known: .gif, .mp4, .npy, .png"),
        (("--frames", "0"), "--frames 0 must be at least 1"),
        (("--steps", "0"), "--steps 0 must be at least 1"),
        (("--out", "long.avi"), "unknown video suffix '.avi'; known: .gif, .mp4, .npy, .png"),
        (("--checkpoint", "nowhere"), "checkpoint folder nowhere does not exist"),
        (("--settings", "nowhere.yaml"), "nowhere.yaml"),
        (("--device", "abacus"), "device 'abacus' cannot be used here"),
        (("--history", "dataset", "--index", "100000"), "--index 100000 is not in 0.."),
    ],
)
def test_users_mistake_is_one_line_and_exit_code_2(
    words: tuple[str, ...],
    message: str,
    roll_out: RollOut,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = ("--history", clip, "--frames", 2, "--out", tmp_path / "long.mp4")
    assert roll_out(*usual, *words) == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert last_line.startswith("error: ")
    assert message in last_line
    assert not (tmp_path / "long.mp4").exists()


def test_the_history_is_never_written_over(roll_out: RollOut, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = clip.read_bytes()
    assert roll_out("--history", clip, "--frames", 2, "--out", clip) == 2
    assert "own file" in capsys.readouterr().err
    assert clip.read_bytes() == before
