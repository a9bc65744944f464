"""Video frames through PyAV, decoding no more than a clip needs.

A frame is found by its time stamp, never by counting. The file's packets say which frames there are and where decoding
can start; they are read once in a process, for as long as the file does not change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video_mirai.data.video_protocol import (
    Change,
    OpenVideo,
    UnreadableVideo,
    VideoInfo,
    check_indices,
    first_line,
    unchanged,
)

SKIPPABLE_CODECS = ("h264",)  # here a picture itself says, and truly, that no other one refers to it
RESTART_FRAMES = 300  # frames up to here are read from the start of the file when their key frame is of no use
WORTH_A_SEEK = 8  # frames; a shorter gap between wanted frames is decoded through
CHANGED_BYTES = 4 << 20  # of full-size frames, changed at once
CACHED_FRAMES = 4_000_000  # index entries kept, of all files together; about 32 MB
NO_SEEKING = ("mpeg",)  # formats whose time stamps are not the same after seeking
CHECKED_FRAMES = 64  # of an AVI file
# libav decodes the start of every H.264 file that it opens, to learn its frame rate, its pixel format and how far its
# frames are out of order. These files themselves say the rate and, nearly always, the order; the format comes with
# each frame.
QUICK_SUFFIXES = (".m4v", ".mov", ".mp4")
QUICK_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"
QUICK_OPTIONS = {"fpsprobesize": "0", "probesize": "32"}  # probe nothing
MOST_STREAMS = 8  # of a file with more the first frame is decoded after all
QUICK_STREAM_OPTIONS = [{"skip_frame": "all"}] * MOST_STREAMS  # decode nothing
NO_ORDER = "its time stamps do not follow the order of its frames; rewrite it, e.g. as mp4"


class FrameIndex(NamedTuple):
    """What a file's packets say about its N frames, in the order in which they are shown.

    pts: (N,) presentation times, ascending, in the stream's time base.
    starts: (K,) numbers of the frames that decoding can start at, ascending: frame 0, for which the file is decoded
        from its first packet on, and the key frames after it.
    start_dts: (K,) decoding times of the packets to start with.
    """

    pts: np.ndarray
    starts: np.ndarray
    start_dts: np.ndarray


class Start(NamedTuple):
    """A frame that decoding can start at, and the times of its packet."""

    frame: int
    pts: int
    dts: int


@contextmanager
def open_pyav(path: Path) -> Iterator[OpenVideo]:
    """The video, open until the context ends; UnreadableVideo where it cannot be opened."""
    with ExitStack() as containers:
        yield _PyavVideo(path, containers)


def claimed_frames(path: Path) -> float:
    """How many frames the header says there are, by their number or their duration; 0 where it cannot be read."""
    import av

    try:
        with av.open(str(path.absolute()), metadata_errors="ignore") as container:
            seconds = (container.duration or 0) / av.time_base
            claims = [0.0]
            for stream in container.streams.video:
                rate = float(stream.average_rate or stream.guessed_rate or 0)
                claims += [stream.frames, seconds * rate, float((stream.duration or 0) * stream.time_base) * rate]
            return max(claims)
    except (av.FFmpegError, EOFError):
        return 0


class _PyavVideo:
    """A file opened quickly where that is enough to read it, and once more where it proves not to be."""

    def __init__(self, path: Path, containers: ExitStack) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._path = path
        self._containers = containers
        self._converter = VideoReformatter()  # one for all frames: setting it up costs more than converting a small one
        self._one_thread = (
            {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
        )  # before, there was no choice
        self._open(quickly=path.suffix.lower() in QUICK_SUFFIXES and str(path) not in _opened_slowly)
        self.timestamps = (self._index.pts - self._index.pts[0]) * float(self._stream.time_base)

    def _open(self, *, quickly: bool) -> None:
        path = self._path
        try:
            container = self._container_of(quickly=quickly)
        except UnreadableVideo:
            if not quickly:
                raise
            return self._open(quickly=False)  # formats that name their streams as they come take no options for them
        if quickly and container.format.name != QUICK_FORMAT:
            return self._open(quickly=False)
        if not container.streams.video:
            raise UnreadableVideo(path, "has no video stream")
        self._is_quick = quickly
        self._container = container
        self._stream = container.streams.video[0]
        self._context = self._stream.codec_context
        if self._context is None:
            raise UnreadableVideo(path, "not a readable video (its codec is unknown)")
        self._context.thread_count = 1  # a loader worker is given one core
        self._context.options = {"err_detect": "explode"}  # else damage is painted over
        self._can_skip = self._context.name in SKIPPABLE_CODECS
        with _named_errors(path, "not a readable video"):
            self._index = _cached_index(path, container)
        self._wanted: frozenset[int] = frozenset()  # presentation times of the frames that are being read
        self._last = 0  # of these
        self._change: Change = unchanged
        self._size: tuple[int, int] | None = None  # (height, width) of the frames that have been read
        self._frames: Iterator[Any] | None = None  # from a decoder that can go on after the frames read last
        self._next_frame = 0  # the one after the last that was read

    def _container_of(self, *, quickly: bool) -> Any:
        import av

        name = str(self._path.absolute())  # an absolute path is never taken for an address
        with _named_errors(self._path, "not a readable video"):
            container = av.open(
                name,
                options=QUICK_OPTIONS if quickly else {},
                stream_options=QUICK_STREAM_OPTIONS if quickly else [],  # type: ignore[arg-type]  # the stub is wrong
                metadata_errors="ignore",  # a title in a wrong encoding is no reason to refuse a video
            )
        return self._containers.enter_context(container)

    @property
    def key_frames(self) -> np.ndarray:
        return self._index.starts

    @property
    def info(self) -> VideoInfo:
        if self._is_quick:
            self._open(quickly=False)  # where the file does not say its frame rate, it is estimated on opening
        rate = self._stream.average_rate or self._stream.guessed_rate
        if not rate:
            raise UnreadableVideo(self._path, "does not say its frame rate")
        self._change, self._size = unchanged, None
        with _named_errors(self._path, "decoding failed"):
            pictures = self._read_run(
                [0], follows=False, reads_on=False
            )  # only a decoded frame says how it is to be turned
        if not pictures:
            raise UnreadableVideo(self._path, "decoding failed (its first frame is missing)")
        height, width = next(iter(pictures.values())).shape[:2]
        return VideoInfo(len(self._index.pts), float(rate), height, width)

    def read(self, frame_indices: Sequence[int], *, reads_on: bool = False, change: Change = unchanged) -> np.ndarray:
        check_indices(self._path, frame_indices, len(self._index.pts))
        try:
            return self._read(frame_indices, reads_on, change)
        except UnreadableVideo:
            if not self._is_quick:
                raise
        self._open(quickly=False)
        frames = self._read(frame_indices, reads_on, change)
        _opened_slowly.add(str(self._path))
        return frames

    def _read(self, frame_indices: Sequence[int], reads_on: bool, change: Change) -> np.ndarray:
        self._change = change
        self._size = None
        wanted = sorted(set(frame_indices))
        # A read by itself ends with the last packet that it needs; reads that follow each other keep the decoder going.
        follows = self._next_frame > 0 and 0 <= wanted[0] - self._next_frame <= WORTH_A_SEEK
        found: dict[int, np.ndarray] = {}
        with _named_errors(self._path, "decoding failed"):
            for run in self._runs(wanted):
                found |= self._read_run(run, follows, reads_on)
        missing = len(wanted) - len(found)
        if missing:
            raise UnreadableVideo(self._path, f"decoding failed ({missing} of {len(wanted)} frames are missing)")
        self._next_frame = wanted[-1] + 1
        return np.stack([found[int(self._index.pts[frame])] for frame in frame_indices])

    def _runs(self, wanted: list[int]) -> Iterator[list[int]]:
        """The frames in parts, cut where starting again from a key frame saves decoding."""
        run = wanted[:1]
        for frame in wanted[1:]:
            if self._start(frame).frame - run[-1] > WORTH_A_SEEK:
                yield run
                run = []
            run.append(frame)
        yield run

    def _read_run(self, run: list[int], follows: bool, reads_on: bool) -> dict[int, np.ndarray]:
        """What becomes of each frame, by presentation time; those that the file does not give are missing."""
        import av

        self._wanted = frozenset(int(self._index.pts[frame]) for frame in run)
        self._last = int(self._index.pts[run[-1]])
        start = self._start(run[0])
        frames, self._frames = self._frames, None  # lost, unless this ends well
        if frames is None or not follows or run[0] < self._next_frame:
            frames = self._decode(start, goes_on=follows or reads_on, may_skip=self._can_skip)
        may_retry = start.frame > 0 and run[0] <= RESTART_FRAMES
        try:
            found = self._take(frames)
        except av.FFmpegError:
            if not may_retry:
                raise
            found = {}
        if len(found) < len(self._wanted) and may_retry:
            # Not every key frame is a clean start, and some containers seek too far.
            frames = self._decode(self._start(0), goes_on=follows or reads_on, may_skip=False)
            found = self._take(frames)
        if follows or reads_on:
            self._frames = frames
        return found

    def _take(self, frames: Iterator[Any]) -> dict[int, np.ndarray]:
        """The wanted ones among the decoder's frames, as RGB and upright; stops after the last."""
        found: dict[int, np.ndarray] = {}
        full: dict[int, np.ndarray] = {}  # not changed yet
        shown = None
        for frame in frames:
            if frame.is_corrupt:
                raise UnreadableVideo(self._path, "decoding failed (a damaged frame)")
            if frame.pts is None or (shown is not None and frame.pts < shown):
                raise UnreadableVideo(self._path, NO_ORDER)
            shown = frame.pts
            if shown in self._wanted:
                full[shown] = self._upright(frame)
                if len(full) * full[shown].nbytes >= CHANGED_BYTES:
                    found |= self._changed(full)
                    full = {}
            if shown >= self._last:
                break
        return found | self._changed(full)

    def _upright(self, frame: Any) -> np.ndarray:
        """(H, W, 3); UnreadableVideo where frames before it had another size."""
        picture: np.ndarray = self._converter.reformat(frame, format="rgb24", **self._one_thread).to_ndarray()
        if frame.rotation:
            picture = np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
        size = picture.shape[:2]
        if self._size not in (None, size):
            sizes = sorted([self._size, size])
            raise UnreadableVideo(self._path, f"its frames have several sizes (height, width): {sizes}")
        self._size = size
        return picture

    def _changed(self, frames: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        if not frames:
            return {}
        changed = self._change(np.stack(list(frames.values())))
        assert len(changed) == len(frames), "a change makes as many frames as it is given"
        return dict(zip(frames, changed, strict=True))

    def _decode(self, start: Start, *, goes_on: bool, may_skip: bool) -> Iterator[Any]:
        """Decoded frames in the order shown, from the start; unless it `goes_on`, until those wanted were given."""
        missing = set(self._wanted)
        for packet in self._packets(start):
            unused = may_skip and packet.pts is not None and packet.pts not in self._wanted
            if unused and goes_on and packet.pts > self._last:
                unused = False  # it may be wanted next
            self._context.skip_frame = "NONREF" if unused else "DEFAULT"
            yield from packet.decode()
            missing.discard(packet.pts)
            if not missing and not goes_on:
                yield from self._context.decode(None)  # the frames held back to be put in order
                return

    def _packets(self, start: Start) -> Iterator[Any]:
        """Packets in decoding order from the start on; none where no seeking arrives there."""
        for time in (start.pts, start.dts):  # containers differ in which of them they seek
            self._container.seek(time, stream=self._stream)
            packets = self._container.demux(self._stream)
            first = next(packets)
            if first.pts == start.pts or (first.dts is not None and first.dts <= start.dts):
                break
        else:
            return
        if start.frame == 0:
            yield from chain([first], packets)
            return
        for packet in dropwhile(lambda packet: packet.pts != start.pts, chain([first], packets)):
            # A frame shown before the key frame but decoded after it may refer to what came before.
            if packet.pts is None or packet.pts >= start.pts:
                yield packet

    def _start(self, frame: int) -> Start:
        """The last place to start decoding from, if a frame is wanted."""
        number = int(np.searchsorted(self._index.starts, frame, side="right")) - 1
        at = int(self._index.starts[number])
        return Start(at, int(self._index.pts[at]), int(self._index.start_dts[number]))


FileKey = tuple[str, int, int, int]
_indexes: OrderedDict[FileKey, FrameIndex] = OrderedDict()  # the one used last comes last
_opened_slowly: set[str] = set()  # files that this process could not read when they were opened quickly


def _cached_index(path: Path, container: Any) -> FrameIndex:
    """The file's index, read when the file is new or has changed."""
    status = path.stat()
    key = (str(path.absolute()), status.st_ino, status.st_size, status.st_mtime_ns)
    index = _indexes.pop(key, None)
    if index is None:
        index = _read_index(path, container)
        while _indexes and sum(len(kept.pts) for kept in _indexes.values()) + len(index.pts) > CACHED_FRAMES:
            _indexes.popitem(last=False)
    _indexes[key] = index
    return index


def _read_index(path: Path, container: Any) -> FrameIndex:
    """Reads all packets, decoding nothing; they come in decoding order."""
    stream = container.streams.video[0]
    shown: dict[int, tuple[bool, int]] = {}  # by presentation time: whether it is a key frame, decoding time
    first_dts = None
    for packet in container.demux(stream):
        if packet.pts is None:
            continue
        dts = packet.pts if packet.dts is None else packet.dts
        first_dts = dts if first_dts is None else first_dts
        if not packet.is_discard:
            shown[packet.pts] = (packet.is_keyframe, dts)
    if not shown:
        raise UnreadableVideo(path, "has no frames")
    pts = np.array(sorted(shown), dtype=np.int64)
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        # AVI does not say when a frame is shown. Only some codecs make up for it.
        container.seek(int(pts[0]), stream=stream)
        times = [frame.pts for frame in islice(container.decode(stream), CHECKED_FRAMES)]
        if times != pts[: len(times)].tolist():
            raise UnreadableVideo(path, NO_ORDER)
    starts = [0]
    if container.format.name not in NO_SEEKING:
        starts += [number for number, time in enumerate(pts.tolist()) if shown[time][0] and number > 0]
    start_dts = [first_dts] + [shown[int(pts[number])][1] for number in starts[1:]]
    return FrameIndex(pts, np.array(starts), np.array(start_dts))


@contextmanager
def _named_errors(path: Path, what: str) -> Iterator[None]:
    """PyAV's errors as UnreadableVideo."""
    import av

    try:
        yield
    except UnreadableVideo:
        raise
    except (av.FFmpegError, EOFError, ValueError, OverflowError) as error:
        raise UnreadableVideo(path, f"{what} ({first_line(error)})") from error
