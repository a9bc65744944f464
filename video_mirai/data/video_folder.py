"""Clips from a folder or a list of ordinary video files.

Which files there are is read at construction, their contents only when a clip is asked for: building a data set opens
one file for the frame rate (none when `fps` is given), and the split's files only when `stride_seconds` asks for
sliding clips.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.video_list import list_videos, split_of
from video_mirai.data.video_reader import UnreadableVideo, WorkerError, available_backend, fit_frames, open_video, probe

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "all")
RATE_TOLERANCE = 0.05
MAX_ATTEMPTS = 100  # replacement clips drawn for one bad one
NAMED_FILES = 3  # bad files that an error names


@dataclass
class VideoFolderConfig:
    """Where the clips come from and how they are cut.

    root: a folder, searched recursively, or a manifest: .txt with a path per line (# starts a comment), or .jsonl with
        a "path" per line; relative paths start at the manifest.
    num_frames, height, width: size of a clip; the shorter side is resized, the centre is kept.
    fps: frame rate of the clips, made by taking the nearest frames in time; None: every frame of the file, as it is.
    split: "train", "val", "test" or "all". A file's split follows from its relative path and the seed alone: adding
        files moves no other.
    val_fraction, test_fraction: expected shares of the files.
    clips_per_video: clips of every file in an epoch, at random times for "train" and "all", evenly spaced for "val" and
        "test".
    stride_seconds: instead, a clip every so many seconds, as many as the file holds; fixed, whatever the split.
    seed: of the split and of the random times.
    backend: "decord" or "pyav".
    on_bad: "skip" draws another clip for a file that cannot be read, "raise" makes it an error.
    max_bad_fraction: of the split's files; when more are bad, "skip" fails.
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
    stride_seconds: float | None = None
    seed: int = 0
    backend: str = "decord"
    on_bad: str = "skip"
    max_bad_fraction: float = 0.05


class TooManyBadVideos(WorkerError):
    """More files than allowed cannot be read."""


class ClipPlace(NamedTuple):
    """Where in the split a clip is cut: `slot` of `num_slots` in file number `file`."""

    file: int
    slot: int


class VideoFolder(Dataset[VideoSample]):
    """Map-style data set of clips: video (T, 3, H, W) float32 in [-1, 1], name (the file's relative path), index.

    A clip depends only on (seed, epoch, index), not on the process that reads it. With on_bad="skip" a clip that cannot
    be read is replaced by one drawn from (seed, epoch, index, attempt). Each process counts and logs the bad files it
    has met itself, in `bad_files`; a loader's workers therefore each log a file once, and each fails when it alone has
    met too many. The keyword arguments are VideoFolderConfig's.

    Raises FileNotFoundError for a missing root; ValueError for an empty one, an empty split or a setting that cannot
    be; UnreadableVideo for a bad file with on_bad="raise"; TooManyBadVideos. Both are ValueErrors.
    """

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
        stride_seconds: float | None = VideoFolderConfig.stride_seconds,
        seed: int = VideoFolderConfig.seed,
        backend: str = VideoFolderConfig.backend,
        on_bad: str = VideoFolderConfig.on_bad,
        max_bad_fraction: float = VideoFolderConfig.max_bad_fraction,
    ) -> None:
        self.config = VideoFolderConfig(
            str(root), num_frames, height, width, fps, split, val_fraction, test_fraction, clips_per_video,
            stride_seconds, seed, backend, on_bad, max_bad_fraction,
        )  # fmt: skip
        check_config(self.config)
        available_backend(backend)
        self.bad_files: dict[str, str] = {}
        self.mixed_rates = False
        listed = list_videos(Path(root))
        self.files = [
            file for file in listed if split in ("all", split_of(file.name, seed, val_fraction, test_fraction))
        ]
        if not self.files:
            raise ValueError(
                f"{root}: split {split!r} is empty (of {len(listed)} videos, val_fraction={val_fraction}, "
                f"test_fraction={test_fraction}); add videos, raise the fraction or change the seed."
            )
        self.fps = fps if fps is not None else self._native_fps()
        self.places = self._places()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: int | ClipKey) -> VideoSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self.places):
            raise IndexError(f"clip {index} is not in 0..{len(self.places) - 1}.")
        place = self.places[index]
        for attempt in range(MAX_ATTEMPTS):
            generator = np.random.default_rng([self.config.seed, epoch, index, attempt])
            if attempt > 0:
                place = self.places[generator.integers(len(self.places))]
            try:
                video = self._read(place, generator)
            except UnreadableVideo as error:
                self._count_bad(error)
                continue
            return VideoSample(video=video, name=self.files[place.file].name, index=index)
        raise TooManyBadVideos(f"{self.config.root}: {MAX_ATTEMPTS} clips in turn cannot be read; {self._name_bad()}.")

    def _read(self, place: ClipPlace, generator: np.random.Generator) -> Tensor:
        """Clip (T, 3, H, W); the file is opened and closed here, since a decord reader does not survive a fork."""
        config = self.config
        path = self.files[place.file].path
        with open_video(path, config.backend) as video:
            starts = count_starts(video.timestamps, config.num_frames, config.fps)
            if starts == 0:
                raise UnreadableVideo(path, self._too_short(video.timestamps))
            if config.stride_seconds is not None:
                time = np.array([place.slot * config.stride_seconds])
                start = min(int(nearest(video.timestamps, time)[0]), starts - 1)
            elif config.split in ("val", "test"):
                start = (2 * place.slot + 1) * starts // (2 * config.clips_per_video)
            else:
                start = int(generator.integers(starts))
            self._check_rate(path, video.timestamps)
            indices = clip_indices(video.timestamps, start, config.num_frames, config.fps)
            frames = fit_frames(video.read(indices), config.height, config.width)
        return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)

    def _check_rate(self, path: Path, timestamps: np.ndarray) -> None:
        """Says once when a file plays at another rate than the first and nothing evens that out."""
        if self.config.fps is not None or self.mixed_rates or len(timestamps) < 2:
            return
        rate = (len(timestamps) - 1) / float(timestamps[-1])
        if abs(rate / self.fps - 1) > RATE_TOLERANCE:
            self.mixed_rates = True
            logger.warning("%s has %.3g fps, others have %.3g: motion differs in speed; set fps", path, rate, self.fps)

    def _too_short(self, timestamps: np.ndarray) -> str:
        seconds = timestamps[-1] - timestamps[0]
        needed = f"{self.config.num_frames} frames"
        if self.config.fps is not None:
            needed += f" at {self.config.fps:g} fps"
        return f"too short ({len(timestamps)} frames over {seconds:.2f} s; a clip needs {needed})"

    def _native_fps(self) -> float:
        """Frame rate of the first file that can be read."""
        for file in self.files:
            try:
                return probe(file.path, self.config.backend).fps
            except UnreadableVideo as error:
                self._count_bad(error)
        raise AssertionError("_count_bad lets at most some of the files be bad")

    def _places(self) -> list[ClipPlace]:
        config = self.config
        if config.stride_seconds is None:
            slots = range(config.clips_per_video)
            return [ClipPlace(file, slot) for slot in slots for file in range(len(self.files))]
        places = []
        for number, file in enumerate(self.files):
            try:
                with open_video(file.path, config.backend) as video:
                    starts = count_starts(video.timestamps, config.num_frames, config.fps)
                    if starts == 0:
                        raise UnreadableVideo(file.path, self._too_short(video.timestamps))
                    num_clips = int(video.timestamps[starts - 1] / config.stride_seconds + 1e-6) + 1
            except UnreadableVideo as error:
                self._count_bad(error)
                continue
            places += [ClipPlace(number, slot) for slot in range(num_clips)]
        return places

    def _count_bad(self, error: UnreadableVideo) -> None:
        """Logs a bad file once and goes on, unless the settings say that it is an error."""
        if self.config.on_bad == "raise":
            raise error
        if error.path in self.bad_files:
            return
        self.bad_files[error.path] = error.reason
        allowed = self.config.max_bad_fraction * len(self.files)
        if len(self.bad_files) > allowed or len(self.bad_files) == len(self.files):
            raise TooManyBadVideos(
                f"{self.config.root}: at least {len(self.bad_files)} of {len(self.files)} videos cannot be read "
                f"(max_bad_fraction={self.config.max_bad_fraction:g}): {self._name_bad()}."
            ) from error
        logger.warning("skipping %s (bad file %d of %d)", error, len(self.bad_files), len(self.files))

    def _name_bad(self) -> str:
        named = [f"{path}: {reason}" for path, reason in list(self.bad_files.items())[:NAMED_FILES]]
        more = len(self.bad_files) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


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
    counts: Sequence[tuple[str, float]] = (
        ("num_frames", config.num_frames),
        ("height", config.height),
        ("width", config.width),
        ("clips_per_video", config.clips_per_video),
    )
    for name, value in counts:
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    for name, rate in (("fps", config.fps), ("stride_seconds", config.stride_seconds)):
        if rate is not None and not rate > 0:
            raise ValueError(f"{name}={rate} must be positive, or null.")
    if config.seed < 0:
        raise ValueError(f"seed={config.seed} must not be negative.")
    if config.split not in SPLITS:
        raise ValueError(f"split={config.split!r} is unknown; known: {', '.join(SPLITS)}.")
    if config.on_bad not in ("skip", "raise"):
        raise ValueError(f"on_bad={config.on_bad!r} is unknown; known: skip, raise.")
    if min(config.val_fraction, config.test_fraction) < 0 or config.val_fraction + config.test_fraction >= 1:
        raise ValueError(
            f"val_fraction={config.val_fraction} and test_fraction={config.test_fraction} must not be negative and "
            f"must leave something to train on."
        )
    if not 0 <= config.max_bad_fraction <= 1:
        raise ValueError(f"max_bad_fraction={config.max_bad_fraction} must be from 0 to 1.")
