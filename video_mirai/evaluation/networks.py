"""The frozen networks that an evaluation's settings name, and what is recorded of them."""

import torch

from video_mirai.data.scenes import ScenesConfig
from video_mirai.evaluation.detectors import Detector, build_detector, build_frame_encoder
from video_mirai.evaluation.feature_cache import CachedDetector
from video_mirai.evaluation.lpips import Lpips
from video_mirai.evaluation.protocol import FrameEncoders, ScoringConfig


def build_detectors(
    config: ScoringConfig, device: torch.device, *, allow_import: bool, scenes: ScenesConfig | None = None
) -> dict[str, Detector]:
    """By label; two of one label would overwrite each other's numbers. scenes: what the clips show, where known."""
    if not config.detectors:
        raise ValueError("detectors=[] names none; name one, as in detectors=[random3d].")
    detectors: dict[str, Detector] = {}
    for name in config.detectors:
        detector = build_detector(name, config.window_frames, device=device, allow_import=allow_import, scenes=scenes)
        if detector.label in detectors:
            raise ValueError(f"detectors: {name!r} and another one are both labelled {detector.label}; choose one.")
        detectors[detector.label] = detector
    return detectors


def cached_detectors(
    config: ScoringConfig, detectors: dict[str, Detector], device: torch.device
) -> dict[str, Detector]:
    """The detectors that real videos are given to; the same where there is no cache."""
    folder = config.feature_cache
    return {label: d if folder is None else CachedDetector(d, folder, device) for label, d in detectors.items()}


def describe_encoders(encoders: FrameEncoders) -> dict[str, str]:
    """What the consistencies are made of, by topic."""
    described = []
    for encoder in encoders:
        weights = f", sha256 {encoder.sha256}" if encoder.sha256 else ", no weights"
        described.append(f"{encoder.name}: {encoder.preprocessing}{weights}")
    return {
        "frame features": f"consistency and cosines are of {described[0]}",
        "background features": f"background consistency is of {described[1]}",
    }


def build_frame_encoders(config: ScoringConfig, device: torch.device) -> FrameEncoders:
    """One network where both names are the same."""
    subject = build_frame_encoder(config.frame_encoder, device=device)
    if config.background_encoder == config.frame_encoder:
        return FrameEncoders(subject, subject)
    return FrameEncoders(subject, build_frame_encoder(config.background_encoder, device=device))


def build_lpips(config: ScoringConfig, device: torch.device) -> Lpips | None:
    """None where it isn't asked for."""
    return None if config.lpips is None else Lpips(config.lpips, device)
