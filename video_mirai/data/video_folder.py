"""Clips from a folder or a list of ordinary video files.

Which files there are is read at construction, their contents only when a clip is asked for: building a data set opens
one file for the frame rate (none when `fps` is given), and the split's files only when `stride_seconds` asks for
sliding clips.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from video_mirai.data.batch import VideoSample
from video_mirai.data.captions import CAPTIONS, with_captions
from video_mirai.data.clip_context import CONTEXTS
from video_mirai.data.clip_dataset import ClipDataset, ClipPlace, check_settings
from video_mirai.data.video_list import VideoFile, list_videos, split_of
from video_mirai.data.video_reader import OpenVideo, UnreadableVideo, available_backend, fit_frames, open_video, probe

logger = logging.getLogger(__name__)

RATE_TOLERANCE = 0.05
RANDOM_SPLITS = ("train", "all")  # in the others clips are evenly spaced


@dataclass
class VideoFolderConfig:
    """Where the clips come from and how they are cut.

    root: a folder, searched recursively, or a manifest: .txt with a path per line (# starts a comment), or .jsonl with
        a "path" per line and, for pieces, a range of frames; relative paths start at the manifest. See docs/data.md.
    num_frames, height, width: size of a clip; the shorter side is resized, the centre is kept.
    fps: frame rate of the clips, made by taking the nearest frames in time; None: every frame of the file, as it is.
    split: "train", "val", "test" or "all". A file's split follows from its relative path and the seed alone: adding
        files moves no other.
    val_fraction, test_fraction: expected shares of the files.
    clips_per_video: clips of every file in an epoch, at random times for "train" and "all", evenly spaced for "val" and
        "test".
    clips_per_place: repeated sampling: so many of these clips lie one after the other from each random place on, are
        decoded in one go and come in one batch; clips_per_video and the batch are multiples of it. For "val" and
        "test" always one.
    random_starts: "any" or "key_frames": where random places are. From a key frame on nothing but the clips is decoded;
        but then a frame is seen only at its own distance from it.
    stride_seconds: instead, a clip every so many seconds, as many as the file holds; fixed, whatever the split.
    seed: of the split and of the random times.
    backend: "decord" or "pyav".
    on_bad: "skip" draws another clip for a file that cannot be read, "raise" makes it an error.
    max_bad_fraction: of the split's files; when more are bad, "skip" fails.
    captions: what becomes the clips' `caption`: "none", "sidecar" (clip.txt or clip.json beside clip.mp4), "manifest"
        or "folder" (its name); asked for, every video of the split must have one.
    context: what becomes the clips' `context`: "none", "class" (of the folder's name, one-hot: (1, classes)) or
        "actions" (numbers from clip.jsonl, frame by frame: (num_frames, 1, len(actions)), zero at the file's start).
    actions: the numbers' names in clip.jsonl, in the order wanted; their unit is the file's.
    """

    root: str
    num_frames: int = 16
    height: int = 64
    width: int = 64
    fps: float | None = None
    split: str = "train"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    clips_per_video: int = 1
    clips_per_place: int = 1
    random_starts: str = "any"
    stride_seconds: float | None = None
    seed: int = 0
    backend: str = "decord"
    on_bad: str = "skip"
    max_bad_fraction: float = 0.05
    captions: str = "none"
    context: str = "none"
    actions: tuple[str, ...] = ()


class VideoFolder(ClipDataset):
    """Map-style data set of clips: video (T, 3, H, W) float32 in [-1, 1], name (the file's relative path), index.

    Where asked for, a clip has a caption and a context too; `class_names` are the classes of a class context.

    What ClipDataset says of bad items holds for files; where a manifest cuts files into pieces, a piece counts as a
    file. The keyword arguments are VideoFolderConfig's.

    Raises FileNotFoundError for a missing root; ValueError for an empty one, an empty split or a setting that cannot
    be; UnreadableVideo for a bad file with on_bad="raise"; TooManyBadItems. Both are ValueErrors.
    """

    ITEMS = "videos"

    def __init__(
        self,
        root: str | Path,
        num_frames: int = VideoFolderConfig.num_frames,
        *,
        height: int = VideoFolderConfig.height,
        width: int = VideoFolderConfig.width,
        fps: float | None = VideoFolderConfig.fps,
        split: str = VideoFolderConfig.split,
        val_fraction: float = VideoFolderConfig.val_fraction,
        test_fraction: float = VideoFolderConfig.test_fraction,
        clips_per_video: int = VideoFolderConfig.clips_per_video,
        clips_per_place: int = VideoFolderConfig.clips_per_place,
        random_starts: str = VideoFolderConfig.random_starts,
        stride_seconds: float | None = VideoFolderConfig.stride_seconds,
        seed: int = VideoFolderConfig.seed,
        backend: str = VideoFolderConfig.backend,
        on_bad: str = VideoFolderConfig.on_bad,
        max_bad_fraction: float = VideoFolderConfig.max_bad_fraction,
        captions: str = VideoFolderConfig.captions,
        context: str = VideoFolderConfig.context,
        actions: Sequence[str] = VideoFolderConfig.actions,
    ) -> None:
        self.config = VideoFolderConfig(
            str(root), num_frames, height, width, fps, split, val_fraction, test_fraction, clips_per_video,
            clips_per_place, random_starts, stride_seconds, seed, backend, on_bad, max_bad_fraction, captions, context,
            tuple(actions),
        )  # fmt: skip
        check_config(self.config)
        available_backend(backend)
        super().__init__(self.config)
        self.mixed_rates = False
        self.clips_per_place = clips_per_place if split in RANDOM_SPLITS else 1
        listed = list_videos(Path(root))
        self.files = [
            file for file in listed if split in ("all", split_of(file.source, seed, val_fraction, test_fraction))
        ]
        if not self.files:
            raise ValueError(
                f"{root}: split {split!r} is empty (of {len(listed)} videos, val_fraction={val_fraction}, "
                f"test_fraction={test_fraction}); add videos, raise the fraction or change the seed."
            )
        self.files = with_captions(self._long_enough(self.files), captions)
        self.num_items = len(self.files)
        self._context = CONTEXTS[context](listed, self.config.actions)
        self.class_names = self._context.class_names if self._context is not None else ()
        self.fps = fps if fps is not None else self._native_fps()
        self.places = self._places()

    def clip_name(self, index: int) -> str:
        """The file's relative path; clips of one file, and of its pieces, share it. Nothing is read."""
        return self.files[self.places[index // self.clips_per_place].item].source

    def _long_enough(self, files: Sequence[VideoFile]) -> list[VideoFile]:
        """Without the pieces that are listed with fewer frames than a clip has; ValueError where none is left."""
        num_frames = self.config.num_frames
        if self.config.fps is not None:
            return list(files)  # only their times could tell
        kept = [file for file in files if file.end_frame is None or file.end_frame - file.first_frame >= num_frames]
        if not kept:
            raise ValueError(f"{self.config.root}: all {len(files)} pieces are shorter than {num_frames} frames.")
        if len(kept) < len(files):
            logger.warning("%s: %d of %d pieces are shorter than %d frames and left out", self.config.root,
                           len(files) - len(kept), len(files), num_frames)  # fmt: skip
        return kept

    def _item_name(self, item: int) -> str:
        file = self.files[item]
        return f"{file.path}{file.name.removeprefix(file.source)}"  # its path, and the piece

    def _read(self, place: ClipPlace, members: Sequence[int], generator: np.random.Generator) -> list[VideoSample]:
        """Opens and closes the file, since a decord reader does not survive a fork."""
        file = self.files[place.item]
        with open_video(file.path, self.config.backend) as video:
            times = piece_times(file, video.timestamps)
            starts = self._starts(file, video, times, place.slot, generator)
            self._check_rate(file.path, video.timestamps)
            return [
                self._read_clip(file, video, times, starts[member], reads_on=member != members[-1])
                for member in members
            ]

    def _read_clip(
        self, file: VideoFile, video: OpenVideo, times: np.ndarray, start: int, *, reads_on: bool
    ) -> VideoSample:
        """The clip that starts at a frame, counted in its piece."""
        config = self.config
        sample = VideoSample(name=file.name)
        if config.captions != "none":
            assert file.caption is not None, "with_captions lets none pass without"
            sample["caption"] = file.caption
        indices = [file.first_frame + index for index in clip_indices(times, start, config.num_frames, config.fps)]
        if self._context is not None:
            before = file.first_frame + frame_before(times, start, config.fps)
            sample["context"] = self._context(file, [before, *indices], len(video.timestamps))
        change = partial(fit_frames, height=config.height, width=config.width)
        frames = video.read(indices, reads_on=reads_on, change=change)
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        sample["video"] = pixels.float().div_(127.5).sub_(1)
        return sample

    def _starts(
        self, file: VideoFile, video: OpenVideo, times: np.ndarray, slot: int, generator: np.random.Generator
    ) -> list[int]:
        """First frames of a place's clips, counted in their piece."""
        config = self.config
        count = self._count_starts(file, times)
        if config.stride_seconds is not None:
            return [min(int(nearest(times, np.array([slot * config.stride_seconds]))[0]), count - 1)]
        if config.split not in RANDOM_SPLITS:
            return [(2 * slot + 1) * count // (2 * config.clips_per_video)]
        instants = (np.arange(count) if config.fps is None else times[:count]).astype(np.float64)
        length = config.num_frames / (config.fps or 1)  # in the same unit: frames, or seconds
        others = np.arange(1, self.clips_per_place)
        step = min(length, instants[-1] / max(1, len(others)))  # where the piece is too short, its clips overlap
        room = int(np.searchsorted(instants, instants[-1] - len(others) * step + 1e-6, side="right"))
        first = self._draw_start(file, video, room, generator)
        return [first, *nearest(instants, instants[first] + step * others).tolist()]

    def _draw_start(self, file: VideoFile, video: OpenVideo, room: int, generator: np.random.Generator) -> int:
        """One of the piece's first `room` frames, a key frame where that is asked for."""
        if self.config.random_starts == "key_frames":
            places = video.key_frames - file.first_frame
            places = places[(places >= 0) & (places < room)]
            if len(places):  # else it is a piece without one
                return int(generator.choice(places))
        return int(generator.integers(room))

    def _count_starts(self, file: VideoFile, times: np.ndarray) -> int:
        """At least 1; UnreadableVideo where the piece is too short for a clip."""
        config = self.config
        starts = count_starts(times, config.num_frames, config.fps)
        if starts == 0:
            where = "" if file.name == file.source else f"{piece_label(file)} is "
            needed = f"{config.num_frames} frames" + ("" if config.fps is None else f" at {config.fps:g} fps")
            reason = f"{where}too short ({len(times)} frames over {times[-1]:.2f} s; a clip needs {needed})"
            raise UnreadableVideo(file.path, reason)
        return starts

    def _check_rate(self, path: Path, timestamps: np.ndarray) -> None:
        """Says once when a file plays at another rate than the first and nothing evens that out."""
        if self.config.fps is not None or self.mixed_rates or len(timestamps) < 2:
            return
        rate = (len(timestamps) - 1) / float(timestamps[-1])
        if abs(rate / self.fps - 1) > RATE_TOLERANCE:
            self.mixed_rates = True
            logger.warning("%s has %.3g fps, others have %.3g: motion differs in speed; set fps", path, rate, self.fps)

    def _native_fps(self) -> float:
        """Frame rate of the first file that can be read."""
        for item, file in enumerate(self.files):
            try:
                return probe(file.path, self.config.backend).fps
            except UnreadableVideo as error:
                self._count_bad(item, error)
        raise AssertionError("_count_bad lets at most some of the files be bad")

    def _places(self) -> list[ClipPlace]:
        config = self.config
        if config.stride_seconds is None:
            slots = range(config.clips_per_video // self.clips_per_place)
            return [ClipPlace(item, slot) for slot in slots for item in range(len(self.files))]
        places = []
        for item, file in enumerate(self.files):
            try:
                with open_video(file.path, config.backend) as video:
                    times = piece_times(file, video.timestamps)
                    starts = self._count_starts(file, times)
                    num_clips = int(times[starts - 1] / config.stride_seconds + 1e-6) + 1
            except UnreadableVideo as error:
                self._count_bad(item, error)
                continue
            places += [ClipPlace(item, slot) for slot in range(num_clips)]
        return places


def piece_times(file: VideoFile, timestamps: np.ndarray) -> np.ndarray:
    """(N,) seconds of the frames that clips may show, since the first of them.

    timestamps: of the whole file. Raises UnreadableVideo where the file does not have the frames listed.
    """
    last = len(timestamps) if file.end_frame is None else file.end_frame
    if last > len(timestamps) or file.first_frame >= last:
        raise UnreadableVideo(file.path, f"{piece_label(file)} is listed, but it has {len(timestamps)} frames")
    times = timestamps[file.first_frame : last]
    return times - times[0]


def piece_label(file: VideoFile) -> str:
    """How messages name the frames that are listed of a file."""
    return f"piece {file.first_frame}-{'' if file.end_frame is None else file.end_frame}"


def frame_before(timestamps: np.ndarray, start: int, fps: float | None) -> int:
    """The frame that would come before the clip that starts at frame `start`; `start` itself where there is none."""
    if fps is None:
        return max(0, start - 1)
    return int(nearest(timestamps, timestamps[start : start + 1] - 1 / fps)[0])


def count_starts(timestamps: np.ndarray, num_frames: int, fps: float | None) -> int:
    """How many of the first frames a clip can start at.

    timestamps: (N,) seconds. A resampled clip may end half a frame after the last one, which is still nearest.
    """
    if fps is None:
        return max(0, len(timestamps) - num_frames + 1)
    half_frame = 0.5 * (timestamps[-1] - timestamps[0]) / max(1, len(timestamps) - 1)
    latest = timestamps[-1] + half_frame - (num_frames - 1) / fps
    return int(np.searchsorted(timestamps, latest, side="right"))


def clip_indices(timestamps: np.ndarray, start: int, num_frames: int, fps: float | None) -> list[int]:
    """Frames of the clip that starts at frame `start`: those nearest to start time + k / fps, or the next ones."""
    if fps is None:
        return list(range(start, start + num_frames))
    return nearest(timestamps, timestamps[start] + np.arange(num_frames) / fps).tolist()


def nearest(timestamps: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Index of the timestamp nearest to each time; the earlier of two equally near."""
    after = np.searchsorted(timestamps, times).clip(max=len(timestamps) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(times - timestamps[before] <= timestamps[after] - times, before, after)


def check_config(config: VideoFolderConfig) -> None:
    """Raises ValueError naming the first setting that cannot be."""
    check_settings(config)
    for name, size in (("height", config.height), ("width", config.width)):
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1.")
    if config.fps is not None and not config.fps > 0:
        raise ValueError(f"fps={config.fps} must be positive, or null.")
    for name, kind, known in (("captions", config.captions, CAPTIONS), ("context", config.context, CONTEXTS)):
        if kind not in known:
            raise ValueError(f"{name}={kind!r} is unknown; known: {', '.join(known)}.")
    if (config.context == "actions") != bool(config.actions):
        raise ValueError(
            f"context={config.context!r} with actions={list(config.actions)}: name the fields of the .jsonl files with "
            f"context='actions', and only then."
        )
    if config.clips_per_place < 1:
        raise ValueError(f"clips_per_place={config.clips_per_place} must be at least 1.")
    if config.split in RANDOM_SPLITS and config.clips_per_place > 1:
        if config.stride_seconds is not None:
            raise ValueError("clips_per_place is for random places; leave out either it or stride_seconds.")
        if config.clips_per_video % config.clips_per_place:
            raise ValueError(
                f"clips_per_video={config.clips_per_video} is not a multiple of "
                f"clips_per_place={config.clips_per_place}."
            )
    if config.random_starts not in ("any", "key_frames"):
        raise ValueError(f"random_starts={config.random_starts!r} is unknown; known: any, key_frames.")
