import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from video_mirai.data import video_reader
from video_mirai.data.video_reader import UnreadableVideo, available_backend, fit_frames, open_video, probe, read_clip

MakeVideo = Callable[..., Path]
FrameNumbers = Callable[[np.ndarray], list[int]]


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"decord": "decord", "pyav": "av"}[request.param])
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


@pytest.mark.usefixtures("fresh_choice")
def test_a_missing_pyav_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_reader, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package 'av'"):
        available_backend("pyav")


def test_a_workers_error_keeps_only_its_message() -> None:
    text = "Caught UnreadableVideo.\nTraceback ...\nvideo_mirai.data.video_reader.UnreadableVideo: a.mp4: why\n"
    assert str(UnreadableVideo(text)) == "a.mp4: why"
