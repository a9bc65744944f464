"""What a manifest says, line by line."""

import json
import logging
import os
from pathlib import Path

import pytest

from video_mirai.data.video_list import VideoFile, list_videos, read_manifest, split_of, write_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "videos.jsonl"


def write_lines(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_an_entry_gives_path_name_piece_and_caption(manifest: Path) -> None:
    whole = {"path": "a/x.mp4", "caption": "a cat", "fps": 25, "reason": None}
    late, early = (
        {"path": "b.mp4", "first_frame": 1000},
        {"path": "b.mp4", "first_frame": 0, "end_frame": 200},
    )
    files = list_videos(write_lines(manifest, late, whole, early))
    folder = manifest.parent
    assert files == [
        VideoFile(folder / "a/x.mp4", "a/x.mp4", "a/x.mp4", caption="a cat"),
        VideoFile(folder / "b.mp4", "b.mp4#0-200", "b.mp4", 0, 200),
        VideoFile(folder / "b.mp4", "b.mp4#1000-", "b.mp4", 1000),
    ]


def test_pieces_of_a_file_fall_into_one_split(manifest: Path) -> None:
    pieces = [{"path": f"{i}.mp4", "first_frame": 9 * k, "end_frame": 9 * k + 9} for i in range(20) for k in range(5)]
    files = list_videos(write_lines(manifest, *pieces))
    splits = {(file.source, split_of(file.source, 0, 0.3, 0.3)) for file in files}
    assert len(files) == 100 and len(splits) == 20
    assert {split for _, split in splits} == {"train", "val", "test"}


def test_an_absolute_path_below_the_manifest_is_named_like_a_relative_one(manifest: Path) -> None:
    absolute = {"path": str(manifest.parent / "a/x.mp4")}
    assert list_videos(write_lines(manifest, absolute)) == list_videos(write_lines(manifest, {"path": "a/x.mp4"}))


def test_only_entries_with_verdict_ok_are_listed_and_the_others_counted_in_the_log(
    manifest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_lines(
        manifest,
        {"path": "a.mp4", "verdict": "ok"},
        {"path": "b.mp4", "verdict": "bad", "reason": "truncated"},
        {"path": "c.mp4"},
        {"path": "d.mp4", "verdict": "bad", "reason": "black"},
        {"path": "e.mp4", "verdict": "needs-transcode"},
    )
    with caplog.at_level(logging.WARNING):
        assert [file.name for file in list_videos(manifest)] == ["a.mp4", "c.mp4"]
    assert [record.message for record in caplog.records] == [
        f"{manifest}: 3 of 5 entries left out: 1 needs-transcode (the first: e.mp4: no reason given), "
        "2 bad (the first: b.mp4: truncated)"
    ]


def test_a_manifest_without_a_usable_entry_is_an_error_that_says_why(manifest: Path) -> None:
    write_lines(manifest, {"path": "b.mp4", "verdict": "bad", "reason": "truncated"})
    with pytest.raises(ValueError, match=r"no entry is 'ok' of 1: 1 bad \(the first: b\.mp4: truncated\)"):
        list_videos(manifest)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": 3}', 'expected an object with a "path"'),
        ('["a.mp4"]', 'expected an object with a "path"'),
        ('{"path": " "}', "can be no path"),
        ('{"path": "a\\u0000.mp4"}', "can be no path"),
        ('{"path": "\\ud800.mp4"}', "can be no path"),
        ('{"path": "a.mp4", "verdict": "OK"}', "verdict='OK' is unknown; known: ok, needs-transcode, bad"),
        ('{"path": "a.mp4", "caption": ["cat"]}', r"caption=\['cat'\] is no text"),
        ('{"path": "a.mp4", "caption": "\\udc80"}', "is no text in Unicode"),
        ('{"path": "a.mp4", "first_frame": -1}', "first_frame=-1 must be a whole number from 0"),
        ('{"path": "a.mp4", "end_frame": 2.0}', "end_frame=2.0 must be a whole number"),
        ('{"path": "a.mp4", "end_frame": true}', "end_frame=True must be a whole number"),
        ('{"path": "a.mp4", "end_frame": "9"}', "end_frame='9' must be a whole number"),
        ('{"path": "a.mp4", "end_frame": 0}', "first_frame=0 must be less than end_frame=0"),
        ('{"path": "a.mp4", "first_frame": 5, "end_frame": 5}', "first_frame=5 must be less than end_frame=5"),
        ('{"path": "a.mp4"', "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_malformed_line_is_named_with_its_manifest(manifest: Path, line: str, message: str) -> None:
    manifest.write_text(f'{{"path": "good.mp4"}}\n\n{line}\n')
    with pytest.raises(ValueError, match=rf"videos\.jsonl, line 3: .*{message}"):
        list_videos(manifest)


def test_text_that_is_not_utf_8_is_an_error_that_names_the_manifest(manifest: Path) -> None:
    manifest.write_bytes(b'{"path": "caf\xe9.mp4"}\n')
    with pytest.raises(ValueError, match=r"videos\.jsonl: not a text in UTF-8"):
        list_videos(manifest)


@pytest.mark.parametrize(
    "second",
    [
        {"path": "a.mp4", "first_frame": 99, "end_frame": 120},
        {"path": "./a.mp4"},
        {"path": "b/../a.mp4", "end_frame": 11},
    ],
)
def test_entries_that_share_frames_are_refused(manifest: Path, second: dict[str, object]) -> None:
    first = {"path": "a.mp4", "first_frame": 10, "end_frame": 100}
    with pytest.raises(ValueError, match=r"lists a video twice: 'a\.mp4' in line 1 and, .* in line 2"):
        list_videos(write_lines(manifest, first, second))
    assert len(list_videos(write_lines(manifest, first, {"path": "a.mp4", "first_frame": 100}))) == 2


def test_what_was_written_reads_back_equal(manifest: Path) -> None:
    entries = [
        {"path": "ü/x.mp4", "verdict": "ok", "caption": "two\u2028lines\nand more", "sha256": "ab", "score": [1, None]},
        {"path": os.fsdecode(b"no-utf8-\xff.mp4"), "first_frame": 3, "end_frame": 9},
        {"path": "z.mp4", "verdict": "bad", "reason": "black"},
    ]
    write_manifest(manifest, iter(entries))
    assert read_manifest(manifest) == entries
    assert manifest.read_text(encoding="utf-8").count("\n") == 3
    assert "ü/x.mp4" in manifest.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"path": "a.mp4"}, {"path": "b.mp4", "end_frame": -3}], r"line 2: end_frame=-3 must be"),
        ([{"path": "a.mp4"}, {"path": "a.mp4"}], "lists a video twice"),
        ([{"path": "a.mp4", "fps": float("nan")}], r"line 1: cannot be written as JSON"),
        ([{"path": "a.mp4", "size": {1, 2}}], r"line 1: cannot be written as JSON"),
    ],
)
def test_entries_that_could_not_be_read_back_are_refused_and_the_old_manifest_stays(
    manifest: Path, entries: list[dict[str, object]], message: str
) -> None:
    write_manifest(manifest, [{"path": "old.mp4"}])
    with pytest.raises(ValueError, match=message):
        write_manifest(manifest, entries)
    assert read_manifest(manifest) == [{"path": "old.mp4"}]


def test_a_write_that_fails_leaves_the_old_manifest_whole_and_nothing_else(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(manifest, [{"path": "old.mp4"}])

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_manifest(manifest, [{"path": "new.mp4"}])
    assert read_manifest(manifest) == [{"path": "old.mp4"}]
    assert list(manifest.parent.iterdir()) == [manifest]


def test_a_manifest_is_written_as_jsonl_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name it videos\.jsonl"):
        write_manifest(tmp_path / "videos.csv", [{"path": "a.mp4"}])
