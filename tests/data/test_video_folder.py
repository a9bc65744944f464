import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from video_kinds import HEIGHT, WIDTH, damage, write_kind
from video_kinds import numbers as bar_codes

from video_mirai.data import pyav_video, video_folder
from video_mirai.data.batch import ClipKey, VideoBatch
from video_mirai.data.batch_stream import BatchStream, LoaderConfig
from video_mirai.data.clip_dataset import TooManyBadItems
from video_mirai.data.loader import EpochSampler, collate_clips
from video_mirai.data.video_folder import VideoFolder, clip_indices, count_starts
from video_mirai.data.video_list import list_videos, split_of, write_manifest
from video_mirai.data.video_reader import UnreadableVideo

MakeVideo = Callable[..., Path]
FrameNumbers = Callable[[np.ndarray], list[int]]

pytest.importorskip("decord")

REASONS = {
    "text": "not a readable video",
    "zero bytes": "0 bytes",
    "truncated": "not a readable video",
    "too short": r"too short \(2 frames",
    "corrupt in the middle": "decoding failed",
    "missing": "no such file",
}
SEED_WITH_ALL_SPLITS = 0  # six files are few


@pytest.fixture
def numbers(frame_numbers: FrameNumbers) -> Callable[[VideoFolder, int | ClipKey], list[int]]:
    """The frames of its file that a clip shows."""

    def read(dataset: VideoFolder, key: int | ClipKey) -> list[int]:
        return frame_numbers((dataset[key]["video"].numpy() + 1) * 127.5)

    return read


@pytest.fixture
def folder(make_video: MakeVideo) -> Path:
    """Six short videos."""
    videos = [make_video(f"videos/sub{i % 2}/{i}.mp4", num_frames=12) for i in range(6)]
    return videos[0].parents[1]


def open_folder(root: Path, num_frames: int = 4, **settings: object) -> VideoFolder:
    return VideoFolder(root, num_frames, **{"height": 16, "width": 32, "split": "all", **settings})


def error_of(loader: Iterable[VideoBatch], kind: type[Exception]) -> str:
    """Message of the error that 20 batches end with."""
    try:
        list(islice(loader, 20))
    except kind as error:
        # An iterator that only the garbage collector ends waits 5 s for each worker, and pytest.raises would keep it.
        traceback.clear_frames(error.__traceback__)
        return str(error)
    raise AssertionError("20 batches without an error")


def spoil(root: Path, name: str = "sub0/bad.mp4") -> Path:
    (root / name).write_bytes(b"not a video")
    return root / name


def test_a_clip_is_float_from_minus_one_to_one(make_video: MakeVideo) -> None:
    clip = open_folder(make_video(num_frames=64).parent, 64, height=8, width=8)[0]
    assert clip["video"].shape == (64, 3, 8, 8)
    assert clip["video"].dtype == torch.float32
    assert clip["video"].is_contiguous()
    assert clip["video"].amin() == pytest.approx(-1, abs=0.02)
    assert clip["video"][-1].mean() == pytest.approx(63 * 4 / 127.5 - 1, abs=0.02)
    assert (clip["name"], clip["index"]) == ("clip.mp4", 0)


def test_without_fps_a_clip_is_consecutive_frames(make_video: MakeVideo, numbers: Callable[..., list[int]]) -> None:
    dataset = open_folder(make_video(fps=12).parent)
    assert dataset.fps == pytest.approx(12)
    for epoch in range(5):
        shown = numbers(dataset, ClipKey(epoch, 0))
        assert shown == list(range(shown[0], shown[0] + 4))


@pytest.mark.parametrize(
    ("fps", "expected"), [(5, [0, 2, 4, 6]), (3, [0, 3, 7, 10]), (30, [0, 0, 1, 1]), (10, [0, 1, 2, 3])]
)
def test_resampling_takes_the_frames_nearest_in_time(
    make_video: MakeVideo, numbers: Callable[..., list[int]], fps: float, expected: list[int]
) -> None:
    dataset = open_folder(make_video(fps=10).parent, fps=fps, stride_seconds=100)
    assert dataset.fps == fps
    assert numbers(dataset, 0) == expected


def test_resampling_follows_timestamps_where_the_rate_varies() -> None:
    timestamps = np.array([0, 0.1, 0.2, 1.0, 1.1, 1.2, 2.0])
    assert clip_indices(timestamps, 0, 3, fps=1) == [0, 3, 6]
    assert clip_indices(timestamps, 1, 2, fps=1) == [1, 4]


@pytest.mark.parametrize(
    ("piece", "starts"),
    [
        ({}, {0, 12, 24, 36}),
        ({"first_frame": 5, "end_frame": 28}, {12, 24}),
        ({"first_frame": 24, "end_frame": 39}, {24}),  # the last key frame has no four frames left
        ({"first_frame": 13, "end_frame": 18}, {13, 14}),  # no key frame at all
    ],
)
def test_random_clips_start_at_key_frames_where_asked_to(
    tmp_path: Path, piece: dict[str, int], starts: set[int]
) -> None:
    path = write_kind(tmp_path, "plain.mp4")
    write_manifest(tmp_path / "list.jsonl", [{"path": path.name, **piece}])
    settings = {"height": HEIGHT, "width": WIDTH, "split": "all", "random_starts": "key_frames"}
    dataset = VideoFolder(tmp_path / "list.jsonl", 4, **settings)
    found = set()
    for epoch in range(40):
        pictures = ((dataset[ClipKey(epoch, 0)]["video"] + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
        shown = bar_codes(pictures)
        assert shown == list(range(shown[0], shown[0] + 4))
        found.add(shown[0])
    assert found == starts


def test_pieces_listed_with_fewer_frames_than_a_clip_are_left_out_and_said(
    make_video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_video()
    manifest = path.parent / "list.jsonl"
    ranges = [(0, 3), (3, 7), (7, None)]
    write_manifest(manifest, [{"path": path.name, "first_frame": first, "end_frame": end} for first, end in ranges])
    with caplog.at_level(logging.WARNING):
        dataset = open_folder(manifest, on_bad="raise")
    assert [dataset[index]["name"] for index in range(len(dataset))] == ["clip.mp4#3-7", "clip.mp4#7-"]
    assert "1 of 3 pieces are shorter than 4 frames and left out" in caplog.text
    write_manifest(manifest, [{"path": path.name, "first_frame": 0, "end_frame": 3}])
    with pytest.raises(ValueError, match="all 1 pieces are shorter than 4 frames"):
        open_folder(manifest)


def test_random_clips_reach_both_ends_of_the_file(make_video: MakeVideo, numbers: Callable[..., list[int]]) -> None:
    dataset = open_folder(make_video(num_frames=6).parent)
    starts = {numbers(dataset, ClipKey(epoch, 0))[0] for epoch in range(25)}
    assert starts == {0, 1, 2}


def test_the_last_start_leaves_a_whole_clip() -> None:
    timestamps = np.arange(30) / 30
    assert count_starts(timestamps, 30, fps=None) == 1
    assert count_starts(timestamps, 30, fps=30) == 1
    assert count_starts(timestamps, 31, fps=30) == 0
    last = count_starts(timestamps, 4, fps=10) - 1
    assert clip_indices(timestamps, last, 4, fps=10)[-1] == 29


def test_evaluation_clips_are_evenly_spaced_and_the_same_in_every_epoch(
    make_video: MakeVideo, numbers: Callable[..., list[int]]
) -> None:
    root = make_video(num_frames=30).parent
    dataset = open_folder(root, 3, split="val", val_fraction=0.99, test_fraction=0, clips_per_video=2)
    assert [numbers(dataset, index)[0] for index in range(2)] == [7, 21]
    assert numbers(dataset, ClipKey(5, 1)) == numbers(dataset, 1)


def test_sliding_clips_start_every_stride(make_video: MakeVideo, numbers: Callable[..., list[int]]) -> None:
    dataset = open_folder(make_video(num_frames=30, fps=10).parent, 10, stride_seconds=0.5)
    assert [numbers(dataset, index)[0] for index in range(len(dataset))] == [0, 5, 10, 15, 20]


def test_a_clip_depends_only_on_seed_epoch_and_index(folder: Path) -> None:
    first, again, other = (open_folder(folder, seed=seed) for seed in (1, 1, 2))
    keys = [ClipKey(epoch, index) for epoch in range(3) for index in range(6)]
    assert all(torch.equal(first[key]["video"], again[key]["video"]) for key in keys)
    assert any(not torch.equal(first[key]["video"], other[key]["video"]) for key in keys)
    assert any(not torch.equal(first[ClipKey(0, i)]["video"], first[ClipKey(1, i)]["video"]) for i in range(6))
    assert torch.equal(first[3]["video"], first[ClipKey(0, 3)]["video"])


def test_batches_do_not_depend_on_the_number_of_workers_even_with_a_bad_file(folder: Path) -> None:
    spoil(folder)
    runs = []
    for num_workers in (0, 2):
        dataset = open_folder(folder, max_bad_fraction=0.5)
        sampler = EpochSampler(len(dataset), 3, seed=0)
        with BatchStream(dataset, sampler, LoaderConfig(num_workers=num_workers)) as stream:
            runs.append(list(islice(stream, 6)))
    for alone, shared in zip(*runs, strict=True):
        assert alone["name"] == shared["name"]
        assert torch.equal(alone["video"], shared["video"])


def place_of_three(root: Path, num_frames: int = 4, **settings: object) -> VideoFolder:
    """A data set of which each place has three clips."""
    return open_folder(root, num_frames, **{"clips_per_video": 3, "clips_per_place": 3, **settings})


def test_one_clip_a_place_starts_where_seed_epoch_and_index_say(
    make_video: MakeVideo, numbers: Callable[..., list[int]]
) -> None:
    dataset = open_folder(make_video().parent, seed=7, clips_per_video=2)
    for key in (ClipKey(0, 0), ClipKey(0, 1), ClipKey(3, 1)):
        assert numbers(dataset, key)[0] == np.random.default_rng([7, *key, 0]).integers(27)


@pytest.mark.parametrize(("fps", "num_frames", "step", "last"), [(None, 8, 1, 6), (5, 4, 2, 7)])
def test_the_clips_of_a_place_follow_each_other_and_reach_both_ends(
    make_video: MakeVideo, frame_numbers: FrameNumbers, fps: float | None, num_frames: int, step: int, last: int
) -> None:
    folder = make_video(num_frames=30, fps=10).parent
    dataset = place_of_three(folder, num_frames, fps=fps, backend="pyav")
    firsts = set()
    for epoch in range(30):
        clips = torch.cat([clip["video"] for clip in dataset.__getitems__([ClipKey(epoch, i) for i in range(3)])])
        shown = frame_numbers((clips.numpy() + 1) * 127.5)
        assert shown == list(range(shown[0], shown[0] + 3 * num_frames * step, step))
        firsts.add(shown[0])
    assert (min(firsts), max(firsts)) == (0, last)


def test_in_a_video_too_short_for_a_place_its_clips_overlap_from_end_to_end(
    make_video: MakeVideo, numbers: Callable[..., list[int]]
) -> None:
    dataset = place_of_three(make_video(num_frames=9).parent)
    assert [numbers(dataset, index) for index in range(3)] == [[0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 7, 8]]


def test_places_are_at_key_frames_where_asked_to(make_video: MakeVideo, numbers: Callable[..., list[int]]) -> None:
    dataset = place_of_three(make_video(num_frames=30).parent, random_starts="key_frames", backend="pyav")
    assert {numbers(dataset, ClipKey(epoch, 0))[0] for epoch in range(12)} == {0, 8, 16}  # from 24 on there is no room


def test_a_place_is_decoded_in_one_go(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    packets = pyav_video._PyavVideo._packets
    monkeypatch.setattr(
        pyav_video._PyavVideo, "_packets", lambda self, start: starts.append(start.frame) or packets(self, start)
    )
    dataset = place_of_three(make_video(num_frames=30).parent, backend="pyav")
    starts.clear()
    clips = dataset.__getitems__([ClipKey(0, 0), ClipKey(0, 1), ClipKey(0, 2)])
    assert len(starts) == 1
    for index, clip in enumerate(clips):
        assert clip["index"] == index
        assert torch.equal(clip["video"], dataset[index]["video"])


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_batches_of_places_depend_neither_on_workers_nor_on_reading_clips_together(
    folder: Path, make_video: MakeVideo, backend: str
) -> None:
    spoil(folder)
    damage(make_video("videos/half.mp4", num_frames=60), 0.7)  # some of its clips can be read
    settings = {"max_bad_fraction": 0.5, "captions": "folder", "backend": backend}
    runs = []
    for num_workers in (0, 2):
        dataset = place_of_three(folder, **settings)
        sampler = EpochSampler(len(dataset), 6, seed=0, clips_per_place=3)
        with BatchStream(dataset, sampler, LoaderConfig(num_workers=num_workers)) as stream:
            runs.append(list(islice(stream, 8)))
    alone = place_of_three(folder, **settings)
    single = [collate_clips([alone[key] for key in keys]) for keys in islice(sampler, 8)]
    for one_by_one, *others in zip(single, *runs, strict=True):
        for batch in others:
            assert batch["name"] == one_by_one["name"]
            assert batch["caption"] == one_by_one["caption"]
            assert torch.equal(batch["index"], one_by_one["index"])
            assert torch.equal(batch["video"], one_by_one["video"])
    assert any(len(set(batch["name"])) > 2 for batch in single)  # one clip of a place was replaced, others not


def test_evaluation_has_one_clip_a_place(folder: Path) -> None:
    settings = {"split": "val", "val_fraction": 0.9, "test_fraction": 0, "clips_per_video": 2}
    plain, placed = (open_folder(folder, clips_per_place=number, **settings) for number in (1, 3))
    assert placed.clips_per_place == 1
    assert placed.places == plain.places


def test_every_file_is_in_one_split_and_adding_files_moves_none(tmp_path: Path) -> None:
    names = [f"videos/{i}.mp4" for i in range(200)]

    def splits(present: list[str]) -> dict[str, str]:
        return {name: split_of(name, 0, 0.2, 0.1) for name in present}

    before, after = splits(names[::2]), splits(names)
    assert all(after[name] == split for name, split in before.items())
    counts = [list(after.values()).count(split) for split in ("train", "val", "test")]
    assert np.abs(np.array(counts) - [140, 40, 20]).max() < 20
    assert after != {name: split_of(name, 1, 0.2, 0.1) for name in names}


def test_the_splits_of_a_folder_share_no_video(folder: Path) -> None:
    parts = [
        open_folder(folder, split=split, val_fraction=0.4, test_fraction=0.2, seed=SEED_WITH_ALL_SPLITS)
        for split in ("train", "val", "test")
    ]
    names = [file.name for part in parts for file in part.files]
    assert sorted(names) == [file.name for file in open_folder(folder).files]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_manifest_gives_the_same_clips_as_its_folder(folder: Path, suffix: str) -> None:
    names = [file.name for file in open_folder(folder).files]
    lines = (
        ["# chosen by hand", "", *names] if suffix == ".txt" else [f'{{"path": "{name}", "note": 1}}' for name in names]
    )
    manifest = folder / f"list{suffix}"
    manifest.write_text("\n".join(lines))
    listed, found = open_folder(manifest), open_folder(folder)
    assert [listed[i]["name"] for i in range(6)] == names
    assert torch.equal(listed[4]["video"], found[4]["video"])


def test_an_unusable_root_is_an_error_that_names_it(tmp_path: Path, make_video: MakeVideo) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such folder"):
        open_folder(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.mp4").write_bytes(b"partial")
    with pytest.raises(ValueError, match="empty: no videos in this folder"):
        open_folder(tmp_path / "empty")
    with pytest.raises(ValueError, match="neither a folder nor a manifest"):
        open_folder(make_video())
    for name, text, message in (
        ("a.txt", "# nothing\n", "lists no videos"),
        ("b.txt", "x.mp4\nx.mp4\n", "lists a video twice"),
        ("c.jsonl", '{"path": "x.mp4"}\nx.mp4\n', "line 2: not JSON"),
        ("d.jsonl", '{"file": "x.mp4"}\n', 'line 1: expected an object with a "path"'),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            list_videos(tmp_path / name)


def test_an_empty_split_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"split 'test' is empty \(of 6 videos"):
        open_folder(folder, split="test", test_fraction=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "valid"}, "known: train, val, test, all"),
        ({"random_starts": "somewhere"}, "known: any, key_frames"),
        ({"on_bad": "ignore"}, "known: skip, raise"),
        ({"fps": 0}, "fps=0 must be positive"),
        ({"stride_seconds": -1}, "stride_seconds=-1 must be positive"),
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"clips_per_place": 0}, "clips_per_place=0 must be at least 1"),
        ({"clips_per_place": 2}, "clips_per_video=1 is not a multiple of clips_per_place=2"),
        ({"clips_per_place": 2, "stride_seconds": 1}, "leave out either it or stride_seconds"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "leave something to train on"),
        ({"max_bad_fraction": 2}, "from 0 to 1"),
        ({"backend": "vhs"}, "known: decord, pyav"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_a_setting_that_cannot_be_is_named(folder: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_folder(folder, **settings)


def test_with_a_frame_rate_given_construction_opens_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(video_folder, "open_video")
    monkeypatch.delattr(video_folder, "probe")
    assert len(open_folder(folder, fps=10, clips_per_video=3)) == 18


@pytest.mark.parametrize("kind", REASONS)
def test_training_skips_and_counts_a_bad_file_and_evaluation_refuses_it(
    folder: Path, make_video: MakeVideo, make_corrupt_video: MakeVideo, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    bad = folder / "sub0" / "bad.mp4"
    content = (folder / "sub0" / "0.mp4").read_bytes()
    if kind == "corrupt in the middle":
        make_corrupt_video("videos/sub0/bad.mp4")
    elif kind == "too short":
        make_video("videos/sub0/bad.mp4", num_frames=2)
    elif kind != "missing":
        bad.write_bytes({"text": b"words " * 99, "zero bytes": b"", "truncated": content[: len(content) // 2]}[kind])
    root = folder / "list.txt"
    root.write_text(
        "\n".join(["sub0/bad.mp4", *(file.name for file in open_folder(folder).files if "bad" not in file.name)])
    )
    before = bad.read_bytes() if bad.exists() else b""

    settings = {"fps": 10, "num_frames": 10}
    training = open_folder(root, on_bad="skip", max_bad_fraction=0.2, **settings)
    index = [file.name for file in training.files].index("sub0/bad.mp4")
    with caplog.at_level(logging.WARNING):
        clips = [training[ClipKey(epoch, index)] for epoch in range(3)]
    assert all(clip["name"] != "sub0/bad.mp4" and clip["index"] == index for clip in clips)
    assert list(training.bad_items) == [str(bad)]
    messages = [record.message for record in caplog.records]
    assert len(messages) == 1
    assert str(bad) in messages[0]

    with pytest.raises(UnreadableVideo, match=rf"bad\.mp4: .*{REASONS[kind]}"):
        open_folder(root, on_bad="raise", **settings)[index]
    assert (bad.read_bytes() if bad.exists() else b"") == before


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_bad_files_end_training_with_one_line(folder: Path, num_workers: int) -> None:
    spoil(folder)
    dataset = open_folder(folder, fps=10, max_bad_fraction=0.05)
    message = error_of(stream_batches(dataset, num_workers), TooManyBadItems)
    assert "\n" not in message
    assert message.startswith(f"{folder}: at least 1 of 7 videos cannot be read (max_bad_fraction=0.05): ")
    assert "bad.mp4: not a readable video" in message


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_file_in_evaluation_is_a_one_line_error(folder: Path, num_workers: int) -> None:
    bad = spoil(folder)
    dataset = open_folder(folder, fps=10, on_bad="raise")
    message = error_of(stream_batches(dataset, num_workers), UnreadableVideo)
    assert message.startswith(f"{bad}: not a readable video")
    assert "\n" not in message


def test_a_folder_of_bad_files_only_is_an_error_whatever_the_budget(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(TooManyBadItems, match=r"a\.mp4: empty file"):
        open_folder(tmp_path, max_bad_fraction=1)


def test_files_of_different_rates_are_warned_about_once(
    make_video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    make_video("videos/a.mp4", fps=10)
    root = make_video("videos/b.mp4", fps=20).parent
    with caplog.at_level(logging.WARNING):
        dataset = open_folder(root)
        [dataset[ClipKey(epoch, 1)] for epoch in range(3)]
        open_folder(root, fps=10)[1]
    assert [record.message.split(": ")[-1] for record in caplog.records] == ["motion differs in speed; set fps"]


def write_pieces(root: Path, *pieces: tuple[str, int, int | None]) -> Path:
    manifest = root / "pieces.jsonl"
    write_manifest(manifest, [{"path": path, "first_frame": first, "end_frame": end} for path, first, end in pieces])
    return manifest


@pytest.mark.parametrize("fps", [None, 5, 10, 30])
@pytest.mark.parametrize(
    "grid",
    [{"split": "all"}, {"split": "val", "val_fraction": 0.99, "test_fraction": 0, "clips_per_video": 3},
     {"stride_seconds": 0.2}],
    ids=["random", "held out", "sliding"],
)  # fmt: skip
def test_clips_of_a_piece_lie_within_it_and_reach_both_its_ends(
    make_video: MakeVideo, numbers: Callable[..., list[int]], fps: float | None, grid: dict[str, object]
) -> None:
    root = make_video(num_frames=60, fps=10).parent
    manifest = write_pieces(root, ("clip.mp4", 8, 21), ("clip.mp4", 40, 53))
    dataset = open_folder(manifest, 4, fps=fps, **grid)
    shown: dict[str, set[int]] = {}
    for epoch in range(12 if grid == {"split": "all"} else 1):
        for index in range(len(dataset)):
            name = dataset[ClipKey(epoch, index)]["name"]
            shown.setdefault(name, set()).update(numbers(dataset, ClipKey(epoch, index)))
    early, late = shown["clip.mp4#8-21"], shown["clip.mp4#40-53"]
    assert early <= set(range(8, 21)) and late <= set(range(40, 53))
    assert min(early) <= 10 and max(early) >= 17
    assert min(late) <= 42 and max(late) >= 49


def test_the_clips_of_a_piece_are_those_of_a_file_that_holds_only_the_piece(
    make_video: MakeVideo, numbers: Callable[..., list[int]]
) -> None:
    root = make_video("videos/long.mp4", num_frames=60).parent
    short = make_video("short/short.mp4", num_frames=13).parent
    for settings in ({"fps": 7}, {"stride_seconds": 0.3}, {"fps": 25, "stride_seconds": 0.25}):
        piece = open_folder(write_pieces(root, ("long.mp4", 40, 53)), **settings)
        whole = open_folder(short, **settings)
        assert len(piece) == len(whole)
        for index in range(len(piece)):
            assert numbers(piece, index) == [40 + number for number in numbers(whole, index)]


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        ((0, 31), "piece 0-31 is listed, but it has 30 frames"),
        ((30, None), "piece 30- is listed, but it has 30 frames"),
        ((5, 10**20), f"piece 5-{10**20} is listed, but it has 30 frames"),
        ((27, None), r"piece 27- is too short \(3 frames over 0.20 s; a clip needs 4 frames\)"),
    ],
)
def test_a_piece_that_does_not_fit_its_file_is_skipped_in_training_and_refused_in_evaluation(
    make_video: MakeVideo, piece: tuple[int, int | None], reason: str
) -> None:
    make_video("videos/good.mp4")
    root = make_video("videos/clip.mp4").parent
    manifest = write_pieces(root, ("clip.mp4", *piece), ("good.mp4", 0, 15), ("good.mp4", 15, 30))
    training = open_folder(manifest, max_bad_fraction=0.4)
    assert {training[index]["name"] for index in range(3)} == {"good.mp4#0-15", "good.mp4#15-30"}
    (bad,) = training.bad_items
    assert bad.startswith(f"{root}/clip.mp4#{piece[0]}-")
    for settings in ({}, {"stride_seconds": 1}):
        with pytest.raises(UnreadableVideo, match=rf"clip\.mp4: {reason}"):
            open_folder(manifest, on_bad="raise", **settings)[0]


def test_pieces_of_one_file_never_fall_into_different_splits(folder: Path) -> None:
    names = [file.name for file in open_folder(folder).files]
    manifest = write_pieces(folder, *((name, first, first + 4) for name in names for first in (0, 4, 8)))
    parts = {
        split: open_folder(manifest, split=split, val_fraction=0.4, test_fraction=0.2, seed=SEED_WITH_ALL_SPLITS)
        for split in ("train", "val", "test")
    }
    sources = [{file.source for file in part.files} for part in parts.values()]
    assert sum(len(names) for names in sources) == 6 and sum(len(part.files) for part in parts.values()) == 18
    val = parts["val"]
    assert val.clip_name(0) == val.clip_name(1) == val.files[0].source


def stream_batches(dataset: VideoFolder, num_workers: int) -> Iterator[VideoBatch]:
    sampler = EpochSampler(len(dataset), 1, seed=0)
    with BatchStream(dataset, sampler, LoaderConfig(num_workers=num_workers)) as stream:
        yield from stream


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_that_vanishes_in_mid_run_is_replaced_within_the_share_allowed(
    folder: Path, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    gone = folder / "sub0" / "2.mp4"
    dataset = open_folder(folder, fps=10, max_bad_fraction=0.2)
    batches = stream_batches(dataset, num_workers)
    next(batches)
    gone.unlink()
    with caplog.at_level(logging.WARNING):
        names = [batch["name"][0] for batch in islice(batches, 24)]
    batches.close()
    assert set(names[6:]) == {file.name for file in dataset.files} - {"sub0/2.mp4"}  # six may have been read before
    if num_workers == 0:  # workers count, and log, for themselves
        assert dataset.bad_items == {str(gone): f"{gone}: no such file"}
        assert [record.message for record in caplog.records] == [
            f"skipping {gone}: no such file (1 of 6 videos are bad so far)"
        ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_that_vanish_beyond_the_share_allowed_end_training_with_one_line(folder: Path, num_workers: int) -> None:
    gone = folder / "sub0" / "2.mp4"
    batches = stream_batches(open_folder(folder, fps=10, max_bad_fraction=0.1), num_workers)
    next(batches)
    gone.unlink()
    message = error_of(batches, TooManyBadItems)
    batches.close()
    assert "\n" not in message
    assert message.startswith(
        f"{folder}: at least 1 of 6 videos cannot be read (max_bad_fraction=0.1): {gone}: no such"
    )
