"""Videos whose frames can be told apart: frame i is one grey of level LEVEL * i."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio.v2 as imageio
import numpy as np
import pytest

LEVEL = 4  # more than H.264 blurs a flat grey by

MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    def make(
        name: str = "videos/clip.mp4", num_frames: int = 30, fps: float = 10, height: int = 16, width: int = 32
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(grey_video(num_frames, fps, height, width))
        return path

    return make


@lru_cache
def grey_video(num_frames: int, fps: float, height: int, width: int) -> bytes:
    """The file's content; encoding it once for all tests saves most of their time."""
    greys = np.arange(num_frames) * LEVEL
    frames = np.broadcast_to(greys[:, None, None, None], (num_frames, height, width, 3)).astype(np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write(path, frames, fps)
        return path.read_bytes()


@pytest.fixture
def make_corrupt_video(tmp_path: Path) -> Callable[..., Path]:
    """Opens, since the index at the end is whole, and cannot be decoded, since half of the pictures are noise."""

    def make(name: str = "videos/corrupt.mp4") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(0)
        write(path, generator.integers(0, 256, (30, 16, 32, 3)).astype(np.uint8), fps=10)
        content = bytearray(path.read_bytes())
        pictures = content.index(b"mdat") + 4
        middle = range(
            pictures + (content.index(b"moov") - pictures) // 4, pictures + 3 * (content.index(b"moov") - pictures) // 4
        )
        content[middle.start : middle.stop] = generator.bytes(len(middle))
        path.write_bytes(content)
        return path

    return make


def write(path: Path, frames: np.ndarray, fps: float) -> None:
    options = {"codec": "libx264", "pixelformat": "yuv420p", "quality": None, "macro_block_size": 2}
    quiet = {"ffmpeg_log_level": "error", "ffmpeg_params": ["-crf", "10", "-g", "8", "-preset", "ultrafast"]}
    with imageio.get_writer(path, format="FFMPEG", fps=fps, **options, **quiet) as writer:
        for frame in frames:
            writer.append_data(frame)


@pytest.fixture
def frame_numbers() -> Callable[[np.ndarray], list[int]]:
    """The number of each frame, read back from its grey level; frames (T, ...) with values 0 to 255."""

    def read(frames: np.ndarray) -> list[int]:
        return np.round(frames.reshape(len(frames), -1).mean(1) / LEVEL).astype(int).tolist()

    return read
