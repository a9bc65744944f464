import json
from pathlib import Path

import numpy as np
import pytest

import write_scenes
from video_mirai.data.scenes import Scenes
from video_mirai.data.video_reader import read_clip

SMALL = ["--clips", "2", "--frames", "4", "--size", "24x16", "--sprite-size", "8", "--seed", "3"]


def test_clips_on_disk_hold_the_scenes_and_their_state(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    assert write_scenes.main([*SMALL, "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "clip_00000.jsonl",
        "clip_00000.mp4",
        "clip_00001.jsonl",
        "clip_00001.mp4",
        "dataset.json",
    ]
    sample = Scenes(2, 4, height=16, width=24, sprite_size=8, seed=3)[1]
    frames = read_clip(out / "clip_00001.mp4", [0, 1, 2, 3], 16, 24, backend="pyav")
    expected = (sample["video"].movedim(1, -1).numpy() + 1) * 127.5
    assert np.abs(frames - expected).mean() < 12  # colour is stored at half resolution
    lines = [json.loads(line) for line in (out / "clip_00001.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    positions = [[line["sprites"][0]["x"], line["sprites"][0]["y"]] for line in lines]
    np.testing.assert_allclose(positions, sample["state"]["position"][:, 0], atol=1e-4)
    described = json.loads((out / "dataset.json").read_text())
    assert described["settings"]["seed"] == 3
    assert described["identities"][lines[0]["sprites"][0]["identity"]] == lines[0]["sprites"][0]["name"]


def test_a_complete_data_set_is_kept_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*SMALL, "--out", str(tmp_path)]
    assert write_scenes.main(command) == 0
    written = (tmp_path / "clip_00000.mp4").stat().st_mtime_ns
    assert write_scenes.main(command) == 0
    assert "already written" in capsys.readouterr().out
    assert (tmp_path / "clip_00000.mp4").stat().st_mtime_ns == written
    assert write_scenes.main([*command, "--num-sprites", "2"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"), [(["--size", "big"], "WIDTHxHEIGHT"), (["--sprite-size", "90"], "sprite_size=90.0")]
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_scenes.main([*options, "--out", str(tmp_path / "never")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        write_scenes.main(["--help"])
    assert stop.value.code == 0
    assert "Example:" in capsys.readouterr().out
