"""Frames as they are: pictures in a folder, one numpy array, raw bytes for a pipe."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import numpy as np
from PIL import Image

from video_mirai.media.frame_writer import FrameWriter, write_all

logger = logging.getLogger(__name__)

NPY_HEADER_BYTES = 128  # a multiple of 64, as the format wants, and enough for any number of frames


class PngFolderWriter(FrameWriter):
    """`name.png` stands for the folder `name` with 00000000.png, 00000001.png, ... in it.

    Every picture appears whole or not at all. A folder that holds numbered pictures already is refused: a longer video
    would shine through behind a shorter one.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        super().__init__(path, fps)
        self.folder = self.path.with_suffix("")

    def _open(self, height: int, width: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(picture.stem.isdigit() for picture in self.folder.glob("*.png")):
            raise ValueError(f"{self.folder} holds numbered pictures already; remove them, or name another folder.")

    def _write(self, frame: np.ndarray) -> None:
        encoded = io.BytesIO()
        Image.fromarray(frame).save(encoded, format="png", compress_level=3)
        part = self.folder / "unfinished.part"
        try:
            part.write_bytes(encoded.getvalue())
            os.replace(part, self.folder / f"{self.num_frames:08d}.png")
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _finish(self) -> None:
        """Every picture is finished already."""

    def _abandon(self) -> None:
        """Nothing is open."""


class NumpyWriter(FrameWriter):
    """One .npy array (T, H, W, 3) uint8.

    The header is rewritten after every frame, so that a killed process, or a full disk, leaves a file that numpy reads:
    as many frames as its header says, and at most a part of one behind them.
    """

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: the header must never be on disk before its frame.
        self._file = self.path.open("wb", buffering=0)
        self._shape = (height, width, 3)
        write_all(self._file.write, npy_header((0, *self._shape)))

    def _write(self, frame: np.ndarray) -> None:
        self._file.seek(NPY_HEADER_BYTES + self.num_frames * frame.nbytes)
        write_all(self._file.write, frame.tobytes())
        self._file.seek(0)
        write_all(self._file.write, npy_header((self.num_frames + 1, *self._shape)))

    def _finish(self) -> None:
        self._file.close()

    def _abandon(self) -> None:
        self._file.close()


class RawWriter(FrameWriter):
    """rgb24 bytes, frame after frame, to a stream that someone else owns and reads.

    Raises BrokenPipeError where nobody reads any more.
    """

    def __init__(self, stream: io.RawIOBase, fps: float) -> None:
        """stream: unbuffered."""
        super().__init__("-", fps)
        self._stream = stream

    def _open(self, height: int, width: int) -> None:
        logger.info("to make a video of these bytes: | %s", ffmpeg_command(height, width, self.fps))

    def _write(self, frame: np.ndarray) -> None:
        write_all(self._stream.write, frame.tobytes())

    def _finish(self) -> None:
        """Every byte is through already."""

    def _abandon(self) -> None:
        """The stream is someone else's."""


def npy_header(shape: tuple[int, ...]) -> bytes:
    """NPY_HEADER_BYTES of version 1.0 for a uint8 array in C order.

    Source: numpy.lib.format, "Format Version 1.0".
    """
    described = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = NPY_HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + described.ljust(length - 1) + b"\n"


def ffmpeg_command(height: int, width: int, fps: float, out: str = "out.mp4") -> str:
    """What reads RawWriter's bytes from a pipe."""
    return f"ffmpeg -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps:g} -i - -pix_fmt yuv420p {out}"
