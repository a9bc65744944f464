"""Every number of a report: its title, unit, direction and how it is made."""

from collections.abc import Iterable
from dataclasses import replace

from video_mirai.evaluation.detectors import Detector, FrameEncoder
from video_mirai.evaluation.lpips import Lpips
from video_mirai.evaluation.results import Metric
from video_mirai.evaluation.row_scores import (
    MMD_SUBSET_CLIPS,
    MMD_SUBSETS,
    infinity_key,
    mmd_key,
    mmd_subsets_keys,
)
from video_mirai.evaluation.samples import HIGHER_IS_BETTER, sample_keys

DISTANCE, MOTION, LIGHT, STATE = (
    "Distance to real video", "Consistency beside motion", "Light, and how it drifts", "State of the scene"
)  # fmt: skip
MOTION_KEYS = (
    "consistency", "background_consistency", "dynamic_degree", "freeze_fraction", "flicker", "consistency_failure",
)  # fmt: skip
# Of features of single frames, and the rule of a result that names their encoder.
ENCODER_KEYS = {
    "consistency": "frame features", "consistency_failure": "frame features",
    "background_consistency": "background features",
}  # fmt: skip

# Read from a video on its own, so that copying a frame wins or loses them trivially: not compared with copy-last-frame.
UNPAIRED = (
    "consistency", "background_consistency", "dynamic_degree", "flicker", "brightness", "contrast", "saturation",
    "freeze_fraction", "drift_brightness", "drift_sharpness", "slope_brightness", "slope_sharpness",
    "consistency_failure",
)  # fmt: skip


def grouped(metrics: Iterable[Metric], group: str) -> list[Metric]:
    return [replace(metric, group=group) for metric in metrics]


def distance_metrics(detectors: Iterable[Detector], clip_rule: str) -> list[Metric]:
    """clip_rule: which clips of a video the distance over the whole is made of, as a phrase."""
    metrics = [metric for d in detectors for metric in _of_detector(d, clip_rule)]
    return grouped(metrics, DISTANCE)


def _of_detector(d: Detector, clip_rule: str) -> list[Metric]:
    """The Frechet distance and its companions without its bias."""
    mean_key, deviation_key = mmd_subsets_keys(d.label)
    subsets = (
        f"over {MMD_SUBSETS} random subsets of {MMD_SUBSET_CLIPS} clips, or of half the clips where that is fewer, as "
        "kernel distances are published"
    )
    return [
        Metric(
            d.label, d.label, "", "lower", 2,
            f"Frechet distance between features ({d.name}) of generated and of true clips of {d.clip_frames} frames, "
            f"history left out. Whole videos: {clip_rule}. Windows: clips at the same frames of the truth (aligned), "
            "or all windows of the truth together (pooled). Real against real: other real videos. Interval: half the "
            "spread over random halves of the videos.",
        ),
        Metric(
            infinity_key(d.label), f"{d.label} at infinite N", "", "lower", 2,
            f"{d.label} of whole videos, extrapolated over 1 / N to infinitely many clips (Chong & Forsyth 2020); only "
            "where half of the clips are more than the features are wide; may be negative. No interval: halves of the "
            "videos leave too few clips for a line",
        ),
        Metric(
            mmd_key(d.label), mmd_key(d.label), "", "lower", 3,
            f"polynomial maximum mean discrepancy of the same features ({d.name}), unbiased, so it may be negative; "
            "clips of one video are not independent. Interval: half the spread over random halves of the videos",
        ),
        Metric(
            mean_key, f"{mmd_key(d.label)}, mean of subsets", "", "lower", 3, f"mean of {mmd_key(d.label)} {subsets}",
        ),
        Metric(
            deviation_key, f"{mmd_key(d.label)}, deviation of subsets", "", "neither", 3,
            f"deviation of {mmd_key(d.label)} {subsets}: of one subset, not an error of the mean",
        ),
    ]  # fmt: skip


def paired_metrics(
    first_frames: int, failure_psnr: float, patience_frames: int, lpips: Lpips | None, num_samples: int
) -> list[Metric]:
    """num_samples: of a history; of several the best and the worst have columns too."""
    psnr_how = "peak signal-to-noise ratio of a generated frame against the true frame of the same time, RGB, range 1"
    ssim_how = "structural similarity (Gaussian window of sigma 1.5, 11 x 11) of a generated and the true frame"
    near, far = f"; mean of the first {first_frames} generated frames", "; mean of all generated frames"
    metrics = [
        Metric("psnr_first", f"PSNR, first {first_frames}", "dB", "higher", 2, psnr_how + near),
        Metric("psnr", "PSNR", "dB", "higher", 2, psnr_how + far),
        Metric("ssim_first", f"SSIM, first {first_frames}", "", "higher", 3, ssim_how + near),
        Metric("ssim", "SSIM", "", "higher", 3, ssim_how + far),
        Metric(
            "psnr_failure", f"Frames until PSNR < {failure_psnr:g}", "frames", "higher", 1,
            f"generated frames before PSNR stays under {failure_psnr:g} dB for {patience_frames} frames; a video that "
            "never does counts with all its frames",
        ),
    ]  # fmt: skip
    if lpips is not None:
        how = f"LPIPS of a generated and the true frame ({lpips.name}, sha256 {lpips.sha256[:16]})"
        metrics += [
            Metric("lpips_first", f"LPIPS, first {first_frames}", "", "lower", 3, how + near),
            Metric("lpips", "LPIPS", "", "lower", 3, how + far),
        ]
    if num_samples > 1:
        of_frames = [metric for metric in metrics if metric.key in HIGHER_IS_BETTER]
        metrics += [_of_samples(metric, num_samples, end) for metric in of_frames for end in range(2)]
    return grouped(metrics, DISTANCE)


def _of_samples(metric: Metric, num_samples: int, end: int) -> Metric:
    """The best (end 0) or the worst (end 1) sample's column."""
    word = ("best", "worst")[end]
    title = f"{metric.title}, {word} of {num_samples}"
    how = f"{metric.how}; of the {word} of {num_samples} samples of a history, by that mean"
    return replace(metric, key=sample_keys(metric.key)[end], title=title, how=how)


def video_metrics(
    subject: FrameEncoder, background: FrameEncoder, failure_consistency: float, patience_frames: int
) -> list[Metric]:
    """What a video says by itself; the dynamic degree stands beside the consistency, which a frozen video wins."""
    ends = "|mean over the first 15 % - mean over the last 15 %| of the generated frames' {}; a frozen video has none"
    slope = "signed Theil-Sen slope of the generated frames' {}, per 100 frames"
    metrics = [
        Metric(
            "consistency", "Consistency", "", "higher", 3,
            "mean over frames of 1/2 (max(0, cos to the frame before) + max(0, cos to the first frame, which is the "
            f"last given one where there is a history)) of frame features “{subject.name}” (VBench's subject "
            "consistency, which has DINO's features)",
        ),
        Metric(
            "background_consistency", "Background consistency", "", "higher", 3,
            f"the formula of the consistency, of frame features “{background.name}” (VBench's background consistency, "
            "which has CLIP's features)",
        ),
        Metric(
            "dynamic_degree", "Dynamic degree", "", "neither", 2,
            "mean absolute difference between neighbouring frames, in grey levels of 255: 0 for a frozen video",
        ),
        Metric(
            "freeze_fraction", "Frozen", "", "neither", 3,
            "share of frames that differ from the one before by less than half a grey level on average",
        ),
        Metric(
            "flicker", "Flicker", "", "neither", 3,
            "(255 - mean absolute difference of neighbouring frames in grey levels) / 255: 1 for a frozen video",
        ),
        Metric("brightness", "Brightness", "of 255", "neither", 1, "mean luma (Rec. 601); compare with the real row"),
        Metric("contrast", "Contrast", "of 255", "neither", 1, "deviation of the luma over a frame, mean over frames"),
        Metric("saturation", "Saturation", "", "neither", 3, "mean of (max - min) / max over the channels"),
        Metric("drift_brightness", "Drift of brightness", "", "lower", 2, ends.format("mean luma, of 255")),
        Metric("drift_sharpness", "Drift of sharpness", "", "lower", 1, ends.format("variance of the Laplacian")),
        Metric("slope_brightness", "Slope of brightness", "/100", "neither", 2, slope.format("mean luma, of 255")),
        Metric(
            "slope_sharpness", "Slope of sharpness", "/100", "neither", 1, slope.format("variance of the Laplacian")
        ),
        Metric(
            "consistency_failure", f"Frames until consistency < {failure_consistency:g}", "frames", "higher", 1,
            f"generated frames before the consistency stays under {failure_consistency:g} for {patience_frames} "
            "frames; a video that never does counts with all its frames",
        ),
    ]  # fmt: skip
    motion = [metric for metric in metrics if metric.key in MOTION_KEYS]
    return grouped(motion, MOTION) + grouped([metric for metric in metrics if metric not in motion], LIGHT)


def state_metrics(radius: float) -> list[Metric]:
    """Keys are those of `SceneMetrics`."""
    read = "read back from the frames and compared with the scene's known state: "
    metrics = [
        Metric("position_error", "Position error", "px", "lower", 2, read + "distance of matched, visible sprites"),
        Metric(
            "first_step_beyond", "Kept track", "frames", "higher", 1,
            read + f"first frame with a sprite missing or more than {radius:g} px off",
        ),
        Metric("velocity_error", "Velocity error", "px/frame", "lower", 2, read + "difference of steps, mean length"),
        Metric("missing_share", "Missing", "", "lower", 3, read + "share of visible sprites that no reading matches"),
        Metric("count_error", "Count error", "", "lower", 2, read + "sprites too many or too few, per frame"),
        Metric("identity_persistence", "Identity", "", "higher", 3, read + "share of sprites of the right identity"),
        Metric("identity_switches", "Switches", "", "lower", 2, read + "changes of identity along matched tracks"),
        Metric(
            "reemerged_share", "Came back", "", "higher", 3,
            read + "permanence: share of sprites that come back after being hidden, as themselves",
        ),
        Metric(
            "replaced_share", "Replaced", "", "lower", 3,
            read + "share of hidden sprites in whose place one of another identity comes back",
        ),
        Metric("wall_penetration", "Through walls", "px", "lower", 2, read + "mean depth of sprites beyond a wall"),
    ]  # fmt: skip
    return grouped(metrics, STATE)
