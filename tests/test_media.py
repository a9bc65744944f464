"""Writers and grids: what goes to disk can be read back, and bad frames are refused with a reason."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
import torch

from video_mirai.media import (
    WRITERS,
    NumpyWriter,
    PngFolderWriter,
    RawWriter,
    VideoWriter,
    WriteError,
    image_grid,
    open_writer,
    side_by_side,
    to_uint8,
    write_gif,
    write_image,
    write_video,
)
from video_mirai.media.plain_writers import NPY_HEADER_BYTES, ffmpeg_command, npy_header


def gradient_video(num_frames: int, height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    frame = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (height + width)], -1)
    return np.repeat(frame[None], num_frames, axis=0).astype(np.uint8)


def test_mp4_gives_back_the_frames_written(tmp_path: Path) -> None:
    frames = gradient_video(9, 32, 48)
    write_video(tmp_path / "new" / "clip.mp4", frames, fps=12)
    read = iio.imread(tmp_path / "new" / "clip.mp4", plugin="pyav")
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 3


def test_gif_gives_back_the_frames_written(tmp_path: Path) -> None:
    frames = gradient_video(5, 32, 48)
    frames[:, 0, 0, 0] = np.arange(5) * 50  # equal frames would be merged
    write_gif(tmp_path / "clip.gif", frames, fps=10)
    read = iio.imread(tmp_path / "clip.gif", plugin="pillow")[..., :3]
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 12


def test_odd_sizes_are_padded_to_even(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", gradient_video(3, 31, 33), fps=10)
    assert iio.imread(tmp_path / "odd.mp4", plugin="pyav").shape == (3, 32, 34, 3)


def test_float_tensors_and_bytes_write_the_same_video(tmp_path: Path) -> None:
    frames = gradient_video(4, 16, 16)
    video = torch.from_numpy(frames).movedim(-1, 1) / 127.5 - 1
    write_video(tmp_path / "bytes.mp4", frames, fps=10)
    write_video(tmp_path / "floats.mp4", video, fps=10)
    assert (tmp_path / "bytes.mp4").read_bytes() == (tmp_path / "floats.mp4").read_bytes()


def test_streaming_in_parts_writes_the_same_video_as_at_once(tmp_path: Path) -> None:
    frames = gradient_video(7, 16, 16)
    write_video(tmp_path / "whole.mp4", frames, fps=5)
    with VideoWriter(tmp_path / "parts.mp4", fps=5) as writer:
        writer.append(frames[:3])
        writer.append(frames[3:])
    assert writer.num_frames == 7
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_killed_writer_leaves_a_file_that_plays_up_to_its_last_full_second(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, numpy as np\n"
        "from video_mirai.media import VideoWriter\n"
        "writer = VideoWriter(sys.argv[1], fps=4)\n"
        "for value in range(42):\n"
        "    writer.append(np.full((1, 32, 32, 3), 4 * value, np.uint8))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "killed.mp4"
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False).returncode < 0
    assert len(iio.imread(path, plugin="pyav")) >= 40


def test_a_video_begins_at_time_zero(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", gradient_video(9, 16, 16), fps=10)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([n / 10 for n in range(9)])


def read_back(path: Path) -> np.ndarray:
    """What a format without loss holds."""
    if path.suffix == ".npy":
        return np.load(path)
    return np.stack([iio.imread(picture) for picture in sorted(path.with_suffix("").glob("*.png"))])


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_formats_without_loss_can_be_read_between_any_two_frames(tmp_path: Path, suffix: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3)).astype(np.uint8)
    path = tmp_path / "new" / f"clip{suffix}"
    with open_writer(path, fps=10) as writer:
        for number in range(5):
            writer.append(frames[number : number + 1])
            assert np.array_equal(read_back(path), frames[: number + 1])
    assert np.array_equal(read_back(path), frames)


def test_numpy_arrays_can_be_mapped_into_memory_and_their_header_never_moves(tmp_path: Path) -> None:
    with NumpyWriter(tmp_path / "clip.npy", fps=10) as writer:
        for _ in range(12):
            writer.append(gradient_video(1, 4, 4))
    assert np.load(tmp_path / "clip.npy", mmap_mode="r").shape == (12, 4, 4, 3)
    assert len(npy_header((10**12, 10**5, 10**5, 3))) == len(npy_header((0, 4, 4, 3))) == NPY_HEADER_BYTES


def test_pictures_are_named_by_frame_number_and_never_mixed_with_older_ones(tmp_path: Path) -> None:
    with PngFolderWriter(tmp_path / "clip.png", fps=10) as writer:
        writer.append(gradient_video(2, 4, 4))
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == ["00000000.png", "00000001.png"]
    with pytest.raises(ValueError, match="holds numbered pictures already"):
        write_video(tmp_path / "clip.png", gradient_video(1, 4, 4), fps=10)


def test_raw_frames_go_through_a_pipe_and_a_closed_one_is_a_broken_pipe() -> None:
    frames = gradient_video(3, 4, 6)
    reader, writer = os.pipe()
    with io.FileIO(writer, "w") as stream:
        with RawWriter(stream, fps=10) as raw:
            raw.append(frames)
        assert os.read(reader, 10_000) == frames.tobytes()
        os.close(reader)
        with pytest.raises(BrokenPipeError), RawWriter(stream, fps=10) as raw:
            raw.append(frames)
    assert ffmpeg_command(4, 6, 10).startswith("ffmpeg -f rawvideo -pix_fmt rgb24 -s 6x4 -r 10 -i - ")


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Stands for a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_a_full_disk_is_one_error_that_counts_the_frames_and_those_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    frames = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3)).astype(np.uint8)
    frames[:20] = 0  # the first pictures fit
    writer = open_writer(path, fps=4)
    with files_of_at_most(10_000 if suffix == ".png" else 150_000), pytest.raises(WriteError) as caught, writer:
        for frame in frames:
            writer.append(frame[None])
    assert 10 < writer.num_frames < 60
    assert f"cannot go on writing {path}: File too large; {writer.num_frames} frames were written" in str(caught.value)
    if suffix == ".mp4":
        assert len(iio.imread(path, plugin="pyav")) > writer.num_frames - 6
    elif suffix != ".gif":  # a gif's end is lost
        assert np.array_equal(read_back(path), frames[: writer.num_frames])


def test_a_disk_that_is_full_at_the_very_end_is_an_error_too(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "clip.mp4", fps=100)  # one fragment, written when the file is closed
    writer.append(np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3)).astype(np.uint8))
    with files_of_at_most(20_000), pytest.raises(WriteError, match="9 frames were written before"):
        writer.close()


def test_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.avi'; known: \.gif, \.mp4, \.npy, \.png"):
        open_writer(tmp_path / "clip.avi", fps=10)
    with pytest.raises(ValueError, match=r"'\.npy'; known: \.gif, \.mp4\."):
        VideoWriter(tmp_path / "clip.npy", fps=10)


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        writer.append(gradient_video(1, 16, 16))
        with pytest.raises(ValueError, match=r"\(16, 16, 3\).*got \(16, 18, 3\)"):
            writer.append(gradient_video(1, 16, 18))


def test_float_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float64"):
        write_video(tmp_path / "clip.mp4", np.zeros((1, 16, 16, 3)), fps=10)


def test_to_uint8_maps_the_ends_of_the_range_and_clamps() -> None:
    video = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(5, 1, 1, 1).expand(5, 3, 2, 2)
    assert to_uint8(video)[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(video[None]).shape == (1, 5, 2, 2, 3)


def test_side_by_side_keeps_the_pixels_and_adds_a_label_strip() -> None:
    left, right = gradient_video(2, 8, 40), 255 - gradient_video(2, 8, 40)
    row = side_by_side([left, right], ["truth", "ours"])
    assert np.array_equal(row[:, -8:, :40], left)
    assert np.array_equal(row[:, -8:, -40:], right)
    assert row[:, :-8].max() > 100  # words were drawn
    assert side_by_side([left, right], ["a", "b"], scale=3).shape[2] == 2 * 120 + 2


def test_side_by_side_refuses_videos_of_different_length() -> None:
    with pytest.raises(ValueError, match="one shape"):
        side_by_side([gradient_video(2, 8, 8), gradient_video(3, 8, 8)], ["a", "b"])


def test_image_grid_places_pictures_row_by_row(tmp_path: Path) -> None:
    images = np.stack([np.full((4, 5, 3), value, np.uint8) for value in (10, 20, 30)])
    grid = image_grid(images, columns=2, gap=1)
    assert grid.shape == (9, 11, 3)
    assert [grid[0, 0, 0], grid[0, 6, 0], grid[5, 0, 0]] == [10, 20, 30]
    write_image(tmp_path / "grid.png", grid)
    assert np.array_equal(iio.imread(tmp_path / "grid.png"), grid)
