"""Evaluation: arrays in, numbers out. The functions below need nothing else of this package; see docs/evaluation.md."""

from video_mirai.evaluation.bootstrap import Interval, bootstrap, bootstrap_band, paired_bootstrap, subsample_interval
from video_mirai.evaluation.consistency import (
    builtin_frame_features,
    consistency_per_frame,
    cosine_by_lag,
    dynamic_degree,
    subject_consistency,
)
from video_mirai.evaluation.frame_quality import (
    exposure,
    flicker,
    frame_differences,
    freeze_fraction,
    psnr,
    saturation,
    sharpness,
    ssim,
)
from video_mirai.evaluation.frechet import FrechetMoments, frechet_distance
from video_mirai.evaluation.horizon import (
    drift,
    features_by_window,
    frechet_over_time,
    slope_per_100_frames,
    time_to_failure,
    window_starts,
)
from video_mirai.evaluation.mmd import polynomial_mmd

__all__ = [
    "FrechetMoments",
    "Interval",
    "bootstrap",
    "bootstrap_band",
    "builtin_frame_features",
    "consistency_per_frame",
    "cosine_by_lag",
    "drift",
    "dynamic_degree",
    "exposure",
    "features_by_window",
    "flicker",
    "frame_differences",
    "frechet_distance",
    "frechet_over_time",
    "freeze_fraction",
    "paired_bootstrap",
    "polynomial_mmd",
    "psnr",
    "saturation",
    "sharpness",
    "slope_per_100_frames",
    "ssim",
    "subject_consistency",
    "subsample_interval",
    "time_to_failure",
    "window_starts",
]
