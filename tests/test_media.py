"""Writers and grids: what goes to disk can be read back, and bad frames are refused with a reason."""

import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from video_mirai.media import VideoWriter, image_grid, side_by_side, to_uint8, write_gif, write_image, write_video


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


@pytest.mark.skipif(os.name != "posix", reason="kills a process group")
def test_a_killed_writer_leaves_a_playable_file(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time, numpy as np\n"
        "from video_mirai.media import VideoWriter\n"
        "os.setsid()\n"
        "writer = VideoWriter(sys.argv[1], fps=4)\n"
        "noise = np.random.default_rng(0).integers(0, 255, (400, 64, 64, 3), dtype=np.uint8)\n"
        "writer.append(noise)\n"
        "os.killpg(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "killed.mp4"
    subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
    assert len(iio.imread(path, plugin="pyav")) >= 4


def test_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.avi'; known: \.gif, \.mp4"):
        VideoWriter(tmp_path / "clip.avi", fps=10)


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
