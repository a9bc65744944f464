"""Folders of any model's videos, made comparable: which files, at which rate, size and length, what pairs with what.

The rules, all of which are recorded with every result:

rate     All videos are brought to one frame rate by taking the frame nearest in time: the lowest rate of any file, or
         fps=N. every_frame=true takes the frames as they are, whatever the files say about their rate.
length   The first num_frames of every video are compared: as many as the shortest file has, or as many as you say;
         then shorter files are left out, and counted.
size     Frames are resized, bilinear with antialiasing, until they just cover height x width; the centre is kept. By
         default that is the size of the real videos, which must then all have one.
pairing  A generated video is compared frame by frame with the real one of the same relative path, whatever the suffix;
         pair=false switches that off. Sets without common names are compared as sets.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from video_mirai.data.video_folder import clip_indices
from video_mirai.data.video_list import list_videos
from video_mirai.data.video_reader import UnreadableVideo, fit_frames, open_video
from video_mirai.evaluation.detectors.base import file_sha256
from video_mirai.evaluation.generation import StoredClip
from video_mirai.evaluation.protocol import ScoringConfig
from video_mirai.evaluation.results import VideoSetInfo

CLIP_RULES = ("sliding", "first", "random")
REAL = "real"
# Rates this close are one rate: 23.976 and 24.
SAME_RATE = 0.01


@dataclass
class FolderConfig(ScoringConfig):
    """A comparison of folders of videos; see the module for the rules.

    Attributes:
        real, fakes: folders of videos or manifests, the generated ones by the name they have in the report.
        samples: of a row, folders with other samples of the same videos: paired numbers are then means over the
            samples, with the best and the worst beside them; distances and galleries have those of `fakes`.
        num_frames: compared frames of every video, history included; null = those of the shortest file.
        fps: null = the lowest rate of any file. every_frame: leave rates alone.
        height, width: pixels; null = those of the real videos.
        pair: whether videos of one name are compared frame by frame.
        clip_rule: clips behind the distance over the whole: "sliding" (every stride_frames), "first" or "random" (one
            a video, from the seed and the video's name).
        training_frames: length of the models' training clips, to be marked in plots; null = not known.
        backend: "decord" or "pyav".
    """

    real: str = ""
    fakes: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)
    num_frames: int | None = None
    fps: float | None = None
    every_frame: bool = False
    height: int | None = None
    width: int | None = None
    pair: bool = True
    clip_rule: str = "sliding"
    training_frames: int | None = None
    backend: str = "decord"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {key: 1 for key in ("num_frames", "height", "width", "training_frames") if vars(self)[key] is not None}
        self._check_least(given)
        if self.clip_rule not in CLIP_RULES:
            raise ValueError(f"clip_rule={self.clip_rule!r} is not known; choose one of {', '.join(CLIP_RULES)}.")
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together; give both or neither.")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps={self.fps} must be positive.")
        if self.fps is not None and self.every_frame:
            raise ValueError(f"fps={self.fps:g} resamples and every_frame=true does not; choose one.")


class ScannedVideo(NamedTuple):
    """A file before anything is done to it. key: relative path without suffix; fps: its own, frames per second."""

    key: str
    path: Path
    timestamps: np.ndarray
    fps: float
    height: int
    width: int


class VideoSet(NamedTuple):
    """The usable videos of a folder, sorted by key. left_out: files with too few frames."""

    name: str
    root: str
    videos: list[ScannedVideo]
    left_out: int

    @property
    def names(self) -> list[str]:
        """The videos' keys, in order."""
        return [video.key for video in self.videos]


class CommonFormat(NamedTuple):
    """What every video is brought to. fps: None = frames as they are; shown_fps: of the videos in the report."""

    num_frames: int
    fps: float | None
    shown_fps: float
    height: int
    width: int


def open_sets(config: FolderConfig) -> list[VideoSet]:
    """The real set, then the generated ones, as they are on disk.

    Raises:
        FileNotFoundError, ValueError: no such folder, no videos, one that cannot be read, or one name twice.
    """
    if not config.fakes:
        raise ValueError("no generated videos; name a folder of them: --fake DIR.")
    return [_scan(name, root, config.backend) for name, root in ((REAL, config.real), *config.fakes.items())]


def open_samples(config: FolderConfig) -> dict[str, list[VideoSet]]:
    """Further samples of the generated videos by row, as they are on disk; raises as `open_sets`."""
    for name in config.samples:
        if name not in config.fakes:
            raise ValueError(f"samples.{name}: no such row; the rows are {', '.join(config.fakes)}.")
    return {
        name: [_scan(f"{name}, sample {i}", root, config.backend) for i, root in enumerate(roots, start=2)]
        for name, roots in config.samples.items()
    }


def check_samples(fakes: Sequence[VideoSet], samples: dict[str, list[VideoSet]]) -> None:
    """ValueError unless all samples of a row hold videos of the same names."""
    for fake in fakes:
        for sample in samples[fake.name]:
            different = sorted(set(sample.names) ^ set(fake.names))
            if different:
                raise ValueError(
                    f"{fake.root} and {sample.root} are samples of {fake.name} but {different[0]!r} and "
                    f"{len(different) - 1} others are usable in only one of them; every sample needs every video."
                )


def common_format(config: FolderConfig, sets: Sequence[VideoSet]) -> CommonFormat:
    """Rate, size and length that all videos can have; see the module.

    Raises:
        ValueError: there is none, or the one asked for is impossible; says what to set.
    """
    videos = [video for found in sets for video in found.videos]
    slowest = min(videos, key=lambda video: video.fps)
    fps = None if config.every_frame else config.fps or slowest.fps
    if fps is not None and fps > slowest.fps * (1 + SAME_RATE):
        raise ValueError(
            f"fps={fps:g} is more than the {slowest.fps:g} of {slowest.path}, so frames would be repeated; ask for "
            f"{slowest.fps:g} or less, or every_frame=true."
        )
    height, width = _common_size(config, sets[0])
    shortest = min(videos, key=lambda video: available_frames(video.timestamps, fps))
    num_frames = config.num_frames or available_frames(shortest.timestamps, fps)
    scored = num_frames - config.history_frames
    if scored < max(2, config.window_frames):
        where = "" if config.num_frames else f" ({shortest.path} is the shortest)"
        raise ValueError(
            f"{num_frames} frames{where}, {config.history_frames} of them history, leave no clip of "
            f"window_frames={config.window_frames}; set num_frames to leave shorter videos out, or window_frames."
        )
    return CommonFormat(num_frames, fps, fps or slowest.fps, height, width)


def usable(found: VideoSet, wanted: CommonFormat) -> VideoSet:
    """The set without the videos that are too short; ValueError where fewer than two are left."""
    kept = [video for video in found.videos if available_frames(video.timestamps, wanted.fps) >= wanted.num_frames]
    if len(kept) < 2:
        raise ValueError(
            f"{found.root}: {len(kept)} of {len(found.videos)} videos have {wanted.num_frames} frames or more; a "
            "comparison of sets needs at least 2."
        )
    return found._replace(videos=kept, left_out=len(found.videos) - len(kept))


def read_video(video: ScannedVideo, wanted: CommonFormat, backend: str) -> StoredClip:
    """The compared frames of a video, in the common format."""
    indices = clip_indices(video.timestamps, 0, wanted.num_frames, wanted.fps)
    with open_video(video.path, backend) as opened:
        frames = fit_frames(opened.read(indices), wanted.height, wanted.width)
    return StoredClip(video.key, frames, {})


def available_frames(timestamps: np.ndarray, fps: float | None) -> int:
    """Frames that a video gives at a rate; it lasts until half a frame after its last one."""
    if fps is None or len(timestamps) < 2:
        return len(timestamps)
    half_frame = 0.5 * (timestamps[-1] - timestamps[0]) / (len(timestamps) - 1)
    return int((timestamps[-1] - timestamps[0] + half_frame) * fps + 1e-6) + 1


def set_info(found: VideoSet) -> VideoSetInfo:
    """Facts for the report; reads every file for its hash."""
    digest = hashlib.sha256()
    for video in found.videos:
        digest.update(f"{video.key}\n{file_sha256(video.path)}\n".encode(errors="surrogateescape"))
    return VideoSetInfo(
        name=found.name,
        path=found.root,
        sha256=digest.hexdigest(),
        num_files=len(found.videos) + found.left_out,
        left_out=found.left_out,
        frames=sorted({len(video.timestamps) for video in found.videos}),
        fps=sorted({round(video.fps, 3) for video in found.videos}),
        sizes=sorted({f"{video.width}x{video.height}" for video in found.videos}),
    )


def rules_of(config: FolderConfig, wanted: CommonFormat, sets: Sequence[VideoSet]) -> dict[str, str]:
    """How the videos were made comparable, by topic."""
    real, *fakes = sets
    rate = "every frame of the files, whatever their rate"
    if wanted.fps is not None:
        rate = f"{wanted.fps:g} frames a second, frames nearest in time" + ("" if config.fps else " (the lowest rate)")
    pairs = ", ".join(f"{fake.name} {len(paired_keys(config, real, fake))} of {len(fake.videos)}" for fake in fakes)
    left_out = sum(found.left_out for found in sets)
    return {
        "pairing": f"by relative path without suffix; paired with a real video: {pairs}"
        if config.pair
        else "none: pair=false",
        "frame rate": rate,
        "length": f"the first {wanted.num_frames} frames, {config.history_frames} of them history that no score "
        f"counts; {left_out} shorter files left out",
        "size": f"{wanted.width}x{wanted.height}: resized (bilinear, antialiased) to cover it, centre kept",
        "clips": describe_clip_rule(config),
        "samples": "; ".join(f"{name}: {1 + len(roots)} of every video" for name, roots in config.samples.items())
        or "one of every video",
    }


def describe_clip_rule(config: FolderConfig) -> str:
    """Which clips of a video the distance over the whole is made of, as a phrase."""
    clips = f"clips of {config.window_frames} frames"
    return {
        "sliding": f"{clips} starting every {config.stride_frames} frames, pooled over time",
        "first": f"the first {config.window_frames} frames of every video",
        "random": f"one of the {clips} of every video, at a start drawn from seed {config.seed} and its name",
    }[config.clip_rule]


def paired_keys(config: FolderConfig, real: VideoSet, fake: VideoSet) -> set[str]:
    """Keys of the generated videos that are compared frame by frame with a real one."""
    return set(real.names) & set(fake.names) if config.pair else set()


def _scan(name: str, root: str, backend: str) -> VideoSet:
    videos: dict[str, ScannedVideo] = {}
    for file in list_videos(Path(root)):
        key = file.name if file.name != file.source else Path(file.source).with_suffix("").as_posix()
        if key in videos:
            raise ValueError(f"{root}: {videos[key].path.name} and {file.path.name} both pair as {key!r}; rename one.")
        with open_video(file.path, backend) as opened:
            info = opened.info
            timestamps = opened.timestamps[file.first_frame : file.end_frame]
        if not len(timestamps):
            raise UnreadableVideo(file.path, f"has no frames from {file.first_frame} on")
        videos[key] = ScannedVideo(key, file.path, timestamps, float(info.fps), info.height, info.width)
    return VideoSet(name, root, [videos[key] for key in sorted(videos)], 0)


def _common_size(config: FolderConfig, real: VideoSet) -> tuple[int, int]:
    if config.height is not None and config.width is not None:
        return config.height, config.width
    sizes = sorted({(video.height, video.width) for video in real.videos})
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sizes[:4]) + (", ..." if len(sizes) > 4 else "")
        raise ValueError(
            f"the real videos have {len(sizes)} sizes ({shown}); choose one: height={sizes[0][0]} width={sizes[0][1]}."
        )
    return sizes[0]
