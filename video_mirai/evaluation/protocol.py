"""What is measured: the settings of an evaluation, and the scores of one video."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from video_mirai.data.scenes import ScenesConfig
from video_mirai.data.video_folder import VideoFolderConfig
from video_mirai.evaluation.aggregate import Resampling
from video_mirai.evaluation.consistency import (
    BUILTIN_FRAME_FEATURES,
    consistency_per_frame,
    cosine_by_lag,
    dynamic_degree,
)
from video_mirai.evaluation.detectors import Detector, FrameEncoder
from video_mirai.evaluation.frame_quality import exposure, flicker, freeze_fraction, psnr, saturation, sharpness, ssim
from video_mirai.evaluation.generation import StoredClip
from video_mirai.evaluation.horizon import drift, slope_per_100_frames, time_to_failure
from video_mirai.evaluation.lpips import Lpips
from video_mirai.evaluation.metric_table import distance_metrics, paired_metrics, state_metrics, video_metrics
from video_mirai.evaluation.results import Metric
from video_mirai.evaluation.row_scores import Timeline, VideoScores
from video_mirai.evaluation.scene_rows import SceneRows

# Frames that are held as float64 at once.
PIECE_FRAMES = 32


@dataclass
class HeldOutData:
    """Where held-out clips come from: one of the two, or neither for the first model's own training data."""

    video_folder: VideoFolderConfig | None = None
    scenes: ScenesConfig | None = None


@dataclass
class ScoringConfig:
    """What checkpoints and folders of videos are measured with alike.

    Attributes:
        out: folder of the report, the numbers and the videos.
        history_frames: given frames at the start of every video, left out of all scores; 0 = every frame is scored.
        detectors: by name; see `video_mirai.evaluation.detectors`.
        frame_encoder: of single frames, for the consistency and the cosines: "grid_colour_gradient", dinov2:SOURCE or
            clip:SOURCE. background_encoder: the same for the background's consistency, which VBench takes from CLIP.
        lpips: "alex", "vgg" or "squeeze" adds LPIPS to PSNR and SSIM; needs the packages lpips and torchvision.
        feature_cache: folder that keeps detectors' features of real videos; null = they are made anew.
        window_frames: length of the windows over time, and of the detectors' clips.
        stride_frames: between the starts of the sliding clips.
        first_frames: scored frames that count for the near-term PSNR and SSIM.
        failure_psnr (dB), failure_consistency: a video fails where it stays below for failure_patience frames.
        ddof: of the covariances; 1 is unbiased.
        num_resamples: bootstrap draws. num_subsets: random halves of the videos behind a Frechet distance's interval.
        fixed_videos, worst_videos: strips in the report, the first ones and those where the last row does worst.
        seed: of every choice and of the resampling.
        device: "auto", or a torch device.
    """

    out: str = "evaluations/latest"
    history_frames: int = 0
    detectors: list[str] = field(default_factory=lambda: ["transnet"])
    frame_encoder: str = BUILTIN_FRAME_FEATURES
    background_encoder: str = BUILTIN_FRAME_FEATURES
    lpips: str | None = None
    feature_cache: str | None = "evaluations/features"
    window_frames: int = 16
    stride_frames: int = 8
    first_frames: int = 16
    failure_psnr: float = 15.0
    failure_consistency: float = 0.5
    failure_patience: int = 8
    ddof: int = 1
    num_resamples: int = 1000
    num_subsets: int = 40
    fixed_videos: int = 4
    worst_videos: int = 4
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        self._check_least({"history_frames": 0, "window_frames": 1, "stride_frames": 1, "first_frames": 1,
                           "failure_patience": 1, "num_resamples": 1})  # fmt: skip

    def resampling(self) -> Resampling:
        return Resampling(self.num_resamples, self.num_subsets, self.seed)

    def _check_least(self, smallest: dict[str, int]) -> None:
        for name, least in smallest.items():
            if (value := vars(self)[name]) < least:
                raise ValueError(f"{name}={value} must be at least {least}.")


@dataclass
class EvaluateConfig(ScoringConfig):
    """An evaluation of one or more checkpoints on the same held-out clips.

    Attributes:
        models: run folder, export folder or `asset:<name>` by the name it has in the report; the first is the baseline
            that the others are compared with.
        data: where the held-out clips come from. split: of that data set, whatever `data` says.
        num_clips: histories continued by every model; as many clips of other videos stand for real video.
        history_frames: frames of each clip that the models are given.
        horizon_frames: frames generated after them; null = four times the longest training clip.
        batch_clips: clips generated together. samples_per_clip: continuations of every history, each with noise of
            its own: paired numbers are then means over them, with the best and the worst sample beside them.
        state_radius: pixels beyond which a sprite counts as lost. state_patience: frames that one which was hidden has
            to come back in. Scenes only.
    """

    history_frames: int = 8
    models: dict[str, str] = field(default_factory=dict)
    data: HeldOutData = field(default_factory=HeldOutData)
    split: str = "test"
    num_clips: int = 32
    horizon_frames: int | None = None
    batch_clips: int = 8
    samples_per_clip: int = 1
    state_radius: float = 4.0
    state_patience: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least({"num_clips": 2, "history_frames": 1, "batch_clips": 1, "samples_per_clip": 1})
        if self.horizon_frames is not None and self.horizon_frames < 1:
            raise ValueError(f"horizon_frames={self.horizon_frames} must be at least 1.")


class FrameEncoders(NamedTuple):
    """What the consistencies are made of; often the same network twice."""

    subject: FrameEncoder
    background: FrameEncoder


class Protocol:
    """Scores single videos; the history is left out everywhere, except that its last frame starts the consistency.

    Args:
        detectors: by the label that their Frechet distance has. encoders: of single frames.
        scenes: what is known about scenes; None where the data set knows no state.
        clip_rule: which clips of a video the distance over the whole is made of, as a phrase.
        lpips: None = not measured. num_samples: of a history, most of any row.
    """

    def __init__(
        self,
        config: ScoringConfig,
        timeline: Timeline,
        detectors: dict[str, Detector],
        encoders: FrameEncoders,
        scenes: SceneRows | None,
        clip_rule: str,
        lpips: Lpips | None = None,
        num_samples: int = 1,
    ) -> None:
        self._config = config
        self._timeline = timeline
        self._detectors = detectors
        self._encoders = encoders
        self._scenes = scenes
        self._clip_rule = clip_rule
        self._lpips = lpips
        self._num_samples = num_samples

    def score(
        self,
        clip: int,
        video: StoredClip,
        truth: StoredClip | None,
        *,
        starts: list[int] | None = None,
        detectors: dict[str, Detector] | None = None,
    ) -> VideoScores:
        """Scores of one video.

        Args:
            clip: number of the history.
            video: history and what follows it. Its state, where there is one, is what the frames ought to show.
            truth: the true video, history included; None = only what the video says by itself.
            starts: of the clips that detectors see; None = the timeline's.
            detectors: in place of the protocol's own; same labels.
        """
        config, history = self._config, self._config.history_frames
        frames = video.frames[history:]
        curves, numbers, lags = self._alone(video.frames[max(0, history - 1) :], len(frames))
        if truth is not None:
            paired = _paired_curves(truth.frames[history:], frames)
            if self._lpips is not None:
                paired["lpips"] = self._lpips.per_frame(truth.frames[history:], frames)
            curves |= paired
            for key, curve in paired.items():
                numbers[f"{key}_first"] = float(curve[: config.first_frames].mean())
                numbers[key] = float(curve.mean())
            numbers["psnr_failure"] = self._failure(curves["psnr"], config.failure_psnr)
        if self._scenes is not None:
            state = self._scenes.score(frames, video.state)
            numbers, curves = numbers | state.numbers, curves | state.curves
        clips = self._features(frames, starts or self._timeline.starts, detectors or self._detectors)
        return VideoScores(clip, video.name, curves, numbers, clips, cosine_by_lag=lags)

    def metrics(self) -> list[Metric]:
        """The columns of the headline table, in order."""
        config = self._config
        return [
            *distance_metrics(self._detectors.values(), self._clip_rule),
            *paired_metrics(
                config.first_frames, config.failure_psnr, config.failure_patience, self._lpips, self._num_samples
            ),
            *video_metrics(*self._encoders, config.failure_consistency, config.failure_patience),
            *(state_metrics(self._scenes.radius) if self._scenes is not None else []),
        ]

    def window_metrics(self) -> list[Metric]:
        """What is compared window by window."""
        by_key = {metric.key: metric for metric in self.metrics()}
        return [by_key[key] for key in (*self._detectors, "psnr", "ssim")]

    def _alone(
        self, anchored: np.ndarray, num_frames: int
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[int, float]]:
        """Curves (num_frames,), numbers and cosines by lag of a video by itself.

        anchored: the scored frames, after the last given one where there is a history.
        """
        per_frame, means = _statistics(anchored, self._encoders)
        features, background = per_frame.pop("features"), per_frame.pop("background")
        consistency, of_background = consistency_per_frame(features), consistency_per_frame(background)
        curves = {key: values[-num_frames:] for key, values in per_frame.items()}
        numbers = means | {key: float(curves[key].mean()) for key in ("brightness", "contrast", "saturation")}
        numbers["consistency"] = float(consistency.mean())
        numbers["background_consistency"] = float(of_background.mean())
        unjudged = num_frames - len(consistency)  # without a history the first frame has none before it to agree with
        numbers["consistency_failure"] = unjudged + self._failure(consistency, self._config.failure_consistency)
        for key in ("brightness", "sharpness"):
            numbers[f"drift_{key}"] = drift(curves[key]) if num_frames > 1 else math.nan
            numbers[f"slope_{key}"] = slope_per_100_frames(curves[key]).estimate if num_frames > 1 else math.nan
        for key, curve in (("consistency", consistency), ("background_consistency", of_background)):
            curves[key] = np.concatenate([np.full(unjudged, np.nan), curve])
        found = cosine_by_lag(features)
        return curves, numbers, dict(zip(found.lags, found.cosine.tolist(), strict=True))

    def _failure(self, curve: np.ndarray, threshold: float) -> float:
        """Frames before the failure; all of them where there is none."""
        failed = time_to_failure(curve, threshold, patience_frames=self._config.failure_patience)
        return float(len(curve) if failed is None else failed)

    def _features(self, frames: np.ndarray, starts: list[int], detectors: dict[str, Detector]) -> dict[str, np.ndarray]:
        clips = [frames[start : start + self._timeline.window_frames] for start in starts]
        # The clips of a frozen video are all the same: a detector, which takes most of the time, reads one of them.
        fresh = [i for i, clip in enumerate(clips) if i == 0 or not np.array_equal(clip, clips[i - 1])]
        repeats = np.diff([*fresh, len(clips)])
        different = np.stack([clips[i] for i in fresh])  # (n, window, H, W, 3)
        return {label: np.repeat(d.features(different), repeats, axis=0) for label, d in detectors.items()}


def copy_last_frame(truth: StoredClip, history_frames: int) -> StoredClip:
    """The last given frame, repeated; the state stays that of the truth, which it is judged by.

    Without a history it is the first frame that is repeated.
    """
    frames = truth.frames.copy()
    frames[history_frames:] = frames[max(0, history_frames - 1)]
    return truth._replace(frames=frames)


def _statistics(frames: np.ndarray, encoders: FrameEncoders) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What (T, H, W, 3) uint8 frames say by themselves: per frame (T, ...), and means over the T - 1 steps."""
    pieces: dict[str, list[Any]] = {}
    steps: dict[str, float] = {"dynamic_degree": 0.0, "flicker": 0.0, "freeze_fraction": 0.0}
    for start in range(0, len(frames), PIECE_FRAMES):
        with_one_before = _unit_range(frames[max(0, start - 1) : start + PIECE_FRAMES])
        share = (len(with_one_before) - 1) / (len(frames) - 1)
        if share > 0:
            steps["dynamic_degree"] += share * dynamic_degree(with_one_before)
            steps["flicker"] += share * flicker(with_one_before)
            steps["freeze_fraction"] += share * freeze_fraction(with_one_before)
        piece = with_one_before[min(start, 1) :]
        light = exposure(piece)
        of_subject = encoders.subject.frame_features(frames[start : start + PIECE_FRAMES])
        of_background = of_subject  # by far the most of the time, where both are one network
        if encoders.background is not encoders.subject:
            of_background = encoders.background.frame_features(frames[start : start + PIECE_FRAMES])
        found = {
            "features": of_subject,
            "background": of_background,
            "brightness": 255 * light.mean,
            "contrast": 255 * light.deviation,
            "saturation": saturation(piece).mean,
            "sharpness": sharpness(piece),
        }
        for key, values in found.items():
            pieces.setdefault(key, []).append(values)
    return {key: np.concatenate(values) for key, values in pieces.items()}, steps


def _paired_curves(truth: np.ndarray, frames: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {"psnr": [], "ssim": []}
    for start in range(0, len(frames), PIECE_FRAMES):
        ours, true = (_unit_range(video[start : start + PIECE_FRAMES]) for video in (frames, truth))
        found["psnr"].append(psnr(true, ours))
        found["ssim"].append(ssim(true, ours))
    return {key: np.concatenate(values) for key, values in found.items()}


def _unit_range(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float64) / 255
