"""How quality changes along a rollout: windows of the Frechet distance, drift, slope and time to failure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

from video_mirai.evaluation.detectors.base import Detector, check_output
from video_mirai.evaluation.frechet import frechet_distance

REFERENCES = ("aligned", "pooled")
# Share of the video that counts as its beginning and as its end (FramePack).
DRIFT_FRACTION = 0.15


class DistanceOverTime(NamedTuple):
    """Frechet distance of each window; all (W,)."""

    starts: NDArray[np.int64]  # first frame of the window
    distances: NDArray[np.float64]
    counts: NDArray[np.int64]  # generated clips in the window


class Slope(NamedTuple):
    """Theil-Sen slope per 100 frames with its 95 % interval."""

    estimate: float
    low: float
    high: float


def window_starts(num_frames: int, window: int, *, skip: int = 0, stride: int | None = None) -> list[int]:
    """First frames of the windows that fit: skip, skip + stride, ...

    Args:
        skip: frames left out at the beginning: the given history.
        stride: None for windows that touch but don't overlap.
    Raises:
        ValueError: no window fits.
    """
    if window < 1 or skip < 0 or (stride is not None and stride < 1):
        raise ValueError(f"window={window} and stride={stride} must be at least 1 frame, skip={skip} at least 0.")
    starts = list(range(skip, num_frames - window + 1, window if stride is None else stride))
    if not starts:
        raise ValueError(f"{num_frames} frames, {skip} of them history, leave no window of {window} frames.")
    return starts


def features_by_window(
    videos: Sequence[NDArray[np.uint8]], detector: Detector, starts: Sequence[int]
) -> dict[int, NDArray[np.float64]]:
    """Detector features of every video's window at each start: {start: (videos long enough, d)}.

    Rows keep the order of the videos. Videos that end before a window does are left out of it, and a window that no
    video reaches is left out altogether.

    Args:
        videos: each (T, H, W, 3) uint8; lengths may differ, sizes too when the detector resizes.
    """
    features: dict[int, NDArray[np.float64]] = {}
    for start in starts:
        stop = start + detector.clip_frames
        clips = [video[start:stop] for video in videos if len(video) >= stop]
        if clips:
            rows = [check_output(detector, detector.features(group), len(group)) for group in _by_size(clips)]
            features[start] = np.concatenate(rows)
    if not features:
        raise ValueError(f"none of {len(videos)} videos reaches frame {min(starts) + detector.clip_frames}.")
    return features


def frechet_over_time(
    real: Mapping[int, NDArray[np.float64]],
    fake: Mapping[int, NDArray[np.float64]],
    *,
    reference: str = "aligned",
    ddof: int = 1,
) -> DistanceOverTime:
    """Frechet distance of every generated window to the real one at the same time, or to all real windows pooled.

    Args:
        real, fake: what `features_by_window` returned. Windows without two clips on either side are left out.
        reference: "aligned" or "pooled".
    Raises:
        ValueError: an unknown reference, or no window to compare.
    """
    if reference not in REFERENCES:
        raise ValueError(f"reference={reference!r} is not known; choose one of {', '.join(REFERENCES)}.")
    pooled = np.concatenate(list(real.values())) if reference == "pooled" and real else None
    rows = []
    for start in sorted(fake):
        target = real.get(start) if pooled is None else pooled
        if target is not None and min(len(target), len(fake[start])) >= 2:
            rows.append((start, frechet_distance(target, fake[start], ddof=ddof), len(fake[start])))
    if not rows:
        raise ValueError(
            f"real windows {sorted(real)} and generated windows {sorted(fake)} have none in common with 2 clips."
        )
    starts, distances, counts = zip(*rows, strict=True)
    return DistanceOverTime(np.array(starts), np.array(distances), np.array(counts))


def drift(values: NDArray[np.floating], fraction: float = DRIFT_FRACTION) -> float:
    """|mean over the first 15 % - mean over the last 15 %| of a per-frame metric (T,), as FramePack."""
    values = _check_curve(values)
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction={fraction} is not in (0, 0.5].")
    frames = max(1, round(fraction * len(values)))
    return abs(float(values[:frames].mean() - values[-frames:].mean()))


def slope_per_100_frames(values: NDArray[np.floating]) -> Slope:
    """Signed Theil-Sen slope of a per-frame metric (T,): the median over all pairs of frames, deaf to outliers."""
    slope, _, low, high = theilslopes(_check_curve(values))
    return Slope(100 * float(slope), 100 * float(low), 100 * float(high))


def time_to_failure(
    values: NDArray[np.floating], threshold: float, *, fails: str = "below", patience_frames: int = 1
) -> int | None:
    """First frame from which a metric stays on the failing side of `threshold` for `patience_frames`; None = never.

    Args:
        values: (T,).
        fails: "below" (PSNR, sharpness) or "above" (errors).
    """
    values = _check_curve(values, min_frames=1)
    if fails not in ("below", "above"):
        raise ValueError(f"fails={fails!r} is not known; choose below or above.")
    if patience_frames < 1:
        raise ValueError(f"patience_frames={patience_frames} must be at least 1.")
    failing = values < threshold if fails == "below" else values > threshold
    if len(failing) < patience_frames:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(failing, patience_frames).all(axis=1)
    return int(runs.argmax()) if runs.any() else None


def _by_size(clips: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Runs of neighbouring clips of one frame size, stacked, so that rows keep their order."""
    run: list[NDArray[np.uint8]] = []
    for clip in clips:
        if run and clip.shape != run[0].shape:
            yield np.stack(run)
            run = []
        run.append(clip)
    yield np.stack(run)


def _check_curve(values: NDArray[np.floating], min_frames: int = 2) -> NDArray[np.float64]:
    curve = np.asarray(values, dtype=np.float64)
    if curve.ndim != 1 or len(curve) < min_frames:
        raise ValueError(f"values has shape {curve.shape}; expected one number a frame, at least {min_frames}.")
    if not np.isfinite(curve).all():
        raise ValueError("values hold NaN or infinite numbers.")
    return curve
