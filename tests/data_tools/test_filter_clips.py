"""Pieces that teach nothing, dropped as a user drops them."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_films import HEIGHT, WIDTH, read_entries, run_here, shot, write_film

import filter_clips
import piece_manifest
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_list import write_manifest

NUM_FRAMES = 20  # two seconds


def films_to_drop() -> dict[str, np.ndarray]:
    """One film for each reason, by the reason's name; what is there twice comes after its original in the list."""
    still = np.repeat(shot(4, 1), NUM_FRAMES, axis=0)
    dark = shot(5, NUM_FRAMES) * 0.1
    dull = np.broadcast_to(np.linspace(60, 200, NUM_FRAMES)[:, None, None, None], (NUM_FRAMES, HEIGHT, WIDTH, 3))
    return {
        "too-short": shot(3, 6),
        "black": dark,
        "static": still,
        "low-detail": dull,
        "near-duplicate": shot(1, NUM_FRAMES) * 0.9 + 5,
    }


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.mp4, 1.mp4 and 2.mp4 are good; then one for each of KINDS."""
    folder = tmp_path_factory.mktemp("filter") / "films"
    for seed in range(3):
        write_film(folder / f"{seed}.mp4", [shot(seed, NUM_FRAMES)])
    for kind, frames in films_to_drop().items():
        write_film(folder / f"{kind}.mp4", [frames])
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_manifest, "run_isolated", run_here)


def filter_(videos: Path, out: Path, *options: str) -> int:
    return filter_clips.main(["--videos", str(videos), "--out", str(out), "--backend", "pyav", *options])


def by_name(manifest: Path) -> dict[str, dict[str, Any]]:
    return {Path(entry["path"]).stem: entry for entry in read_entries(manifest)}


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.usefixtures("here")
def test_each_reason_has_its_count_and_its_contact_sheet(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sums(films)
    assert filter_(films, tmp_path / "clips.jsonl") == 0
    entries = by_name(tmp_path / "clips.jsonl")
    assert {name for name, entry in entries.items() if entry["verdict"] == "ok"} == {"0", "1", "2"}
    for kind in filter_clips.KINDS:
        assert entries[kind]["verdict"] == "bad" and entries[kind]["reason"].startswith(f"{kind}: ")
    assert entries["near-duplicate"]["reason"].startswith("near-duplicate: of ")
    assert "/1.mp4, " in entries["near-duplicate"]["reason"]
    printed = capsys.readouterr().out
    assert "3 of 8 pieces kept, 5 dropped, 0 bad; 0 entries were not ok before" in printed
    for kind in filter_clips.KINDS:
        sheet = tmp_path / "clips_dropped" / f"{kind}.png"
        assert f"   1 {kind}: {sheet}; the first: " in printed
        assert Image.open(sheet).width > 1000
    assert sums(films) == before


@pytest.mark.usefixtures("here")
def test_a_contact_sheet_shows_what_was_dropped_beside_what_is_kept(films: Path, tmp_path: Path) -> None:
    filter_(films, tmp_path / "clips.jsonl")
    sheets = tmp_path / "clips_dropped"
    still = np.asarray(Image.open(sheets / "static.png"), np.float64)
    picture = shot(4, 1)[0]
    # A tile's picture, 192 x 108, holds the frame whole: 162 x 108 in its middle.
    tile = still[20 : 20 + 108, 6 + 15 : 6 + 15 + 162]
    assert np.abs(tile.mean((0, 1)) - picture.mean((0, 1))).max() < 8
    pair = np.asarray(Image.open(sheets / "near-duplicate.png"), np.float64)
    left, right = pair[20:128, 21:183], pair[20:128, 213:375]
    assert np.abs(left - (right * 0.9 + 5)).mean() < 8
    assert np.abs(left - tile).mean() > 20


@pytest.mark.usefixtures("here")
def test_the_manifest_says_what_was_measured_and_loaders_take_what_is_left(films: Path, tmp_path: Path) -> None:
    filter_(films, tmp_path / "clips.jsonl")
    entries = by_name(tmp_path / "clips.jsonl")
    assert entries["0"]["seconds"] == 2.0 and entries["too-short"]["seconds"] == pytest.approx(0.6)
    assert entries["black"]["dark"] > 0.98 > entries["0"]["dark"]
    assert entries["static"]["motion"] < 0.5 < entries["0"]["motion"]
    assert entries["low-detail"]["detail"] < 15 < entries["0"]["detail"]
    dataset = VideoFolder(tmp_path / "clips.jsonl", 8, height=32, width=32, split="all", backend="pyav")
    assert {Path(dataset.clip_name(index)).stem for index in range(len(dataset))} == {"0", "1", "2"}


@pytest.mark.usefixtures("here")
def test_only_what_is_asked_for_is_dropped_and_old_sheets_go(films: Path, tmp_path: Path) -> None:
    filter_(films, tmp_path / "clips.jsonl")
    assert len(list((tmp_path / "clips_dropped").iterdir())) == 5
    filter_(films, tmp_path / "clips.jsonl", "--drop", "black", "static")
    kinds = Counter(entry.get("reason", "ok").split(":")[0] for entry in read_entries(tmp_path / "clips.jsonl"))
    assert kinds == {"ok": 6, "black": 1, "static": 1}
    assert {path.name for path in (tmp_path / "clips_dropped").iterdir()} == {"black.png", "static.png"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("options", "kept_as_well"),
    [
        (["--min-seconds", "0.5"], "too-short"),
        (["--max-dark", "1"], "black"),
        (["--min-motion", "0"], "static"),
        (["--min-detail", "0"], "low-detail"),
        (["--max-distance", "0"], "near-duplicate"),
    ],
)
def test_every_threshold_can_be_set(films: Path, tmp_path: Path, options: list[str], kept_as_well: str) -> None:
    filter_(films, tmp_path / "clips.jsonl", *options, "--drop", kept_as_well)
    assert all(entry["verdict"] == "ok" for entry in read_entries(tmp_path / "clips.jsonl"))


@pytest.mark.usefixtures("here")
def test_pieces_are_measured_within_their_own_frames(films: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", [shot(0, 20), np.zeros((20, HEIGHT, WIDTH, 3)), shot(1, 20)])
    listed: list[dict[str, Any]] = [
        {"path": film.name, "first_frame": first, "end_frame": first + 20, "caption": f"from {first}"}
        for first in (0, 20, 40)
    ]
    listed.append({"path": "gone.mp4", "verdict": "bad", "reason": "gone"})
    write_manifest(tmp_path / "shots.jsonl", listed)
    filter_(tmp_path / "shots.jsonl", tmp_path / "clips.jsonl")
    found = read_entries(tmp_path / "clips.jsonl")
    assert [(entry["first_frame"], entry["verdict"]) for entry in found[:3]] == [(0, "ok"), (20, "bad"), (40, "ok")]
    assert found[1]["reason"].startswith("black: 100.0% of the pixels are dark")
    assert [entry["caption"] for entry in found[:3]] == ["from 0", "from 20", "from 40"]
    assert found[3] == listed[3]


@pytest.mark.usefixtures("here")
def test_unreadable_videos_are_listed_as_bad(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "whole.mp4").hardlink_to(films / "0.mp4")
    assert filter_(folder, tmp_path / "clips.jsonl") == 0
    assert by_name(tmp_path / "clips.jsonl")["broken"]["reason"].startswith("unreadable: not a readable video")
    assert "1 of 2 pieces kept, 0 dropped, 1 bad" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_nothing_left_is_said(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert filter_(films, tmp_path / "clips.jsonl", "--min-seconds", "1000") == 0
    printed = capsys.readouterr().out
    assert "0 of 8 pieces kept, 8 dropped" in printed and printed.endswith("no piece is left\n")


def test_the_number_of_processes_changes_nothing(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filter_(films, tmp_path / "clips.jsonl", "--processes", "2", "--sheets", str(tmp_path / "sheets"))
    two = (tmp_path / "clips.jsonl").read_bytes(), sums(tmp_path / "sheets")
    monkeypatch.setattr(piece_manifest, "run_isolated", run_here)
    filter_(films, tmp_path / "clips.jsonl", "--sheets", str(tmp_path / "sheets"))
    assert ((tmp_path / "clips.jsonl").read_bytes(), sums(tmp_path / "sheets")) == two


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-seconds", "-1"], "--min-seconds must be at least 0"),
        (["--min-motion", "nan"], "--min-motion must be at least 0"),
        (["--max-dark", "1.5"], "--max-dark is a share"),
        (["--max-distance", "65"], "--max-distance must be from 0 to 64"),
        (["--sheets", __file__], "is a file; name a folder"),
        (["--out", "clips.csv"], "a manifest is a file whose name ends in .jsonl"),
        (["--videos", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_end_with_one_line(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert filter_(films, tmp_path / "clips.jsonl", *options) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("filter_clips: ") and message in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "clips.jsonl").exists()
