"""The scores of single videos, and what is computed from the features of a whole row of them."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from video_mirai.evaluation.frechet import FewSamplesWarning, frechet_at_infinity, frechet_distance
from video_mirai.evaluation.mmd import SubsetMmd, polynomial_mmd, polynomial_mmd_subsets

# As kernel inception distances are published (Binkowski et al. 2018); of fewer clips, subsets are half of them.
MMD_SUBSETS, MMD_SUBSET_CLIPS = 100, 1000
# Curves of what is hidden at times: a frame is averaged over the videos that show it there.
SPARSE_CURVES = ("position_error", "identity_persistence")


@dataclass(frozen=True)
class VideoScores:
    """What was measured on one video of one row, history left out.

    Attributes:
        clip: number of the history. video: source video, the unit of every interval.
        curves: per generated frame, (T,); NaN where a frame has no value. numbers: one a video. features: by detector
            label, (clips, d), one row for each entry of the starts used throughout.
        pooled: rows of the features that the distance over the whole video is made of; None = all.
        cosine_by_lag: by distance in frames.
    """

    clip: int
    video: str
    curves: dict[str, np.ndarray]
    numbers: dict[str, float]
    features: dict[str, np.ndarray]
    pooled: tuple[int, ...] | None = None
    cosine_by_lag: dict[int, float] = field(default_factory=dict)


class Timeline(NamedTuple):
    """Frames of the windows over time, and where the detectors' clips start (frames after the history, from 0)."""

    horizon_frames: int
    window_frames: int
    starts: list[int]

    @property
    def windows(self) -> list[tuple[int, int]]:
        """[start, end) of every whole window, one after the other."""
        last = self.horizon_frames - self.window_frames
        return [(start, start + self.window_frames) for start in range(0, last + 1, self.window_frames)]


def clip_timeline(horizon_frames: int, window_frames: int, stride_frames: int) -> Timeline:
    """Sliding clips every stride_frames; ValueError when a window does not fit or would not start on the stride."""
    if horizon_frames < window_frames:
        raise ValueError(f"horizon_frames={horizon_frames} is shorter than window_frames={window_frames}.")
    if stride_frames < 1 or window_frames % stride_frames:
        raise ValueError(f"stride_frames={stride_frames} must divide window_frames={window_frames}.")
    return Timeline(horizon_frames, window_frames, list(range(0, horizon_frames - window_frames + 1, stride_frames)))


@dataclass
class RowScores:
    """The scores of one row and, where it has Frechet distances, of the real videos that it is measured against."""

    name: str
    kind: str
    scores: list[VideoScores]
    reference: list[VideoScores]
    timeline: Timeline
    ddof: int
    _cache: dict[tuple[str, int | None, bytes, str], float] = field(default_factory=dict)

    @property
    def num_videos(self) -> int:
        """Videos that subsets are drawn from."""
        return min(len(clips_by_video(self.scores)), len(clips_by_video(self.reference)))

    def distance(self, label: str, window: int | None, videos: np.ndarray | None, against: str = "aligned") -> float:
        """Frechet distance to the reference.

        Args:
            window: number of the window; None = the clips of the whole video.
            videos: (m,) source videos to use, counted in order of appearance; None = all.
            against: "aligned", the same window of the reference, or "pooled", all its windows together.
        """
        key = (label, window, b"" if videos is None else videos.tobytes(), against)
        if key not in self._cache:
            ours = pooled_features(self.scores, label, self._rows(window), videos)
            theirs = self._all_windows() if against == "pooled" else self._rows(window)
            real = pooled_features(self.reference, label, theirs, videos)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FewSamplesWarning)  # the report says it once, in its own words
                self._cache[key] = frechet_distance(ours, real, ddof=self.ddof)
        return self._cache[key]

    def mmd(self, label: str, videos: np.ndarray | None) -> float:
        """Polynomial MMD to the reference over the whole videos. videos: as in `distance`."""
        ours, real = (pooled_features(scores, label, None, videos) for scores in (self.scores, self.reference))
        return polynomial_mmd(ours, real)

    def mmd_subsets(self, label: str, seed: int) -> SubsetMmd:
        """The same over random subsets of clips, as kernel distances are published; see MMD_SUBSETS."""
        ours, real = (pooled_features(scores, label, None, None) for scores in (self.scores, self.reference))
        size = max(2, min(MMD_SUBSET_CLIPS, min(len(ours), len(real)) // 2))
        return polynomial_mmd_subsets(ours, real, num_subsets=MMD_SUBSETS, subset_size=size, seed=seed)

    def at_infinity(self, label: str, seed: int) -> float:
        """Frechet distance at infinite N; NaN where half of the clips are no more than the features are wide."""
        ours, real = (pooled_features(scores, label, None, None) for scores in (self.scores, self.reference))
        if min(len(ours), len(real)) // 2 <= ours.shape[1]:
            return math.nan
        return frechet_at_infinity(ours, real, ddof=self.ddof, seed=seed).distance

    def labels(self) -> list[str]:
        return list(self.scores[0].features)

    def _rows(self, window: int | None) -> list[int] | None:
        """Rows of the features that a window is made of; None = those of the whole video."""
        return None if window is None else [self.timeline.starts.index(self.timeline.windows[window][0])]

    def _all_windows(self) -> list[int]:
        return [self.timeline.starts.index(start) for start, _ in self.timeline.windows]


class SetStatistic(NamedTuple):
    """A number that a set of videos has and a single video has not.

    Attributes:
        value: of the chosen source videos of a row, or of all (None).
        smallest: no interval goes below it. resampled: whether random halves of the videos give it an interval.
    """

    key: str
    value: Callable[[RowScores, np.ndarray | None], float]
    smallest: float
    resampled: bool


def set_statistics(label: str, seed: int) -> list[SetStatistic]:
    """The Frechet distance called `label`, and its companions without its bias."""
    return [
        SetStatistic(label, lambda row, videos: row.distance(label, None, videos), 0.0, True),
        SetStatistic(mmd_key(label), lambda row, videos: row.mmd(label, videos), -math.inf, True),
        # Halves of the videos would leave too few clips for a line.
        SetStatistic(infinity_key(label), lambda row, _: row.at_infinity(label, seed), -math.inf, False),
    ]


def mmd_key(label: str) -> str:
    """Name of the polynomial MMD on the features of a distance called `label`."""
    return f"mmd_{label.removeprefix('fd_')}"


def mmd_subsets_keys(label: str) -> tuple[str, str]:
    """Names of the MMD's mean over random subsets of clips, and of its deviation over them."""
    return f"{mmd_key(label)}_subsets", f"{mmd_key(label)}_subsets_deviation"


def infinity_key(label: str) -> str:
    return f"{label}_at_infinity"


def pooled_features(
    scores: list[VideoScores], label: str, rows: list[int] | None, videos: np.ndarray | None
) -> np.ndarray:
    """(clips, d) of the chosen videos. rows: of each video's features; None = those that are pooled."""
    groups = clips_by_video(scores)
    chosen = range(len(groups)) if videos is None else videos.tolist()
    found = []
    for score in (scores[clip] for video in chosen for clip in groups[video]):
        wanted = score.pooled if rows is None else tuple(rows)
        features = score.features[label]
        found.append(features if wanted is None else features[list(wanted)])
    return np.concatenate(found)


def clips_by_video(scores: list[VideoScores]) -> list[list[int]]:
    clips: dict[str, list[int]] = {}
    for i, score in enumerate(scores):
        clips.setdefault(score.video, []).append(i)
    return list(clips.values())
