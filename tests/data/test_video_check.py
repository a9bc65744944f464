import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from video_kinds import FPS, NUM_FRAMES, damage, numbers, truncate, write_kind, write_sound

from video_mirai.data import video_check
from video_mirai.data.sequential_decode import PICTURE_SIDE, SequentialDecode, decode_sequentially
from video_mirai.data.video_check import check_video, match_picture
from video_mirai.data.video_protocol import UnreadableVideo
from video_mirai.data.video_transcode import TranscodeFailed, check_transcoded, transcode

decord = pytest.importorskip("decord")

# What decord 0.6 does when it is asked for single frames, measured.
READ_RIGHT = ["b_frames.mp4", "long_gop.mp4", "variable_rate.mp4", "vp9.webm", "late.mkv", "no_b_frames.ts"]
READ_WRONG = {
    "open_gop.mp4": r"random access: gives frame \d+ where \d+ was asked for",
    "open_gop.mkv": r"random access: gives frame \d+ where \d+ was asked for",
    "edit_list.mp4": r"random access: gives frame \d+ where .*frame count: 28 by random access, 24 when played",
    "b_frames.ts": r"random access: gives frame 12 where 0 was asked for",
    "mpeg2.mpg": r"random access: gives frame .*timestamps: frame 1 is at",
    "mpeg4.avi": r"random access: gives frame .*timestamps: frame 1 is at",
}


def numbers_by_random_access(path: Path) -> list[int]:
    """The number seen in each frame when decord is asked for them one by one, in a shuffled order."""
    video = decord.VideoReader(str(path), num_threads=1)
    order = random.Random(0).sample(range(len(video)), len(video))
    seen = {frame: numbers(video[frame].asnumpy()[None])[0] for frame in order}
    return [seen[frame] for frame in sorted(seen)]


@pytest.mark.parametrize("kind", READ_RIGHT)
def test_kinds_that_decord_reads_right_are_ok(tmp_path: Path, kind: str) -> None:
    path = write_kind(tmp_path, kind)
    assert numbers_by_random_access(path) == list(range(NUM_FRAMES))
    check = check_video(path)
    assert (check.verdict, check.reason) == ("ok", "")
    assert check.decoded is not None and check.decoded.facts.frames == NUM_FRAMES
    assert numbers(check.decoded.pictures) == list(range(NUM_FRAMES))


@pytest.mark.parametrize("kind", READ_WRONG)
def test_kinds_that_decord_reads_wrong_need_transcoding_and_the_reason_names_a_frame(tmp_path: Path, kind: str) -> None:
    path = write_kind(tmp_path, kind)
    truth = list(range(16 if kind == "edit_list.mp4" else 0, NUM_FRAMES))
    assert numbers_by_random_access(path)[: len(truth)] != truth
    check = check_video(path)
    assert check.verdict == "needs-transcode"
    assert re.match(READ_WRONG[kind], check.reason), check.reason
    assert check.decoded is not None
    assert numbers(check.decoded.pictures) == truth  # decoding from start to end is right where random access is not


@pytest.mark.parametrize(
    "kind", [*READ_WRONG, "variable_rate.mp4", "rotated.mp4", "no_times.mp4", "mpeg2_sparse_times.mpg"]
)
def test_a_rewritten_file_is_ok_and_has_the_same_frames_at_the_same_times(tmp_path: Path, kind: str) -> None:
    path = write_kind(tmp_path, kind)
    original = path.read_bytes()
    decoded = decode_sequentially(path)
    target = tmp_path / "rewritten" / "video.mp4"
    transcode(path, target, decoded)
    check = check_transcoded(target, decoded, "decord")
    assert check.verdict == "ok" and check.decoded is not None
    assert check.decoded.facts.codec == "h264"
    if kind != "rotated.mp4":
        assert numbers_by_random_access(target) == numbers(decoded.pictures)
    if decoded.seconds is not None and kind != "mpeg2_sparse_times.mpg":
        np.testing.assert_allclose(check.decoded.seconds, decoded.seconds, atol=1e-3)
    assert list(target.parent.iterdir()) == [target]
    assert path.read_bytes() == original


def test_a_file_without_timestamps_needs_transcoding(tmp_path: Path) -> None:
    check = check_video(write_kind(tmp_path, "no_times.mp4"))
    assert check.verdict == "needs-transcode"
    assert check.reason.startswith("random access: cannot open it")
    assert check_video(tmp_path / "no_times.mp4").reason == check.reason  # no time of day, no folder
    assert str(tmp_path) not in check.reason


def test_times_that_go_back_are_named(tmp_path: Path) -> None:
    check = check_video(write_kind(tmp_path, "mpeg2_sparse_times.mpg"))
    assert check.verdict == "needs-transcode"
    assert "timestamps: they go back" in check.reason


def test_the_truth_of_a_rotated_file_is_upright(tmp_path: Path) -> None:
    check = check_video(write_kind(tmp_path, "rotated.mp4"))
    assert check.verdict == "ok" and check.decoded is not None  # decord turns pictures upright as well
    assert (check.decoded.facts.width, check.decoded.facts.height) == (64, 96)
    upright = np.rot90(check.decoded.pictures, -1, axes=(1, 2))
    assert numbers(upright) == list(range(NUM_FRAMES))


def test_facts_and_times_are_those_of_the_file(tmp_path: Path) -> None:
    late = decode_sequentially(write_kind(tmp_path, "late.mkv"))
    assert late.facts == (NUM_FRAMES, FPS, 96, 64, "h264", NUM_FRAMES / FPS)
    assert late.key_frames == [0, 12, 24, 36]
    assert late.seconds is not None
    np.testing.assert_allclose(late.seconds, np.arange(NUM_FRAMES) / FPS, atol=1e-3)
    uneven = decode_sequentially(write_kind(tmp_path, "variable_rate.mp4"))
    assert uneven.seconds is not None
    np.testing.assert_allclose(uneven.seconds[[9, 10, 20]], [0.9, 1.35, 2.7], atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "share", "reason"),
    [
        ("b_frames.mp4", 0.5, r"damaged: decoding fails after frame \d+ \("),
        ("b_frames.ts", 0.5, r"damaged: decoding fails after frame \d+ \(the container marks its data as corrupt\)"),
        ("mpeg2.mpg", 0.4, r"damaged: decoding fails after frame \d+ \("),
        ("mpeg4.avi", 0.8, r"damaged: decoding fails after frame \d+ \("),  # its first half is padding
        # Matroska leaves damaged parts out, and PyAV goes on without an error.
        ("vp9.webm", 0.5, r"damaged: parts of the file are unreadable"),
        ("late.mkv", 0.5, r"damaged: "),
    ],
)
def test_a_file_damaged_in_the_middle_is_bad_each_time(tmp_path: Path, kind: str, share: float, reason: str) -> None:
    path = damage(write_kind(tmp_path, kind), share)
    for check in (check_video(path), check_video(path)):
        assert check.verdict == "bad"
        assert re.match(reason, check.reason), check.reason
        assert check.decoded is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("plain.mp4", "not a video"),
        ("vp9.webm", "truncated: the file ends in the middle"),
        ("late.mkv", "truncated: the file ends in the middle"),
        ("mpeg4.avi", "damaged"),
    ],
)
def test_a_truncated_file_is_bad(tmp_path: Path, kind: str, reason: str) -> None:
    check = check_video(truncate(write_kind(tmp_path, kind), 0.8 if kind == "mpeg4.avi" else 0.5))
    assert check.verdict == "bad"
    assert re.match(reason, check.reason), check.reason


def test_what_is_no_video_is_bad(tmp_path: Path) -> None:
    reasons = {}
    for name, content in {"zero.mp4": b"", "note.mp4": b"a note, not a video\n" * 100}.items():
        (tmp_path / name).write_bytes(content)
        reasons[name] = check_video(tmp_path / name)[:2]
    assert reasons["zero.mp4"] == ("bad", "empty: 0 bytes")
    assert reasons["note.mp4"] == ("bad", "not a video: Invalid data found when processing input")
    sound = check_video(write_sound(tmp_path / "sound.mp4"))
    assert sound[:2] == ("bad", "no video stream: only sound or other data")


class FakeVideo:
    """A reader that gives a decoded file's frames, each `shift` frames later than asked for, `delay` seconds late."""

    def __init__(self, decoded: SequentialDecode, shift: int, delay: float) -> None:
        assert decoded.seconds is not None
        self.timestamps = decoded.seconds + delay * np.arange(len(decoded.seconds))
        self.pictures, self.shift = decoded.pictures, shift

    def read(self, frame_indices: Sequence[int]) -> np.ndarray:
        shifted = [(frame + self.shift) % len(self.pictures) for frame in frame_indices]
        return np.repeat(self.pictures[shifted][..., None], 3, axis=3)


@pytest.mark.parametrize(
    ("shift", "delay", "verdict", "reason"),
    [
        (0, 0, "ok", "^$"),
        (1, 0, "needs-transcode", r"^random access: gives frame 1 where 0 was asked for \((\d+) of \1 frames tried"),
        (3, 0, "needs-transcode", r"^random access: gives frame 3 where 0 was asked for \((\d+) of \1 frames tried"),
        (0, 0.04, "needs-transcode", r"^timestamps: frame 1 is at 0.140 s by random access, 0.100 s when played$"),
        (0, 0.0001, "ok", "^$"),
    ],
)
def test_any_difference_to_the_sequential_decode_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int, delay: float, verdict: str, reason: str
) -> None:
    path = write_kind(tmp_path, "plain.mp4")

    @contextmanager
    def open_fake(path: Path) -> Iterator[FakeVideo]:
        yield FakeVideo(decode_sequentially(path), shift, delay)

    monkeypatch.setitem(video_check.OPENERS, "pyav", open_fake)
    check = check_video(path, backend="pyav", num_positions=100)
    assert check.verdict == verdict
    assert re.search(reason, check.reason), check.reason


class Refusing(FakeVideo):
    """A reader that refuses every clip, or, with a shift, only clips of several frames, and is wrong on single ones."""

    def read(self, frame_indices: Sequence[int]) -> np.ndarray:
        if self.shift == 0 or len(frame_indices) > 1:
            raise UnreadableVideo("fake.mp4", "decoding failed")
        return super().read(frame_indices)


@pytest.mark.parametrize(
    ("backend", "shift", "verdict", "reason"),
    [
        ("decord", 0, "ok", "^$"),  # PyAV stands in for it
        ("decord", 3, "needs-transcode", r"^random access: gives frame 3 where 0 .*cannot give frame"),
        ("pyav", 0, "needs-transcode", r"^random access: cannot give frame \d+ \(decoding failed\)$"),
    ],
)
def test_a_reader_that_refuses_is_replaced_only_where_it_is_never_silently_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, shift: int, verdict: str, reason: str
) -> None:
    path = write_kind(tmp_path, "plain.mp4")

    @contextmanager
    def open_fake(path: Path) -> Iterator[FakeVideo]:
        yield Refusing(decode_sequentially(path), shift, delay=0)

    monkeypatch.setitem(video_check.OPENERS, backend, open_fake)
    check = check_video(path, backend, num_positions=100)
    assert check.verdict == verdict
    assert re.search(reason, check.reason), check.reason


def test_pictures_are_matched_to_the_nearest_frame_and_a_still_scene_is_never_wrong() -> None:
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (50, PICTURE_SIDE, PICTURE_SIDE)).astype(np.uint8)
    pictures[20:30] = pictures[20]
    assert match_picture(pictures, pictures[7], 7) == 7
    assert match_picture(pictures, pictures[7], 10) == 7
    assert match_picture(pictures, pictures[29], 21) == 21
    assert match_picture(pictures, np.clip(pictures[7].astype(int) + 1, 0, 255).astype(np.uint8), 7) == 7
    assert match_picture(pictures, np.full_like(pictures[0], 128), 7) is None


def test_another_video_or_a_failed_rewriting_is_not_taken(tmp_path: Path) -> None:
    plain = write_kind(tmp_path, "plain.mp4")
    decoded = decode_sequentially(plain)
    shifted = decoded._replace(pictures=np.roll(decoded.pictures, 1, axis=0))
    with pytest.raises(TranscodeFailed, match=r"frame \d+ is not the original's"):
        check_transcoded(plain, shifted, "decord")
    with pytest.raises(TranscodeFailed, match="40 frames instead of 39"):
        check_transcoded(plain, decoded._replace(pictures=decoded.pictures[1:]), "decord")
    assert decoded.seconds is not None
    with pytest.raises(TranscodeFailed, match="shown at another time"):
        check_transcoded(plain, decoded._replace(seconds=decoded.seconds * 2), "decord")
    with pytest.raises(TranscodeFailed, match="ffmpeg failed"):
        transcode(tmp_path / "gone.mp4", tmp_path / "out" / "gone.mp4", decoded)
    assert list((tmp_path / "out").iterdir()) == []
