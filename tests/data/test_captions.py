"""Captions from sidecar files, manifests and folder names, down to the batch."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from video_mirai.data.batch_stream import BatchStream, LoaderConfig
from video_mirai.data.captions import with_captions
from video_mirai.data.loader import EpochSampler
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_list import VideoFile, list_videos, write_manifest

MakeVideo = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files that are no videos: captions are read without opening any."""
    for name in ("playing_guitar/a.mp4", "playing_guitar/b.mp4", "run/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"video")
    return tmp_path


def captions_of(root: Path, captions: str) -> list[str | None]:
    return [file.caption for file in with_captions(list_videos(root), captions)]


def test_a_sidecar_is_the_stripped_text_or_else_the_json_s_caption(root: Path) -> None:
    (root / "playing_guitar/a.txt").write_text("  a man plays\nthe guitar \n", encoding="utf-8")
    (root / "playing_guitar/a.json").write_text('{"caption": "not this one"}')
    (root / "playing_guitar/b.json").write_text('{"caption": "ein Bär", "views": 3}', encoding="utf-8")
    (root / "run/c.txt").write_bytes(b"\xef\xbb\xbfshe runs")
    assert captions_of(root, "sidecar") == ["a man plays\nthe guitar", "ein Bär", "she runs"]


def test_a_manifest_s_caption_belongs_to_its_piece(root: Path) -> None:
    pieces = [
        {"path": "run/c.mp4", "first_frame": 0, "end_frame": 9, "caption": "she runs"},
        {"path": "run/c.mp4", "first_frame": 9, "end_frame": 20, "caption": "she stops"},
    ]
    write_manifest(root / "videos.jsonl", pieces)
    assert captions_of(root / "videos.jsonl", "manifest") == ["she runs", "she stops"]


def test_a_folder_s_name_is_read_with_spaces(root: Path) -> None:
    assert captions_of(root, "folder") == ["playing guitar", "playing guitar", "run"]


def test_none_gives_no_captions_though_the_manifest_has_them(root: Path) -> None:
    write_manifest(root / "videos.jsonl", [{"path": "run/c.mp4", "caption": "she runs"}])
    assert captions_of(root / "videos.jsonl", "none") == [None]


@pytest.mark.parametrize("captions", ["sidecar", "manifest"])
def test_missing_captions_are_counted_and_the_first_named(root: Path, captions: str) -> None:
    (root / "playing_guitar/a.txt").write_text("a man")
    (root / "playing_guitar/b.txt").write_text("  \n")
    (root / "run/c.json").write_text('{"text": "no caption"}')
    entries = [{"path": file.source} for file in list_videos(root)]
    write_manifest(root / "videos.jsonl", [{**entries[0], "caption": "a man"}, *entries[1:]])
    message = rf"captions='{captions}', but 2 of 3 videos have no caption .*the first: \S*b\.mp4"
    with pytest.raises(ValueError, match=message):
        captions_of(root / "videos.jsonl", captions)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.json", b'{"caption": 3}'),
        ("c.json", b"she runs"),
        ("c.json", b"[" * 100_000),
        ("c.txt", b"\xff\xfe\xfa"),
    ],
)
def test_a_damaged_sidecar_is_an_error_that_names_it(root: Path, name: str, content: bytes) -> None:
    (root / "run" / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        with_captions([VideoFile(root / "run/c.mp4", "run/c.mp4", "run/c.mp4")], "sidecar")


def test_an_unknown_setting_names_the_known_ones(root: Path) -> None:
    for call in (lambda: captions_of(root, "whisper"), lambda: VideoFolder(root, captions="whisper")):
        with pytest.raises(ValueError, match=r"captions='whisper' is unknown; known: none, sidecar, manifest, folder"):
            call()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_has_the_caption_of_each_of_its_clips(make_video: MakeVideo, num_workers: int) -> None:
    pytest.importorskip("decord")
    for name in ("a", "b", "c"):
        path = make_video(f"videos/{name}.mp4")
        path.with_suffix(".json").write_text(json.dumps({"caption": f"this is {name}"}))
    dataset = VideoFolder(path.parent, 4, height=16, width=32, split="all", captions="sidecar")
    with BatchStream(dataset, EpochSampler(3, 3, seed=0), LoaderConfig(num_workers=num_workers)) as batches:
        batch = next(batches)
    assert batch["caption"] == [f"this is {name[0]}" for name in batch["name"]]
    assert "caption" not in VideoFolder(path.parent, 4, height=16, width=32, split="all")[0]
