"""Which frames of a video a detector sees. Every number of a detector depends on it, so it is stated and recorded."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("sliding", "random", "first")
# A video may be this much slower than the rate asked for (23.976 for 24) before its frames would have to be repeated.
RATE_TOLERANCE = 0.01


@dataclass(frozen=True)
class ClipRule:
    """How clips are cut out of a video.

    Attributes:
        kind: "sliding", a clip every stride_frames; "random", per_video clips at different random starts, fewer where
            the video has not so many; "first", one clip at the start.
        clip_frames: frames of a clip; published FVD has 16.
        stride_frames: between the starts of sliding clips, in kept frames; None = clip_frames, so that they touch.
        fps: rate that videos are brought to by taking the frame nearest in time; None = each its own.
        frame_step: of the frames at that rate, every so many are kept.
        skip_frames: kept frames left out at the beginning, such as a given history.
        per_video, seed: of random clips.
    """

    kind: str = "sliding"
    clip_frames: int = 16
    stride_frames: int | None = None
    fps: float | None = None
    frame_step: int = 1
    skip_frames: int = 0
    per_video: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"clip rule {self.kind!r} is not known; choose one of {', '.join(KINDS)}.")
        smallest = {"clip_frames": 1, "frame_step": 1, "skip_frames": 0, "per_video": 1, "seed": 0}
        if self.stride_frames is not None:
            smallest["stride_frames"] = 1
        for name, least in smallest.items():
            if (value := vars(self)[name]) < least:
                raise ValueError(f"{name}={value} must be at least {least}.")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps={self.fps} must be positive.")

    def describe(self) -> dict[str, Any]:
        """All of it, to be recorded beside a result."""
        return asdict(self)


def clip_frame_numbers(
    num_frames: int, rule: ClipRule, *, video_fps: float | None = None, video_index: int = 0
) -> NDArray[np.int64]:
    """Frame numbers of every clip of a video, (clips, clip_frames), clips in order of time.

    Args:
        video_fps: the video's rate; needed when the rule has one.
        video_index: number of the video in its set, so that each has random starts of its own.
    Raises:
        ValueError: no clip fits, the video is slower than the rule's rate, or its rate is unknown.
    """
    kept = _frames_at_rate(num_frames, rule, video_fps)[:: rule.frame_step][rule.skip_frames :]
    last_start = len(kept) - rule.clip_frames
    if last_start < 0:
        raise ValueError(
            f"a video of {num_frames} frames leaves {len(kept)} after the clip rule, fewer than clip_frames="
            f"{rule.clip_frames}; leave it out or take shorter clips."
        )
    if rule.kind == "first":
        starts = np.zeros(1, dtype=np.int64)
    elif rule.kind == "sliding":
        starts = np.arange(0, last_start + 1, rule.stride_frames or rule.clip_frames)
    else:
        rng = np.random.default_rng([rule.seed, video_index])
        starts = np.sort(rng.permutation(last_start + 1)[: rule.per_video])
    return kept[starts[:, None] + np.arange(rule.clip_frames)]


def take_clips(
    frames: NDArray[np.uint8], rule: ClipRule, *, video_fps: float | None = None, video_index: int = 0
) -> NDArray[np.uint8]:
    """The clips of a video (T, H, W, 3) that the rule says, (clips, clip_frames, H, W, 3); see `clip_frame_numbers`."""
    return frames[clip_frame_numbers(len(frames), rule, video_fps=video_fps, video_index=video_index)]


def _frames_at_rate(num_frames: int, rule: ClipRule, video_fps: float | None) -> NDArray[np.int64]:
    """Numbers of the frames nearest to 0, 1 / fps, 2 / fps, ... seconds, up to the last frame's time."""
    if rule.fps is None:
        return np.arange(num_frames)
    if video_fps is None or not video_fps > 0:
        raise ValueError(f"fps={rule.fps:g} is asked for, but the video's own rate is {video_fps}; give video_fps.")
    if rule.fps > video_fps * (1 + RATE_TOLERANCE):
        raise ValueError(
            f"fps={rule.fps:g} is more than the video's {video_fps:g}, so frames would be repeated; ask for "
            f"{video_fps:g} or less."
        )
    step = max(1.0, video_fps / rule.fps)
    count = int((num_frames - 1) / step + 1e-9) + 1 if num_frames else 0
    return np.floor(np.arange(count) * step + 0.5).astype(np.int64).clip(max=num_frames - 1)
