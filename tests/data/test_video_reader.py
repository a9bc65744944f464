import gc
import logging
import os
import pickle
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import pytest
from video_kinds import X264, damage, numbers, run_ffmpeg, write_kind

from video_mirai.data import pyav_video, video_reader
from video_mirai.data.latent_reader import DamagedShard
from video_mirai.data.video_reader import UnreadableVideo, available_backend, fit_frames, open_video, probe, read_clip

MakeVideo = Callable[..., Path]
FrameNumbers = Callable[[np.ndarray], list[int]]


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "decord":
        pytest.importorskip("decord")
    return request.param


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    available_backend.cache_clear()
    yield
    available_backend.cache_clear()


def test_probe_says_length_rate_and_size(make_video: MakeVideo, backend: str) -> None:
    info = probe(make_video(num_frames=20, fps=12.5, height=16, width=32), backend)
    assert info == (20, 12.5, 16, 32)


@pytest.mark.parametrize("indices", [[0, 1, 2], [29, 3, 17], [5, 5, 6], [28, 29]])
def test_frames_are_the_ones_asked_for_in_that_order(
    make_video: MakeVideo, frame_numbers: FrameNumbers, backend: str, indices: list[int]
) -> None:
    frames = read_clip(make_video(), indices, 16, 32, backend)
    assert frames.shape == (len(indices), 16, 32, 3)
    assert frames.dtype == np.uint8
    assert frame_numbers(frames) == indices


def test_two_reads_of_an_open_video_do_not_disturb_each_other(
    make_video: MakeVideo, frame_numbers: FrameNumbers, backend: str
) -> None:
    with open_video(make_video(), backend) as video:
        assert frame_numbers(video.read([20, 21])) == [20, 21]
        assert frame_numbers(video.read([2, 3])) == [2, 3]


def test_timestamps_are_seconds_from_the_first_frame(make_video: MakeVideo, backend: str) -> None:
    with open_video(make_video(num_frames=5, fps=10), backend) as video:
        np.testing.assert_allclose(video.timestamps, [0, 0.1, 0.2, 0.3, 0.4], atol=1e-3)


def test_resizing_keeps_the_centre_of_the_longer_side() -> None:
    frames = np.zeros((2, 8, 24, 3), np.uint8)
    frames[:, :, 8:16] = 200  # the middle third
    assert (fit_frames(frames, 4, 4)[:, :, 1:3] == 200).all()
    assert fit_frames(frames.transpose(0, 2, 1, 3).copy(), 4, 4).shape == (2, 4, 4, 3)


def test_resizing_averages_instead_of_picking_pixels() -> None:
    board = (np.indices((32, 32)).sum(0) % 2 * 200).astype(np.uint8)
    small = fit_frames(np.repeat(board[None, :, :, None], 3, axis=3), 8, 8)
    assert np.abs(small.astype(int) - 100)[:, 1:-1, 1:-1].max() <= 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes"), (b"a note, not a video\n" * 100, "not a readable video")],
    ids=["zero bytes", "text"],
)
def test_a_file_that_is_no_video_is_named_with_the_reason(
    tmp_path: Path, backend: str, content: bytes, reason: str
) -> None:
    path = tmp_path / "note.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableVideo, match=reason) as caught:
        probe(path, backend)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_truncated_file_is_named(make_video: MakeVideo, backend: str) -> None:
    path = make_video()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableVideo, match=r"clip\.mp4: not a readable video"):
        probe(path, backend)


def test_a_file_corrupt_in_the_middle_opens_and_is_named_when_reading_fails(
    make_corrupt_video: MakeVideo, backend: str
) -> None:
    path = make_corrupt_video()
    with pytest.raises(UnreadableVideo, match=r"corrupt\.mp4: .*decoding failed"), open_video(path, backend) as video:
        assert len(video.timestamps) == 30
        video.read(range(30))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, backend: str) -> None:
    with pytest.raises(UnreadableVideo, match=r"gone\.mp4: no such file"):
        probe(tmp_path / "gone.mp4", backend)
    with pytest.raises(UnreadableVideo, match="is a folder"):
        probe(tmp_path, backend)


def test_a_frame_beyond_the_end_is_an_error(make_video: MakeVideo, backend: str) -> None:
    with pytest.raises(UnreadableVideo, match="frame 30 was asked for; it has 30 frames"):
        read_clip(make_video(num_frames=30), [29, 30], 16, 32, backend)


def test_an_unknown_backend_lists_the_known_ones(make_video: MakeVideo) -> None:
    with pytest.raises(ValueError, match="known: decord, pyav"):
        probe(make_video(), "vhs")


@pytest.mark.usefixtures("fresh_choice")
def test_pyav_serves_where_decord_is_missing_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video_reader, "find_spec", lambda name: None if name == "decord" else name)
    with caplog.at_level(logging.WARNING):
        assert [available_backend("decord"), available_backend("decord")] == ["pyav", "pyav"]
    assert [record.message for record in caplog.records] == ["decord is not installed; videos are read through PyAV."]


@pytest.mark.parametrize("kind", [UnreadableVideo, DamagedShard])
def test_an_error_comes_out_of_a_worker_as_it_was(kind: type[UnreadableVideo] | type[DamagedShard]) -> None:
    error = pickle.loads(pickle.dumps(kind(Path("a.mp4"), "why")))
    assert (type(error), str(error), error.path, error.reason) == (kind, "a.mp4: why", "a.mp4", "why")


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of any file."""
    monkeypatch.setattr(video_reader, "_only_pyav", set())
    monkeypatch.setattr(pyav_video, "_indexes", OrderedDict())
    monkeypatch.setattr(pyav_video, "_opened_slowly", set())


@pytest.mark.parametrize("kind", ["b_frames.mp4", "rotated.mp4"])
def test_frames_made_small_one_by_one_are_those_made_small_together(tmp_path: Path, backend: str, kind: str) -> None:
    path = write_kind(tmp_path, kind)
    with open_video(path, backend) as video:
        together = fit_frames(video.read([30, 3, 4]), 24, 32)
    np.testing.assert_array_equal(read_clip(path, [30, 3, 4], 24, 32, backend), together)


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize("width", [16, 24, 48])
def test_a_width_that_decord_cannot_decode_is_read_through_pyav_and_that_is_said_once(
    make_video: MakeVideo, frame_numbers: FrameNumbers, caplog: pytest.LogCaptureFixture, width: int
) -> None:
    pytest.importorskip("decord")
    path = make_video(width=width)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with open_video(path, "decord") as video:
                assert video.info == (30, 10, 16, width)
                assert frame_numbers(video.read([3, 4, 20])) == [3, 4, 20]
    assert len(caplog.records) == 1
    assert f"decord cannot read {path}: decoding failed" in caplog.text


@pytest.mark.usefixtures("fresh_process")
def test_damage_that_decord_finds_stays_an_error_and_is_not_blamed_on_decord(
    make_corrupt_video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("decord")
    with caplog.at_level(logging.WARNING), pytest.raises(UnreadableVideo, match="decoding failed"):
        read_clip(make_corrupt_video(), range(30), 16, 32, "decord")
    assert not caplog.records


@pytest.mark.usefixtures("fresh_process")
def test_pyav_does_not_stand_in_where_its_frame_numbers_mean_other_frames(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailingVideo:
        timestamps = np.arange(29) / 10  # one frame fewer than PyAV sees

        def read(self, frame_indices: list[int], **settings: Any) -> np.ndarray:
            raise UnreadableVideo("clip.mp4", "decord's reason")

    pytest.importorskip("decord")
    monkeypatch.setattr(video_reader, "open_decord", lambda path: nullcontext(FailingVideo()))
    with open_video(make_video(), "decord") as video, pytest.raises(UnreadableVideo, match="decord's reason"):
        video.read([0, 1])


@pytest.mark.usefixtures("fresh_process")
def test_a_frame_that_decord_would_replace_by_its_neighbour_comes_from_pyav(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    with open_video(write_kind(tmp_path, "b_frames.ts"), "decord") as video:
        assert numbers(video.read(range(24, 40))) == list(range(24, 40))


def test_a_turned_picture_is_given_upright(tmp_path: Path, backend: str) -> None:
    path = write_kind(tmp_path, "rotated.mp4")
    with open_video(path, backend) as video:
        assert (video.info.height, video.info.width) == (96, 64)
        upright = np.rot90(video.read([3, 30]), -1, axes=(1, 2))
    assert numbers(upright) == [3, 30]


RANDOM_ACCESS = [
    "b_frames.mp4", "long_gop.mp4", "variable_rate.mp4", "vp9.webm", "late.mkv", "open_gop.mp4", "open_gop.mkv",
    "no_b_frames.ts", "b_frames.ts", "mpeg2.mpg", "mpeg4.avi", "edit_list.mp4", "intra_refresh.mp4", "pyramid.mp4",
]  # fmt: skip


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize("kind", RANDOM_ACCESS)
def test_pyavs_random_access_is_bit_for_bit_a_decode_from_the_start(tmp_path: Path, kind: str) -> None:
    path = write_special(tmp_path, kind)
    with av.open(str(path)) as container:
        whole = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    clips = [range(13, 20), range(2, 9), [len(whole) - 1], [20, 3, 11, 3], range(0, len(whole), 5)]
    sequence = [range(4, 9), range(9, 14), range(14, 19), range(20, len(whole))]
    with open_video(path, "pyav") as video:
        assert len(video.timestamps) == len(whole)
        for indices in [*clips, *sequence, *clips]:
            np.testing.assert_array_equal(video.read(indices), whole[list(indices)])
    for indices in clips:
        with open_video(path, "pyav") as video:
            np.testing.assert_array_equal(video.read(indices), whole[list(indices)])


def write_special(folder: Path, kind: str) -> Path:
    """A kind of video_kinds, or one for which a key frame is no clean start, or one with many unreferenced frames."""
    options = {
        "intra_refresh.mp4": ["-x264-params", "intra-refresh=1:keyint=8:bframes=0"],
        "pyramid.mp4": ["-g", "20", "-bf", "5", "-x264-params", "b-adapt=0:b-pyramid=normal:scenecut=0"],
    }
    if kind not in options:
        return write_kind(folder, kind)
    path = folder / kind
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=10:duration=4"]
    run_ffmpeg(*source, "-c:v", "libx264", "-pix_fmt", "yuv420p", *options[kind], path)
    return path


@pytest.mark.usefixtures("fresh_process")
def test_reads_that_follow_each_other_keep_the_decoder_going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    packets = pyav_video._PyavVideo._packets
    monkeypatch.setattr(
        pyav_video._PyavVideo, "_packets", lambda self, start: starts.append(start.frame) or packets(self, start)
    )
    with open_video(write_kind(tmp_path, "b_frames.mp4"), "pyav") as video:
        parts = [numbers(video.read(range(first, first + 8))) for first in range(0, 40, 8)]
    assert parts == [list(range(first, first + 8)) for first in range(0, 40, 8)]
    assert starts == [0, 0]  # the second read sees that it is a sequence
    starts.clear()
    with open_video(tmp_path / "b_frames.mp4", "pyav") as video:
        parts = [numbers(video.read(range(first, first + 8), reads_on=first < 29)) for first in (13, 21, 29)]
    assert parts == [list(range(first, first + 8)) for first in (13, 21, 29)]
    assert starts == [12]  # the first one was told


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How PyAV has opened files: "quick" or "slow"."""
    found = []
    open_file = av.open

    def note(name: str, **settings: Any) -> Any:
        found.append("quick" if settings["options"] else "slow")
        return open_file(name, **settings)

    monkeypatch.setattr(av, "open", note)
    return found


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("b_frames.mp4", ["quick"]),
        ("no_b_frames.ts", ["slow"]),
        ("transport.mp4", ["quick", "slow"]),
        ("flash.mp4", ["quick", "slow"]),
    ],
)
def test_files_that_say_enough_themselves_are_opened_quickly(
    tmp_path: Path, openings: list[str], kind: str, expected: list[str]
) -> None:
    path = tmp_path / kind
    write_kind(tmp_path, "no_b_frames.ts" if kind == "transport.mp4" else kind).rename(path)
    with open_video(path, "pyav"):
        assert openings == expected


@pytest.mark.usefixtures("fresh_process")
def test_a_file_that_needs_more_than_a_quick_opening_is_read_and_remembered(
    tmp_path: Path, openings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_kind(tmp_path, "b_frames.mp4")
    read_run = pyav_video._PyavVideo._read_run

    def lose_a_frame(self: Any, run: list[int], follows: bool, reads_on: bool) -> dict[int, np.ndarray]:
        found = read_run(self, run, follows, reads_on)
        if self._is_quick:
            found.popitem()
        return found

    monkeypatch.setattr(pyav_video._PyavVideo, "_read_run", lose_a_frame)
    for expected in (["quick", "slow"], ["slow"]):
        openings.clear()
        with open_video(path, "pyav") as video:
            assert numbers(video.read(range(9, 17))) == list(range(9, 17))
        assert openings == expected


@pytest.mark.usefixtures("fresh_process")
def test_a_decord_reader_is_gone_when_its_video_is_closed_even_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = []
    make_reader = decord.VideoReader

    def note(*arguments: Any, **settings: Any) -> Any:
        readers.append(weakref.ref(reader := make_reader(*arguments, **settings)))
        return reader

    monkeypatch.setattr(decord, "VideoReader", note)
    path = damage(write_kind(tmp_path, "plain.mp4"))
    gc.disable()
    try:
        with pytest.raises(UnreadableVideo) as kept, open_video(path, "decord") as video:
            video.read(range(40))
        assert kept.value and readers and all(reader() is None for reader in readers)
    finally:
        gc.enable()


@pytest.mark.usefixtures("fresh_process")
def test_frames_of_several_sizes_are_refused_by_the_read_that_has_them(tmp_path: Path) -> None:
    small, large, both = (tmp_path / name for name in ("no_b_frames.ts", "large.ts", "both.ts"))
    write_kind(tmp_path, small.name)
    run_ffmpeg("-i", small, "-vf", "scale=128:96", *X264, "-bf", "0", "-g", "10", large)
    run_ffmpeg("-i", f"concat:{small}|{large}", "-c", "copy", both)
    with open_video(both, "pyav") as video:
        assert video.read([60, 61]).shape == (2, 96, 128, 3)
        assert (video.info.height, video.info.width) == (64, 96)
        with pytest.raises(UnreadableVideo, match=r"several sizes \(height, width\): \[\(64, 96\), \(96, 128\)\]"):
            video.read([3, 60])
        assert video.read([3, 4]).shape == (2, 64, 96, 3)


@pytest.mark.usefixtures("fresh_process")
def test_a_files_packets_are_read_once_and_again_when_it_has_changed(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read_index = pyav_video._read_index
    monkeypatch.setattr(
        pyav_video, "_read_index", lambda path, container: reads.append(path) or read_index(path, container)
    )
    path = make_video(num_frames=20)
    assert [probe(path, "pyav").num_frames for _ in range(3)] == [20, 20, 20]
    assert len(reads) == 1
    make_video(num_frames=25)
    assert probe(path, "pyav").num_frames == 25
    assert len(reads) == 2


@pytest.mark.usefixtures("fresh_process")
def test_the_kept_indexes_are_bounded_and_the_one_used_longest_ago_goes_first(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav_video, "CACHED_FRAMES", 60)
    first, second, third = (make_video(name, num_frames=30) for name in ("a.mp4", "b.mp4", "c.mp4"))
    for path in (first, second, first, third):
        probe(path, "pyav")
    assert [key[0] for key in pyav_video._indexes] == [str(first), str(third)]


@pytest.mark.usefixtures("fresh_process")
def test_a_file_that_does_not_say_when_its_frames_are_shown_is_refused_by_pyav(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=10:duration=4"]
    run_ffmpeg(*source, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "3", path)
    with pytest.raises(UnreadableVideo, match=r"clip\.avi: its time stamps do not follow the order of its frames"):
        probe(path, "pyav")


def test_a_path_that_no_file_can_have_and_a_pipe_are_named(tmp_path: Path, backend: str) -> None:
    with pytest.raises(UnreadableVideo, match="cannot be opened"):
        probe(tmp_path / "a\0b.mp4", backend)
    with pytest.raises(UnreadableVideo, match="cannot be opened"):
        probe(tmp_path / ("x" * 300), backend)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UnreadableVideo, match="not an ordinary file"):
        probe(tmp_path / "pipe.mp4", backend)


@pytest.mark.usefixtures("fresh_process")
def test_a_name_with_a_colon_is_a_file_and_no_address(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    path = make_video("file:clip.mp4")
    monkeypatch.chdir(path.parent)
    assert probe(path.name, backend).num_frames == 30


def test_key_frames_are_where_the_encoder_put_them(tmp_path: Path, backend: str) -> None:
    with open_video(write_kind(tmp_path, "plain.mp4"), backend) as video:
        assert video.key_frames.tolist() == [0, 12, 24, 36]
