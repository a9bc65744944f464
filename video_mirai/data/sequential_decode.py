"""Every frame of a video, decoded from start to end with PyAV: the truth that random access is compared with.

Each frame's picture is kept shrunk: enough to recognise the frame, at 1 KiB each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video_mirai.data.video_protocol import UnreadableVideo

PICTURE_SIDE = 32  # pixels
TRUNCATED_SECONDS = 0.5  # rounding in containers stays below
# These leave damaged parts out of the stream, and nothing but an error in the log says so.
SKIPPING_DEMUXERS = ("matroska,webm", "ogg")
ENDS_EARLY = "File ended prematurely"  # Matroska's
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue


class VideoFacts(NamedTuple):
    """What is known of a whole file.

    fps: as the container says, None where it doesn't; width, height: pixels of the upright picture; duration: seconds
    from the first frame to the end of the last.
    """

    frames: int
    fps: float | None
    width: int
    height: int
    codec: str
    duration: float


class SequentialDecode(NamedTuple):
    """Every frame of a file in the order shown, decoded from the start.

    pictures: (N, PICTURE_SIDE, PICTURE_SIDE) uint8, the luma of each upright frame, shrunk.
    seconds: (N,) presentation times since the first frame; None where the file has none.
    key_frames: numbers of the key frames, ascending.
    """

    facts: VideoFacts
    pictures: np.ndarray
    seconds: np.ndarray | None
    key_frames: list[int]


def decode_sequentially(path: Path) -> SequentialDecode:
    """Decodes a file from start to end, one thread; UnreadableVideo where anything is damaged or missing."""
    import av

    if path.stat().st_size == 0:
        raise UnreadableVideo(path, "empty: 0 bytes")
    with _logged_errors() as errors:
        try:
            container = av.open(str(path.absolute()), metadata_errors="ignore")
        except (av.FFmpegError, EOFError) as error:
            raise UnreadableVideo(path, f"not a video: {_strerror(error)}") from error
        with container:
            if not container.streams.video:
                raise UnreadableVideo(path, "no video stream: only sound or other data")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnreadableVideo(path, "unknown codec: PyAV has no decoder for it")
            return _decode_stream(path, container, stream, errors)


def shrink(frame: np.ndarray) -> np.ndarray:
    """Luma (PICTURE_SIDE, PICTURE_SIDE) uint8 of an RGB frame (H, W, 3) uint8, by the mean over each pixel's area."""
    import av

    return _Shrinker()(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))


class _Shrinker:
    """Shrinks PyAV frames of one size, through RGB, because that is what the readers give to compare with."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._to_rgb, self._to_small = VideoReformatter(), VideoReformatter()
        self._area = Interpolation.AREA

    def __call__(self, frame: Any) -> np.ndarray:
        rgb = self._to_rgb.reformat(frame, format="rgb24")
        small = self._to_small.reformat(rgb, PICTURE_SIDE, PICTURE_SIDE, "rgb24", interpolation=self._area)
        return np.rint(small.to_ndarray().astype(np.float32) @ LUMA_WEIGHTS).astype(np.uint8)


def _decode_stream(path: Path, container: Any, stream: Any, errors: Sequence[tuple[int, str, str]]) -> SequentialDecode:
    context = stream.codec_context
    context.options = {"err_detect": "explode"}  # else damage is painted over
    context.thread_count = 1  # files are checked side by side
    shrinker = _Shrinker()
    pictures: list[np.ndarray] = []
    seconds: list[float | None] = []
    key_frames: list[int] = []
    end, turns = 0.0, 0
    for packet, frame in _frames(path, container, stream, pictures):
        if packet.pts is not None and not packet.is_discard:
            end = max(end, float((packet.pts + (packet.duration or 0)) * stream.time_base))
        if frame is None:
            continue
        if frame.is_corrupt:
            raise UnreadableVideo(path, _damaged(len(pictures), "the decoder calls it corrupt"))
        turns = round(frame.rotation / 90) % 4
        if frame.key_frame:
            key_frames.append(len(pictures))
        pictures.append(np.rot90(shrinker(frame), turns))
        seconds.append(frame.time)
    if not pictures:
        raise UnreadableVideo(path, "no frames: the video stream is empty")
    _check_nothing_skipped(path, container.format.name, errors)
    _check_length(path, container, stream, end, len(pictures))
    sides = (context.height, context.width) if turns % 2 else (context.width, context.height)
    rate = stream.average_rate or stream.guessed_rate
    length = end - (seconds[0] or 0.0)
    duration = round(length if length > 0 else len(pictures) / float(rate or 1), 6)  # no times: counted
    facts = VideoFacts(len(pictures), float(rate) if rate else None, *sides, context.name, duration)
    known = [second for second in seconds if second is not None]
    times = np.array(known) - known[0] if len(known) == len(seconds) else None
    return SequentialDecode(facts, np.stack(pictures), times, key_frames)


def _frames(path: Path, container: Any, stream: Any, done: Sequence[object]) -> Iterator[tuple[Any, Any]]:
    """(packet, frame) of the stream; (packet, None) for a packet that gives none. `done`: the frames had so far."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise UnreadableVideo(path, _damaged(len(done), "the container marks its data as corrupt"))
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if not packet.is_discard:
                    raise
                frames = []  # cut away by an edit list: what it refers to was cut away as well
            yield packet, None
            for frame in frames:
                yield packet, frame
    except (av.FFmpegError, EOFError) as error:
        raise UnreadableVideo(path, _damaged(len(done), _strerror(error))) from error


def _check_nothing_skipped(path: Path, format_name: str, errors: Iterable[tuple[int, str, str]]) -> None:
    """UnreadableVideo where the log says that a container was damaged and the damage left out."""
    said = [message.strip() for _, name, message in errors if name == format_name]
    if not said or format_name not in SKIPPING_DEMUXERS:
        return
    if said[0] == ENDS_EARLY:
        raise UnreadableVideo(path, "truncated: the file ends in the middle of its data")
    raise UnreadableVideo(path, f"damaged: parts of the file are unreadable ({said[0]})")


def _check_length(path: Path, container: Any, stream: Any, end: float, num_frames: int) -> None:
    """UnreadableVideo where the container promises more seconds than there are; end: of the last frame, in seconds."""
    interval = end / num_frames
    promised = _seconds(stream.duration, stream.time_base)
    if promised is not None:
        promised += _seconds(stream.start_time, stream.time_base) or 0.0
    elif "DURATION" in stream.metadata:  # Matroska: the time at which the track ends
        hours, minutes, rest = stream.metadata["DURATION"].split(":")
        promised = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    elif len(container.streams) == 1:
        promised = _seconds(container.duration, 1e-6)
    if promised is not None and promised - end > max(TRUNCATED_SECONDS, 2 * interval):
        raise UnreadableVideo(path, f"truncated: ends after {end:.1f} of {promised:.1f} seconds, {num_frames} frames")


@contextmanager
def _logged_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Collects what libav logs as errors in this thread: (level, part of libav, message)."""
    from av import logging as libav_logging

    level, skips_repeated = libav_logging.get_level(), libav_logging.get_skip_repeated()
    libav_logging.set_level(libav_logging.ERROR)
    libav_logging.set_skip_repeated(False)  # else a message is missing where the file before led to the same one
    try:
        with libav_logging.Capture(local=True) as errors:
            yield errors
    finally:
        libav_logging.set_level(level)
        libav_logging.set_skip_repeated(skips_repeated)


def _damaged(num_frames: int, what: str) -> str:
    return f"damaged: decoding fails after frame {num_frames - 1} ({what})" if num_frames else f"damaged: {what}"


def _seconds(units: int | None, unit: Any) -> float | None:
    return None if units is None else float(units * unit)


def _strerror(error: Exception) -> str:
    """libav's message without its number and the file's name."""
    import av

    said = error.strerror if isinstance(error, av.FFmpegError) else None
    return said or type(error).__name__
