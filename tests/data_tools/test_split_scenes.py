"""Shots as pieces of a manifest, found as a user finds them."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from small_films import read_entries, run_here, shot, write_film

import piece_manifest
import split_scenes
from video_mirai.data import transnet
from video_mirai.data.batch import ClipKey
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_list import write_manifest

Piece = tuple[str, int | None, int | None]

SHOTS = [(0, 20), (20, 45), (45, 75), (75, 80)]  # of films/a.mp4; the last one is half a second


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 has SHOTS, b.mp4 is one shot of 30 frames."""
    folder = tmp_path_factory.mktemp("split") / "films"
    write_film(folder / "a.mp4", [shot(seed, end - first) for seed, (first, end) in enumerate(SHOTS)])
    write_film(folder / "b.mp4", [shot(9, 30)])
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_manifest, "run_isolated", run_here)


def split(videos: Path, out: Path, *options: str) -> int:
    return split_scenes.main(["--videos", str(videos), "--out", str(out), "--backend", "pyav", *options])


def pieces(manifest: Path) -> list[Piece]:
    """Of the entries that are ok."""
    return [
        (Path(entry["path"]).name, entry.get("first_frame"), entry.get("end_frame"))
        for entry in read_entries(manifest)
        if entry["verdict"] == "ok"
    ]


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.usefixtures("here")
def test_every_shot_becomes_a_piece_and_short_ones_are_bad(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sums(films)
    assert split(films, tmp_path / "shots.jsonl") == 0
    assert pieces(tmp_path / "shots.jsonl") == [*(("a.mp4", *piece) for piece in SHOTS[:3]), ("b.mp4", 0, 30)]
    (short,) = (entry for entry in read_entries(tmp_path / "shots.jsonl") if entry["verdict"] == "bad")
    assert (short["first_frame"], short["end_frame"]) == SHOTS[3]
    assert short["reason"] == "too short: a shot of 0.50 s, less than 1"
    printed = capsys.readouterr().out
    assert "4 shots of 2 videos; 1 more are shorter than 1 s; 0 videos are bad" in printed
    assert f"next: python data_tools/filter_clips.py --videos {tmp_path / 'shots.jsonl'}" in printed
    assert "--backend pyav" in printed
    assert sums(films) == before


@pytest.mark.usefixtures("here")
def test_no_clip_crosses_a_boundary(films: Path, tmp_path: Path) -> None:
    split(films, tmp_path / "shots.jsonl")
    dataset = VideoFolder(
        tmp_path / "shots.jsonl", 16, height=64, width=96, split="all", clips_per_video=10, backend="pyav"
    )
    assert len(dataset) == 40
    for index in range(len(dataset)):
        for epoch in range(2):
            frames = dataset[ClipKey(epoch, index)]["video"]
            changes = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
            assert changes.max() < 3 * changes.median(), "a cut lies within the clip"
    uncut = VideoFolder(films, 30, height=64, width=96, split="all", stride_seconds=100.0, backend="pyav")
    frames = uncut[0]["video"]  # of a.mp4, which has a cut at frame 20: it would have been seen
    changes = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    assert changes.max() > 3 * changes.median()


@pytest.mark.usefixtures("here")
def test_what_else_an_entry_says_is_kept_and_what_is_not_ok_is_left_alone(films: Path, tmp_path: Path) -> None:
    listed: list[dict[str, Any]] = [
        {"path": "films/a.mp4", "first_frame": 10, "end_frame": 50, "caption": "rain", "verdict": "ok", "reason": None},
        {"path": "films/b.mp4", "verdict": "needs-transcode", "reason": "open GOP"},
        {"path": "films/gone.mp4", "verdict": "bad", "reason": "gone"},
    ]
    write_manifest(films.parent / "checked.jsonl", listed)
    assert split(films.parent / "checked.jsonl", films.parent / "shots.jsonl", "--min-seconds", "0") == 0
    found = read_entries(films.parent / "shots.jsonl")
    assert [(e["first_frame"], e["end_frame"]) for e in found[:3]] == [(10, 20), (20, 45), (45, 50)]
    assert all(entry["caption"] == "rain" and entry["path"] == "films/a.mp4" for entry in found[:3])
    assert found[3:] == listed[1:]


@pytest.mark.usefixtures("here")
def test_unreadable_videos_are_listed_as_bad_and_the_others_go_on(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "whole.mp4").hardlink_to(films / "b.mp4")
    assert split(folder, tmp_path / "shots.jsonl") == 0
    assert pieces(tmp_path / "shots.jsonl") == [("whole.mp4", 0, 30)]
    (bad,) = (entry for entry in read_entries(tmp_path / "shots.jsonl") if entry["verdict"] == "bad")
    assert bad["path"] == "videos/broken.mp4" and bad["reason"].startswith("unreadable: not a readable video")
    assert "1 bad, unreadable; the first: videos/broken.mp4: " in capsys.readouterr().out


def test_the_number_of_processes_does_not_change_the_manifest(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split(films, tmp_path / "two.jsonl", "--processes", "2")
    monkeypatch.setattr(piece_manifest, "run_isolated", run_here)
    split(films, tmp_path / "one.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@pytest.mark.usefixtures("here")
def test_a_lower_threshold_finds_no_fewer_shots(films: Path, tmp_path: Path) -> None:
    numbers = []
    for threshold in ("0.01", "0.15", "0.999"):
        split(films, tmp_path / "shots.jsonl", "--threshold", threshold, "--min-seconds", "0")
        numbers.append(len(pieces(tmp_path / "shots.jsonl")))
    assert numbers[0] >= numbers[1] == 5 > numbers[2] == 2


@pytest.mark.usefixtures("here")
def test_transnet_finds_the_same_shots(films: Path, tmp_path: Path) -> None:
    pytest.importorskip(transnet.PACKAGE)
    assert split(films, tmp_path / "shots.jsonl", "--method", "transnet") == 0
    assert pieces(tmp_path / "shots.jsonl") == [*(("a.mp4", *piece) for piece in SHOTS[:3]), ("b.mp4", 0, 30)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0"], "--threshold must be between 0 and 1"),
        (["--min-seconds", "-1"], "--min-seconds must be at least 0"),
        (["--processes", "0"], "--processes must be at least 1"),
        (["--timeout", "0"], "--timeout must be more than 0"),
        (["--device", "abacus"], "--device 'abacus' cannot be used here"),
        (["--out", "shots.txt"], "a manifest is a file whose name ends in .jsonl"),
        (["--videos", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_end_with_one_line(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert split(films, tmp_path / "shots.jsonl", *options) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("split_scenes: ") and message in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "shots.jsonl").exists()


def test_the_list_itself_is_never_overwritten(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = films.parent / "own.jsonl"
    write_manifest(manifest, [{"path": "films/a.mp4"}])
    before = manifest.read_bytes()
    assert split(manifest, manifest) == 2
    assert "would overwrite --videos" in capsys.readouterr().err
    assert manifest.read_bytes() == before
