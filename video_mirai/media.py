"""Videos and pictures on disk: streaming mp4 and gif writers, labelled comparisons, grids.

Everything here takes uint8 frames (T, H, W, C), numpy or tensor, or float tensors (T, C, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from typing_extensions import Self

LABEL_PIXELS = 14
BACKGROUND = 24

# Fragments (one per second, see VideoWriter) make what is already on disk playable when a long rollout is killed.
_MP4_OUTPUT = ["-preset", "veryfast", "-crf", "{crf}", "-g", "{keyframe}", "-movflags", "+frag_keyframe+empty_moov"]
# One palette per frame: the only way to write a gif without knowing the frames to come.
_GIF_OUTPUT = ["-vf", "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1", "-loop", "0"]
_CODECS = {".mp4": "libx264", ".gif": "gif"}
_PIXEL_FORMATS = {".mp4": "yuv420p", ".gif": "pal8"}


def to_uint8(video: Tensor) -> np.ndarray:
    """Bytes of a video: (..., T, C, H, W) in [-1, 1] becomes (..., T, H, W, C) uint8; values outside are clamped."""
    scaled = video.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.movedim(-3, -1).cpu().numpy().astype(np.uint8)


def psnr(error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of the difference (B, ...) of two pictures in [-1, 1], so of range 2."""
    return -10 * (error.flatten(1).square().mean(1).clamp_min(1e-10) / 4).log10()


def check_video_suffix(path: str | Path) -> str:
    """The file's suffix when it names a known video format; ValueError listing the known ones otherwise."""
    suffix = Path(path).suffix.lower()
    if suffix not in _CODECS:
        raise ValueError(
            f"cannot write '{path}': unknown video suffix '{suffix}'; known: {', '.join(sorted(_CODECS))}."
        )
    return suffix


def write_video(path: str | Path, frames: np.ndarray | Tensor, fps: float) -> None:
    """Writes a whole video; the suffix (.mp4 or .gif) chooses the format."""
    with VideoWriter(path, fps) as writer:
        writer.append(frames)


def write_gif(path: str | Path, frames: np.ndarray | Tensor, fps: float) -> None:
    """Writes an endlessly looping gif."""
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"write_gif got '{path}'; the name must end in .gif.")
    write_video(path, frames, fps)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Writes one (H, W, 3) uint8 picture; the suffix chooses the format."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


class VideoWriter:
    """Encodes frames as they come, with memory that does not depend on how many there are.

    Args:
        path: .mp4 (H.264, plays in browsers) or .gif; parent folders are made. In mp4 odd frame sizes are padded to
            even by repeating the last row or column, because H.264's chroma planes are halved.
        fps: frames per second.
        crf: H.264 quality, 0 (lossless) to 51; ignored for gif.

    Use as a context manager. A killed process leaves an mp4 that plays up to its last full second.
    """

    def __init__(self, path: str | Path, fps: float, crf: int = 16) -> None:
        self._suffix = check_video_suffix(path)
        if fps <= 0:
            raise ValueError(f"fps={fps} must be positive.")
        self.path = Path(path)
        self.fps = float(fps)
        self.num_frames = 0
        self._crf = crf
        self._frame_shape: tuple[int, ...] | None = None
        self._encoder: Generator[None, np.ndarray | None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, frames: np.ndarray | Tensor) -> None:
        """Adds (T, H, W, C) uint8 or (T, C, H, W) float frames in [-1, 1]; C is 3 or 1, sizes equal throughout."""
        frames = _as_rgb(frames)
        if self._frame_shape is None:
            self._open(frames.shape[1:])
        assert self._encoder is not None, "append after close"
        if frames.shape[1:] != self._frame_shape:
            raise ValueError(f"'{self.path}' holds frames of {self._frame_shape} (H, W, C); got {frames.shape[1:]}.")
        if self._suffix == ".mp4":
            frames = _pad_to_even(frames)
        for frame in np.ascontiguousarray(frames):
            self._encoder.send(frame)
            self.num_frames += 1

    def close(self) -> None:
        """Finishes the file; without a single frame none is made."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def _open(self, frame_shape: tuple[int, ...]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._frame_shape = tuple(frame_shape)
        height, width, _ = frame_shape
        if self._suffix == ".mp4":
            height, width = height + height % 2, width + width % 2
        values = {"crf": self._crf, "keyframe": max(1, round(self.fps))}
        template = _MP4_OUTPUT if self._suffix == ".mp4" else _GIF_OUTPUT
        self._encoder = imageio_ffmpeg.write_frames(
            str(self.path),
            (width, height),
            fps=self.fps,
            quality=None,
            codec=_CODECS[self._suffix],
            pix_fmt_out=_PIXEL_FORMATS[self._suffix],
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=[word.format(**values) if word.startswith("{") else word for word in template],
        )
        self._encoder.send(None)


def side_by_side(videos: Sequence[np.ndarray | Tensor], labels: Sequence[str], scale: int = 1) -> np.ndarray:
    """Videos of equal shape in one row, a label over each.

    Args:
        videos: each (T, H, W, C) uint8 or (T, C, H, W) float in [-1, 1].
        labels: one per video; cut off where wider than the video.
        scale: whole-number enlargement (nearest neighbour), so that small frames leave room for words.

    Returns (T, H', W', 3) uint8.
    """
    if len(videos) != len(labels) or not videos:
        raise ValueError(f"side_by_side needs one label per video; got {len(videos)} videos, {len(labels)} labels.")
    columns = [_enlarge(_as_rgb(video), scale) for video in videos]
    shapes = {column.shape for column in columns}
    if len(shapes) > 1:
        raise ValueError(f"side_by_side needs videos of one shape (T, H, W, 3); got {sorted(shapes)}.")
    num_frames, height, width, _ = columns[0].shape
    titled = []
    for column, label in zip(columns, labels, strict=True):
        strip = np.broadcast_to(_label_strip(label, width), (num_frames, LABEL_PIXELS, width, 3))
        titled.append(np.concatenate([strip, column], axis=1))
        titled.append(np.full((num_frames, height + LABEL_PIXELS, 2, 3), BACKGROUND, np.uint8))
    return np.concatenate(titled[:-1], axis=2)


def image_grid(images: np.ndarray | Tensor, columns: int, gap: int = 2, scale: int = 1) -> np.ndarray:
    """Pictures in rows of `columns`: (N, H, W, C) uint8 or (N, C, H, W) float in [-1, 1] becomes (H', W', 3) uint8."""
    tiles = _enlarge(_as_rgb(images), scale)
    num_images, height, width, _ = tiles.shape
    if num_images == 0 or columns < 1:
        raise ValueError(f"image_grid needs pictures and columns >= 1; got {num_images} pictures, columns={columns}.")
    rows = -(-num_images // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), BACKGROUND, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def _as_rgb(frames: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(frames, Tensor):
        frames = to_uint8(frames) if frames.is_floating_point() else frames.cpu().numpy()
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[-1] not in (1, 3):
        raise ValueError(
            f"expected frames (T, H, W, 3 or 1) uint8, or a float tensor (T, 3 or 1, H, W) in [-1, 1]; "
            f"got {frames.shape} {frames.dtype}."
        )
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def _pad_to_even(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


def _label_strip(label: str, width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, LABEL_PIXELS), (BACKGROUND,) * 3)
    ImageDraw.Draw(strip).text((2, 1), label, fill=(230, 230, 230), font=ImageFont.load_default(size=10))
    return np.asarray(strip)
