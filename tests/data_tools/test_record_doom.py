import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

import doom_game
import record_doom
from doom_game import Agent, RecordSettings, fit_frame, play_clip

SMALL = RecordSettings(("basic",), clips=1, frames=3, width=32, height=32, skip=10)
OPEN, WALL = 100.0, 1.0


@pytest.fixture(autouse=True)
def scratch_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # ViZDoom leaves files where it runs


def test_the_same_seed_gives_the_same_frames_and_actions() -> None:
    pytest.importorskip("vizdoom")
    first, second = play_clip(SMALL, "basic", 3), play_clip(SMALL, "basic", 3)
    np.testing.assert_array_equal(first.frames, second.frames)
    assert first.actions == second.actions
    other = play_clip(SMALL, "basic", 4)
    assert other.actions != first.actions


def test_every_frame_has_an_action_and_shows_something() -> None:
    pytest.importorskip("vizdoom")
    recording = play_clip(SMALL, "basic", 0)
    assert [frame.shape for frame in recording.frames] == [(32, 32, 3)] * 3
    assert [action["frame"] for action in recording.actions] == [0, 1, 2]
    assert np.std(recording.frames[0]) > 5


@pytest.mark.slow
def test_a_data_set_is_complete_once_and_refuses_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("vizdoom")
    command = ["--out", "doom", "--scenarios", "basic", "--clips", "1", "--frames", "3", "--workers", "1"]
    assert record_doom.main(command) == 0
    assert sorted(path.name for path in Path("doom").rglob("*.*")) == [
        "clip_00000.jsonl",
        "clip_00000.mp4",
        "dataset.json",
    ]
    assert len(Path("doom/basic/clip_00000.jsonl").read_text().splitlines()) == 3
    described = json.loads(Path("doom/dataset.json").read_text())
    assert described["fps"] == 8.75
    assert described["settings"]["scenarios"] == ["basic"]
    written = Path("doom/basic/clip_00000.mp4").stat().st_mtime_ns
    assert record_doom.main(command) == 0
    assert "already recorded" in capsys.readouterr().out
    assert Path("doom/basic/clip_00000.mp4").stat().st_mtime_ns == written
    assert record_doom.main([*command, "--seed", "1"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scenarios", "atlantis"], "unknown scenario 'atlantis'"),
        (["--scenarios", "basic", "basic"], "named twice"),
        (["--size", "64"], "not WIDTHxHEIGHT"),
        (["--size", "65x64"], "must be even"),
        (["--frames", "0"], "--frames must be at least 1"),
        (["--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    pytest.importorskip("vizdoom")
    assert record_doom.main(["--out", "doom", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("doom").exists()


def test_every_process_works_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = []
    for _ in range(2):
        record_doom.enter_own_folder(str(tmp_path))
        folders.append(Path.cwd())
    assert folders[0] != folders[1]
    assert [folder.parent for folder in folders] == [tmp_path, tmp_path]


@pytest.mark.slow
def test_a_process_that_dies_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.setattr(record_doom, "enter_own_folder", os._exit)  # refuses a path, so that no process gets to work
    assert record_doom.main(["--out", "doom", "--scenarios", "basic", "--clips", "1", "--workers", "1"]) == 2
    assert "a recording process died" in capsys.readouterr().err


def test_an_episode_that_ends_early_is_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def play(settings: RecordSettings, scenario: str, seed: int) -> doom_game.Recording:
        seeds.append(seed)
        length = 2 if len(seeds) == 1 else settings.frames
        return doom_game.Recording([np.zeros((32, 32, 3), np.uint8)] * length, [{"frame": i} for i in range(length)])

    monkeypatch.setattr(record_doom, "play_clip", play)
    Path("basic").mkdir()
    record_doom.record_clip(SMALL, "basic", 0, Path())
    assert len(set(seeds)) == 2
    assert len(Path("basic/clip_00000.jsonl").read_text().splitlines()) == SMALL.frames


def test_a_seed_belongs_to_one_clip_whatever_else_is_recorded() -> None:
    seeds = {
        record_doom.clip_seed(seed, scenario, clip)
        for seed in range(3)
        for scenario in ("basic", "my_way_home")
        for clip in range(20)
    }
    assert len(seeds) == 3 * 2 * 20


def test_the_agent_holds_a_manoeuvre_for_one_to_four_seconds() -> None:
    agent = Agent(random.Random(0), skip=5)
    moves = [agent.next_move(100.0 * frame, 0, OPEN) for frame in range(400)]
    changes = [frame for frame in range(1, 400) if moves[frame] != moves[frame - 1]]
    held = np.diff(changes)
    assert held.min() >= 7
    assert held.max() <= 28


def test_the_agent_turns_away_from_a_wall_until_the_view_is_open() -> None:
    agent = Agent(random.Random(0), skip=5)
    while not agent.next_move(random.random() * 1e4, 0, OPEN).forward:
        pass
    turns = [agent.next_move(0, 0, WALL) for _ in range(20)]
    assert len(set(turns)) == 1
    assert turns[0].turn != 0
    assert turns[0].forward == turns[0].strafe == 0
    assert agent.next_move(0, 0, OPEN) != turns[0]


def test_the_agent_turns_when_something_stops_it() -> None:
    agent = Agent(random.Random(0), skip=5)
    position = 0.0
    while not agent.next_move(position, 0, OPEN).forward:
        position += 100
    assert agent.next_move(position, 0, OPEN).turn != 0


def test_a_frame_is_the_screens_centre() -> None:
    screen = np.zeros((120, 160, 3), np.uint8)
    screen[:, 20:140] = 80
    np.testing.assert_array_equal(fit_frame(screen, 64, 64), np.full((64, 64, 3), 80, np.uint8))
