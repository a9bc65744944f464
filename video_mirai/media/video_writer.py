"""H.264 in fragmented mp4, and gif, encoded frame by frame through PyAV."""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import BlockingIOError as NotYet
from av.error import EOFError as NoMore
from av.error import FFmpegError
from av.filter import Graph
from av.video.stream import VideoStream
from typing_extensions import Buffer

from video_mirai.media.frame_writer import FrameWriter, write_all

# Fragments, one per second, make what is on disk playable when a long rollout is killed; nothing may wait in a buffer.
_MP4_CONTAINER = {"movflags": "+frag_keyframe+empty_moov", "flush_packets": "1"}
_GIF_CONTAINER = {"loop": "0", "flush_packets": "1"}
VIDEO_SUFFIXES = (".gif", ".mp4")


class VideoWriter(FrameWriter):
    """A video that plays in browsers.

    Args:
        path: .mp4 (H.264) or .gif. In mp4 odd frame sizes are padded to even by repeating the last row or column,
            because H.264's chroma planes are halved. A gif has a palette for each frame: the only way to write one
            without knowing the frames to come.
        fps: frames per second.
        crf: H.264 quality, 0 (lossless) to 51; ignored for gif.

    A killed process leaves an mp4 that plays up to its last full second.
    """

    def __init__(self, path: str | Path, fps: float, crf: int = 16) -> None:
        super().__init__(path, fps)
        self._suffix = self.path.suffix.lower()
        if self._suffix not in VIDEO_SUFFIXES:
            raise ValueError(
                f"cannot write '{path}': unknown video suffix '{self._suffix}'; known: {', '.join(VIDEO_SUFFIXES)}."
            )
        self._crf = crf
        self._rate = Fraction(self.fps).limit_denominator(100_000)
        self._graph: Graph | None = None

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_mp4 = self._suffix == ".mp4"
        options = _MP4_CONTAINER if is_mp4 else _GIF_CONTAINER
        self._file = _CheckedFile(self.path, "w")
        self._container = av.open(self._file, "w", format=self._suffix[1:], container_options=options)
        self._stream: VideoStream = self._container.add_stream("libx264" if is_mp4 else "gif", rate=self._rate)
        self._stream.height = height + height % 2 if is_mp4 else height
        self._stream.width = width + width % 2 if is_mp4 else width
        self._stream.pix_fmt = "yuv420p" if is_mp4 else "pal8"
        if is_mp4:
            # zerolatency: no frame waits in the encoder for those to come, or it would be lost with the process.
            self._stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": str(self._crf)}
            self._stream.gop_size = max(1, round(self.fps))
        else:
            self._graph = _palette_graph(height, width, 1 / self._rate)

    def _write(self, frame: np.ndarray) -> None:
        if self._suffix == ".mp4":
            frame = _pad_to_even(frame)
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = self.num_frames, 1 / self._rate
        if self._graph is None:
            self._encode(picture)
        else:
            self._graph.push(picture)
            self._encode_what_the_graph_has()

    def _finish(self) -> None:
        if self._graph is not None:
            self._graph.push(None)
            self._encode_what_the_graph_has()
        self._encode(None)
        self._container.close()
        self._file.close()
        if self._file.error is not None:
            raise self._file.error

    def _abandon(self) -> None:
        with suppress(OSError, FFmpegError):
            self._container.close()
        self._file.close()

    def _encode(self, picture: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def _encode_what_the_graph_has(self) -> None:
        assert self._graph is not None
        with suppress(NotYet, NoMore):
            while True:
                picture = self._graph.pull()
                assert isinstance(picture, av.VideoFrame)
                self._encode(picture)


class _CheckedFile(io.FileIO):
    """Unbuffered.

    error: the first failed write; FFmpeg keeps quiet about one that happens while it closes a file.
    """

    error: OSError | None = None

    def write(self, content: Buffer) -> int:
        try:
            write_all(super().write, content)
        except OSError as error:
            self.error = self.error or error
            raise
        return len(memoryview(content))


def _palette_graph(height: int, width: int, time_base: Fraction) -> Graph:
    """ffmpeg's `split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1`."""
    graph = Graph()
    source = graph.add("buffer", f"video_size={width}x{height}:pix_fmt=rgb24:time_base={time_base}")
    split = graph.add("split")
    palette = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _pad_to_even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
