import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from video_kinds import NUM_FRAMES, damage, truncate, write_kind

import check_videos
from isolated_pool import Outcome, run_isolated
from video_mirai.data.video_list import list_videos

pytest.importorskip("decord")

Manifest = dict[str, dict[str, Any]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files are checked in this process, which is faster; the names of those checked so far."""
    checked: list[str] = []

    def run_here(
        function: Callable[[Any], Any], inputs: Iterable[Any], processes: int, timeout_seconds: float
    ) -> Iterator[Outcome]:
        for number, task in enumerate(inputs):
            checked.append(task.path.name)
            yield Outcome(number, function(task), "")

    monkeypatch.setattr(check_videos, "run_isolated", run_here)
    return checked


def check(tmp_path: Path, *options: str, videos: str = "videos", out: str = "checked.jsonl") -> int:
    return check_videos.main(["--videos", str(tmp_path / videos), "--out", str(tmp_path / out), *options])


def manifest(tmp_path: Path, out: str = "checked.jsonl") -> Manifest:
    lines = (tmp_path / out).read_text(encoding="utf-8").splitlines()
    return {entry["path"]: entry for entry in map(json.loads, lines)}


def test_a_folder_of_all_sorts_is_checked_rewritten_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    write_kind(videos, "plain.mp4")
    original = write_kind(videos / "deeper", "b_frames.ts").read_bytes()
    truncate(write_kind(videos, "late.mkv"), 0.5)
    damage(write_kind(videos, "b_frames.mp4"))
    (videos / "zero.mp4").write_bytes(b"")
    (videos / "note.txt").write_text("no video")
    (videos / "gone.mp4").symlink_to(videos / "nowhere.mp4")
    assert check(tmp_path, "--processes", "1", "--transcode", str(tmp_path / "rewritten")) == 0
    entries = manifest(tmp_path)
    assert list(entries) == [
        "videos/b_frames.mp4",
        "rewritten/deeper/b_frames.mp4",
        "videos/gone.mp4",
        "videos/late.mkv",
        "videos/plain.mp4",
        "videos/zero.mp4",
    ]
    plain = entries["videos/plain.mp4"]
    expected = {
        "verdict": "ok",
        "frames": NUM_FRAMES,
        "fps": 10,
        "width": 96,
        "height": 64,
        "codec": "h264",
        "duration": 4,
    }
    assert expected.items() <= plain.items() and len(plain["sha256"]) == 64 and "reason" not in plain
    rewritten = entries["rewritten/deeper/b_frames.mp4"]
    assert expected.items() <= rewritten.items()
    assert rewritten["transcoded_from"] == "videos/deeper/b_frames.ts"
    assert rewritten["transcoded_because"].startswith("random access: gives frame")
    assert (videos / "deeper" / "b_frames.ts").read_bytes() == original
    reasons = {path: entry["reason"].split(":")[0] for path, entry in entries.items() if entry["verdict"] == "bad"}
    assert reasons == {
        "videos/b_frames.mp4": "damaged",
        "videos/gone.mp4": "unreadable",
        "videos/late.mkv": "truncated",
        "videos/zero.mp4": "empty",
    }
    said = capsys.readouterr().out
    assert "6 videos, 2 ok, 1 of them rewritten, 0 need transcoding, 4 bad; 0 had not changed" in said
    assert "not listed, since the suffix is no video's: .txt 1" in said
    assert "next: python data_tools/split_scenes.py --videos" in said
    assert [file.source for file in list_videos(tmp_path / "checked.jsonl")] == [
        "rewritten/deeper/b_frames.mp4",
        "videos/plain.mp4",
    ]


def test_a_second_run_checks_only_what_has_changed(
    tmp_path: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("plain.mp4", "vp9.webm", "edit_list.mp4"):
        write_kind(tmp_path / "videos", kind)
    (tmp_path / "videos" / "whole" / "b_frames.mp4").unlink()
    transcode = ("--transcode", str(tmp_path / "rewritten"))
    assert check(tmp_path) == 0
    first = manifest(tmp_path)
    assert first["videos/edit_list.mp4"]["verdict"] == "needs-transcode"
    assert "to rewrite those that need it: python data_tools/check_videos.py" in capsys.readouterr().out
    here.clear()
    assert check(tmp_path, *transcode) == 0
    assert here == ["edit_list.mp4"]
    second = manifest(tmp_path)
    assert second["rewritten/edit_list.mp4"]["frames"] == NUM_FRAMES - 16
    here.clear()
    assert check(tmp_path, *transcode) == 0 and check(tmp_path) == 0
    assert here == [] and manifest(tmp_path) == second
    assert "3 had not changed since an earlier check" in capsys.readouterr().out
    # A new time alone costs a checksum; other bytes, another reader or a lost rewritten file cost a check.
    os.utime(tmp_path / "videos" / "plain.mp4", (1, 1))
    truncate(tmp_path / "videos" / "vp9.webm", 0.5)
    (tmp_path / "rewritten" / "edit_list.mp4").unlink()
    assert check(tmp_path, *transcode) == 0
    assert sorted(here) == ["edit_list.mp4", "plain.mp4", "vp9.webm"]
    assert "1 had not changed since an earlier check" in capsys.readouterr().out
    third = manifest(tmp_path)
    assert third["videos/plain.mp4"] == {**second["videos/plain.mp4"], "modified": 10**9}
    assert third["videos/vp9.webm"]["verdict"] == "bad"
    assert (tmp_path / "rewritten" / "edit_list.mp4").exists()
    here.clear()
    assert check(tmp_path, "--backend", "pyav") == 0
    assert sorted(here) == ["edit_list.mp4", "plain.mp4", "vp9.webm"]


def test_an_interrupted_check_goes_on_where_it_was(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        os.replace(write_kind(tmp_path / "videos", "plain.mp4"), tmp_path / "videos" / f"{name}.mp4")
    inspect = check_videos.inspect

    def interrupted(task: Any) -> Any:
        if task.path.name == "c.mp4":
            raise KeyboardInterrupt
        return inspect(task)

    monkeypatch.setattr(check_videos, "inspect", interrupted)
    assert check(tmp_path) == 130
    assert "interrupted; run the same command again to go on" in capsys.readouterr().err
    assert not (tmp_path / "checked.jsonl").exists()
    monkeypatch.setattr(check_videos, "inspect", inspect)
    here.clear()
    assert check(tmp_path) == 0
    assert here == ["c.mp4"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["checked.jsonl"]
    assert len(manifest(tmp_path)) == 3


def test_a_file_whose_check_crashes_or_hangs_is_bad_and_checked_again_next_time(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kind(tmp_path / "videos", "plain.mp4")
    run_here = check_videos.run_isolated
    crash = Outcome(0, None, "crashed: the decoder ended its process (SIGSEGV)")
    monkeypatch.setattr(check_videos, "run_isolated", lambda *_: iter([crash]))
    assert check(tmp_path) == 0
    entry = manifest(tmp_path)["videos/plain.mp4"]
    assert (entry["verdict"], entry["reason"]) == ("bad", crash.failure)
    monkeypatch.setattr(check_videos, "run_isolated", run_here)
    assert check(tmp_path) == 0
    assert manifest(tmp_path)["videos/plain.mp4"]["verdict"] == "ok"


def test_a_process_that_dies_or_hangs_costs_its_own_input_only() -> None:
    inputs = ["1 + 1", "__import__('os').abort()", "__import__('time').sleep(600)", "1 / 0", "'last'"]
    outcomes = sorted(run_isolated(eval, inputs, processes=2, timeout_seconds=2))
    assert outcomes == [
        (0, 2, ""),
        (1, None, "crashed: the decoder ended its process (SIGABRT)"),
        (2, None, "too slow: not done after 2 s"),
        (3, None, "failed: ZeroDivisionError: division by zero"),
        (4, "last", ""),
    ]


def test_what_a_manifest_says_besides_is_kept(tmp_path: Path, here: list[str]) -> None:
    write_kind(tmp_path / "videos", "plain.mp4")
    write_kind(tmp_path / "videos", "mpeg4.avi")
    given = [
        {"path": "videos/plain.mp4", "first_frame": 0, "end_frame": 9, "caption": "the start", "sha256": "old"},
        {"path": "videos/plain.mp4", "first_frame": 9, "end_frame": 20, "verdict": "bad", "reason": "black"},
        {"path": "videos/mpeg4.avi", "first_frame": 5, "end_frame": 20, "licence": "CC0"},
    ]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in given))
    arguments = ["--videos", str(tmp_path / "shots.jsonl"), "--out", str(tmp_path / "below" / "checked.jsonl")]
    assert check_videos.main([*arguments, "--transcode", str(tmp_path / "rewritten")]) == 0
    assert here == ["plain.mp4", "mpeg4.avi"]  # each file once
    lines = (tmp_path / "below" / "checked.jsonl").read_text().splitlines()
    start, black, cut = map(json.loads, lines)
    assert start["path"] == black["path"] == "../videos/plain.mp4"
    assert (start["caption"], start["end_frame"], start["verdict"]) == ("the start", 9, "ok")
    assert (black["first_frame"], black["verdict"], black["reason"]) == (9, "bad", "black")
    assert (cut["path"], cut["first_frame"], cut["licence"]) == ("../rewritten/videos/mpeg4.mp4", 5, "CC0")
    assert start["sha256"] != "old"


def test_files_that_differ_in_their_suffix_alone_are_rewritten_side_by_side(tmp_path: Path, here: list[str]) -> None:
    for kind in ("open_gop.mp4", "open_gop.mkv"):
        write_kind(tmp_path / "videos", kind)
    assert check(tmp_path, "--transcode", str(tmp_path / "rewritten")) == 0
    assert list(manifest(tmp_path)) == ["rewritten/open_gop.mkv.mp4", "rewritten/open_gop.mp4.mp4"]


def test_a_file_that_cannot_be_rewritten_keeps_its_entry(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kind(tmp_path / "videos", "mpeg4.avi")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    assert check(tmp_path, "--transcode", str(tmp_path / "rewritten")) == 0
    entry = manifest(tmp_path)["videos/mpeg4.avi"]
    assert entry["verdict"] == "needs-transcode"
    assert entry["reason"].endswith("; rewriting failed: ffmpeg failed (exit code 1)")
    assert not list((tmp_path / "rewritten").rglob("*.mp4"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "--processes must be at least 1, got 0"),
        (["--timeout", "-1"], "--timeout must be more than 0 seconds"),
        (["--out", "checked.txt"], "ends in .jsonl"),
        (["--videos", "nowhere"], "no such folder or manifest"),
        (["--videos", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--transcode", "videos/rewritten"], "is inside --videos"),
        (["--out", "mine.jsonl"], "was not written by check_videos"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "zero.mp4").write_bytes(b"")
    mine = '{"path": "videos/zero.mp4", "caption": "mine"}\n'
    (tmp_path / "mine.jsonl").write_text(mine)
    assert check_videos.main(["--videos", "videos", "--out", "checked.jsonl", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "checked.jsonl").exists()
    assert (tmp_path / "mine.jsonl").read_text() == mine


def test_an_original_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "open.mp4").write_bytes(b"mine")
    (tmp_path / "list.txt").write_text("open.mp4\n")
    assert check(tmp_path, "--transcode", str(tmp_path), videos="list.txt") == 2
    assert "would overwrite the original" in capsys.readouterr().err
    assert (tmp_path / "open.mp4").read_bytes() == b"mine"


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        check_videos.main(["--help"])
    assert stop.value.code == 0
    assert "Example:" in capsys.readouterr().out
