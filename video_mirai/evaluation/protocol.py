"""What is measured: the settings of an evaluation, and the scores of one video."""

from dataclasses import dataclass, field

import numpy as np

from video_mirai.data.scenes import ScenesConfig
from video_mirai.data.video_folder import VideoFolderConfig
from video_mirai.evaluation.aggregate import Resampling, Timeline, VideoScores
from video_mirai.evaluation.consistency import (
    BUILTIN_FRAME_FEATURES,
    builtin_frame_features,
    consistency_per_frame,
    dynamic_degree,
)
from video_mirai.evaluation.detectors import Detector
from video_mirai.evaluation.frame_quality import exposure, psnr, sharpness, ssim
from video_mirai.evaluation.generation import StoredClip
from video_mirai.evaluation.horizon import drift
from video_mirai.evaluation.results import Metric
from video_mirai.evaluation.state_metrics import TrueState, scene_metrics
from video_mirai.evaluation.state_reader import StateReader

# Read from a video on its own, so that copying a frame wins or loses them trivially: not compared with copy-last-frame.
UNPAIRED = ("consistency", "dynamic_degree", "drift_brightness", "drift_sharpness")


@dataclass
class HeldOutData:
    """Where held-out clips come from: one of the two, or neither for the first model's own training data."""

    video_folder: VideoFolderConfig | None = None
    scenes: ScenesConfig | None = None


@dataclass
class EvaluateConfig:
    """An evaluation of one or more checkpoints on the same held-out clips.

    Attributes:
        models: run folder, export folder or `asset:<name>` by the name it has in the report; the first is the baseline
            that the others are compared with.
        out: folder of the report, the numbers and the videos.
        data: where the held-out clips come from. split: of that data set, whatever `data` says.
        num_clips: histories continued by every model; as many clips of other videos stand for real video.
        history_frames: frames of each clip that the models are given.
        horizon_frames: frames generated after them; null = four times the longest training clip.
        batch_clips: clips generated together.
        detectors: by name; see `video_mirai.evaluation.detectors`. allow_import: whether one may be a module of the
            user's.
        window_frames: length of the windows over time, and of the detectors' clips.
        stride_frames: between the starts of the clips that are pooled.
        first_frames: generated frames that count for the near-term PSNR and SSIM.
        ddof: of the covariances; 1 is unbiased.
        num_resamples: bootstrap draws. num_subsets: random halves of the videos behind a Frechet distance's interval.
        state_radius: pixels beyond which a sprite counts as lost. state_patience: frames that one which was hidden has
            to come back in. Scenes only.
        fixed_videos, worst_videos: strips in the report, the first clips and those with the last model's lowest PSNR.
        seed: of the choice of clips, of every clip's noise and of the resampling.
        device: "auto", or a torch device.
    """

    models: dict[str, str] = field(default_factory=dict)
    out: str = "evaluations/latest"
    data: HeldOutData = field(default_factory=HeldOutData)
    split: str = "test"
    num_clips: int = 32
    history_frames: int = 8
    horizon_frames: int | None = None
    batch_clips: int = 8
    detectors: list[str] = field(default_factory=lambda: ["transnet"])
    allow_import: bool = False
    window_frames: int = 16
    stride_frames: int = 8
    first_frames: int = 16
    ddof: int = 1
    num_resamples: int = 1000
    num_subsets: int = 40
    state_radius: float = 4.0
    state_patience: int = 8
    fixed_videos: int = 4
    worst_videos: int = 4
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        smallest = {"num_clips": 2, "history_frames": 1, "batch_clips": 1, "window_frames": 1, "stride_frames": 1,
                    "first_frames": 1}  # fmt: skip
        for name, least in smallest.items():
            if (value := vars(self)[name]) < least:
                raise ValueError(f"{name}={value} must be at least {least}.")
        if self.horizon_frames is not None and self.horizon_frames < 1:
            raise ValueError(f"horizon_frames={self.horizon_frames} must be at least 1.")

    def resampling(self) -> Resampling:
        return Resampling(self.num_resamples, self.num_subsets, self.seed)


class Protocol:
    """Scores single videos; the history is left out everywhere, except that its last frame starts the consistency.

    Args:
        detectors: by the label that their Frechet distance has.
        reader: reads the state back from frames of scenes; None where the data set knows no state.
    """

    def __init__(
        self, config: EvaluateConfig, timeline: Timeline, detectors: dict[str, Detector], reader: StateReader | None
    ) -> None:
        self._config = config
        self._timeline = timeline
        self._detectors = detectors
        self._reader = reader

    def score(self, clip: int, video: StoredClip, truth: StoredClip | None) -> VideoScores:
        """Scores of one video.

        Args:
            clip: number of the history.
            video: history and what follows it. Its state, where there is one, is what the frames ought to show.
            truth: the true video, history included; None = only what the video says by itself.
        """
        history = self._config.history_frames
        given_and_after = _unit_range(video.frames[history - 1 :])
        frames = given_and_after[1:]
        consistency = consistency_per_frame(builtin_frame_features(given_and_after))
        curves = {"consistency": consistency, "brightness": 255 * exposure(frames).mean, "sharpness": sharpness(frames)}
        numbers = {
            "consistency": float(consistency.mean()),
            "dynamic_degree": dynamic_degree(given_and_after),
            "drift_brightness": drift(curves["brightness"]),
            "drift_sharpness": drift(curves["sharpness"]),
        }
        if truth is not None:
            true_frames = _unit_range(truth.frames[history:])
            paired = {"psnr": psnr(true_frames, frames), "ssim": ssim(true_frames, frames)}
            curves |= paired
            for key, curve in paired.items():
                numbers[f"{key}_first"] = float(curve[: self._config.first_frames].mean())
                numbers[key] = float(curve.mean())
        if self._reader is not None:
            numbers |= self._state_numbers(frames, video.state)
        return VideoScores(clip, video.name, curves, numbers, self._features(video.frames[history:]))

    def metrics(self) -> list[Metric]:
        """The columns of the headline table, in order."""
        return [
            *self._distance_metrics(),
            *_frame_metrics(self._config.first_frames),
            *_video_metrics(),
            *(_state_metrics(self._config) if self._reader is not None else []),
        ]

    def window_metrics(self) -> list[Metric]:
        """What is compared window by window."""
        by_key = {metric.key: metric for metric in _frame_metrics(self._config.first_frames)}
        return [*self._distance_metrics(), by_key["psnr"], by_key["ssim"]]

    def _features(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        window = self._timeline.window_frames
        clips = [frames[start : start + window] for start in self._timeline.starts]
        # The clips of a frozen video are all the same: a detector, which takes most of the time, reads one of them.
        fresh = [i for i, clip in enumerate(clips) if i == 0 or not np.array_equal(clip, clips[i - 1])]
        repeats = np.diff([*fresh, len(clips)])
        different = np.stack([clips[i] for i in fresh])  # (n, window, H, W, 3)
        return {label: np.repeat(d.features(different), repeats, axis=0) for label, d in self._detectors.items()}

    def _state_numbers(self, frames: np.ndarray, state: dict[str, np.ndarray]) -> dict[str, float]:
        assert self._reader is not None
        after = self._config.history_frames
        truth = TrueState(state["position"][after:], state["identity"], state["visible_fraction"][after:])
        found = scene_metrics(
            truth,
            self._reader.read(frames),
            self._reader.walls,
            radius=self._config.state_radius,
            patience=self._config.state_patience,
        )
        return {key: float(found._asdict()[key]) for key in (metric.key for metric in _state_metrics(self._config))}

    def _distance_metrics(self) -> list[Metric]:
        stride = self._config.stride_frames
        return [
            Metric(
                label,
                label,
                "",
                "lower",
                2,
                f"Frechet distance between features ({detector.name}) of generated and of true clips of "
                f"{detector.clip_frames} frames, history left out. Headline: clips starting every {stride} frames, "
                "pooled over time. Windows: clips at the same frames of the truth. Real against real: other held-out "
                "videos against the same truth. Interval: half the spread over random halves of the videos.",
            )
            for label, detector in self._detectors.items()
        ]


def copy_last_frame(truth: StoredClip, history_frames: int) -> StoredClip:
    """The last given frame, repeated; the state stays that of the truth, which it is judged by."""
    frames = truth.frames.copy()
    frames[history_frames:] = frames[history_frames - 1]
    return truth._replace(frames=frames)


def _unit_range(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float64) / 255


def _frame_metrics(first_frames: int) -> list[Metric]:
    psnr_how = "peak signal-to-noise ratio of a generated frame against the true frame of the same time, RGB, range 1"
    ssim_how = "structural similarity (Gaussian window of sigma 1.5, 11 x 11) of a generated and the true frame"
    near, far = f"; mean of the first {first_frames} generated frames", "; mean of all generated frames"
    return [
        Metric("psnr_first", f"PSNR, first {first_frames}", "dB", "higher", 2, psnr_how + near),
        Metric("psnr", "PSNR", "dB", "higher", 2, psnr_how + far),
        Metric("ssim_first", f"SSIM, first {first_frames}", "", "higher", 3, ssim_how + near),
        Metric("ssim", "SSIM", "", "higher", 3, ssim_how + far),
    ]


def _video_metrics() -> list[Metric]:
    drift_how = (
        "|mean over the first 15 % - mean over the last 15 %| of the generated frames' {}; a frozen video has none"
    )
    return [
        Metric(
            "consistency", "Consistency", "", "higher", 3,
            "mean over frames of 1/2 (max(0, cos to the frame before) + max(0, cos to the last given frame)) of frame "
            f"features “{BUILTIN_FRAME_FEATURES}” (VBench's formula, not VBench's features)",
        ),
        Metric(
            "dynamic_degree", "Dynamic degree", "", "neither", 2,
            "mean absolute difference between neighbouring frames, in grey levels of 255: 0 for a frozen video",
        ),
        Metric("drift_brightness", "Drift of brightness", "", "lower", 2, drift_how.format("mean luma, of 255")),
        Metric("drift_sharpness", "Drift of sharpness", "", "lower", 1, drift_how.format("variance of the Laplacian")),
    ]  # fmt: skip


def _state_metrics(config: EvaluateConfig) -> list[Metric]:
    read = "read back from the generated frames and compared with the scene's known state: "
    return [
        Metric("position_error", "Position error", "px", "lower", 2, read + "distance of matched, visible sprites"),
        Metric(
            "first_step_beyond", "Kept track", "frames", "higher", 1,
            read + f"first generated frame with a sprite missing or more than {config.state_radius:g} px off",
        ),
        Metric("missing_share", "Missing", "", "lower", 3, read + "share of visible sprites that no reading matches"),
        Metric("identity_persistence", "Identity", "", "higher", 3, read + "share of sprites of the right identity"),
        Metric("count_error", "Count error", "", "lower", 2, read + "sprites too many or too few, per frame"),
        Metric(
            "reemerged_share", "Came back", "", "higher", 3,
            read + "share of sprites that come back after being hidden, as themselves",
        ),
    ]  # fmt: skip
