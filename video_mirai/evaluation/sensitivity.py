"""Which metric sees which damage: every metric on scenes damaged in known ways, and how far real is from real."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mirai.data.scenes import Scenes
from video_mirai.evaluation.clips import ClipRule, clip_frame_numbers
from video_mirai.evaluation.consistency import (
    builtin_frame_features,
    cosine_by_lag,
    dynamic_degree,
    subject_consistency,
)
from video_mirai.evaluation.corruptions import CORRUPTIONS, Corruption, Frames
from video_mirai.evaluation.detectors import Detector, build_detector
from video_mirai.evaluation.detectors.scene_state import SceneState, describe_state
from video_mirai.evaluation.frame_quality import exposure, flicker, freeze_fraction, psnr, saturation, sharpness, ssim
from video_mirai.evaluation.frechet import FewSamplesWarning, frechet_at_infinity, frechet_distance
from video_mirai.evaluation.horizon import drift
from video_mirai.evaluation.mmd import polynomial_mmd
from video_mirai.evaluation.state_metrics import ReadState, scene_metrics
from video_mirai.evaluation.state_reader import StateReader, frames_of, true_state

COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")  # no white, which a swap of channels leaves white
LONGEST_LAG = 20
STATE_RADIUS, STATE_PATIENCE = 4.0, 8
STATE_METRICS = ("position_error", "velocity_error", "identity_persistence", "frozen_share")
UP, DOWN = 1, -1
# What ought to see each damage, and which way it ought to go.
EXPECTED: dict[str, dict[str, int]] = {
    "noise": {"psnr": DOWN, "ssim": DOWN, "sharpness": UP, "flicker": DOWN, "fd_random3d": UP},
    "blur": {"psnr": DOWN, "ssim": DOWN, "sharpness": DOWN, "fd_random3d": UP},
    "shuffle": {"dynamic_degree": UP, "velocity_error": UP, "fd_state": UP},
    "freeze": {"freeze_fraction": UP, "dynamic_degree": DOWN, "frozen_share": UP, "position_error": UP, "fd_state": UP},
    "swap": {"identity_persistence": DOWN},
    "drift": {"drift_brightness": UP, "fd_random3d": UP},
}


@dataclass(frozen=True)
class SensitivitySettings:
    """Size of a trial.

    Attributes:
        num_videos: scenes that are damaged; as many others say what chance does. num_frames: of each.
        num_strengths: of each damage, the strongest one and others evenly below it.
        detectors: by name, as in `build_detector`.
        num_clips: in each of two sets of real clips, at most; halved three times.
        seed: of the scenes and of the damage.
    """

    num_videos: int = 24
    num_frames: int = 32
    num_strengths: int = 4
    detectors: tuple[str, ...] = ("random3d",)
    num_clips: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        smallest = {"num_videos": 2, "num_frames": LONGEST_LAG + 1, "num_strengths": 1, "num_clips": 8}
        for name, least in smallest.items():
            if (value := vars(self)[name]) < least:
                raise ValueError(f"{name}={value} must be at least {least}.")


class Response(NamedTuple):
    """A metric under one damage. values: (1 + strengths,), undamaged first. floor: what chance alone may change."""

    values: NDArray[np.float64]
    floor: float

    @property
    def direction(self) -> int:
        """UP or DOWN where the metric moves the same way with every step and by more than chance, else 0."""
        steps = np.diff(self.values)
        if abs(self.values[-1] - self.values[0]) <= self.floor:
            return 0
        return UP if (steps > 0).all() else DOWN if (steps < 0).all() else 0


Responses = dict[str, dict[str, Response]]  # by metric, by corruption


class RealAgainstReal(NamedTuple):
    """Distances between disjoint sets of undamaged clips: by name, (counts,) each."""

    counts: list[int]
    distances: dict[str, NDArray[np.float64]]


class _Scored(NamedTuple):
    """Of one set of videos. numbers: by metric, (videos,). features: by label, (clips, d)."""

    numbers: dict[str, NDArray[np.float64]]
    features: dict[str, NDArray[np.float64]]


def measure_sensitivity(settings: SensitivitySettings) -> Responses:
    """Every metric's response to every damage; distances are those of damaged videos from the same ones undamaged."""
    trial = _Trial(settings, 2 * settings.num_videos)
    videos = range(settings.num_videos)
    clean = trial.score([trial.frames(i) for i in videos], videos)
    others = range(settings.num_videos, 2 * settings.num_videos)
    chance = _by_chance(clean, trial.score([trial.frames(i) for i in others], others))
    responses: Responses = {}
    for name, corruption in CORRUPTIONS.items():
        scored = [clean]
        for strength in _strengths(corruption, settings.num_strengths):
            damaged = [corruption.apply(trial.frames(i), strength, settings.seed + i) for i in videos]
            scored.append(trial.score(damaged, videos))
        for metric, values in _values(scored).items():
            responses.setdefault(metric, {})[name] = Response(values, chance[metric])
    return responses


def missed(responses: Mapping[str, Mapping[str, Response]]) -> list[str]:
    """What EXPECTED says and the responses don't; empty when all is well."""
    return [
        f"{metric} under {corruption}: {np.round(responses[metric][corruption].values, 4).tolist()}"
        for corruption, expected in EXPECTED.items()
        for metric, direction in expected.items()
        if responses[metric][corruption].direction != direction
    ]


def real_against_real(settings: SensitivitySettings) -> RealAgainstReal:
    """Distances of undamaged clips from other undamaged clips, which ought to fall towards 0 as there are more."""
    trial = _Trial(settings, 2 * settings.num_clips)
    sides = []
    for first in (0, settings.num_clips):
        videos = [trial.frames(i)[: trial.rule.clip_frames] for i in range(first, first + settings.num_clips)]
        sides.append(trial.features(videos, [trial.reader.read(frames) for frames in videos]))
    counts = [settings.num_clips >> step for step in (3, 2, 1, 0) if settings.num_clips >> step >= 4]
    distances: dict[str, list[float]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamplesWarning)  # it is what the table shows
        for label in sides[0]:
            for count in counts:
                x, y = (side[label][:count] for side in sides)
                distances.setdefault(label, []).append(frechet_distance(x, y))
                distances.setdefault(f"{label} at infinite N", []).append(frechet_at_infinity(x, y).distance)
                distances.setdefault(_mmd_label(label), []).append(polynomial_mmd(x, y))
    return RealAgainstReal(counts, {name: np.array(values) for name, values in distances.items()})


class _Trial:
    """The scenes, the state reader and the detectors of one trial."""

    def __init__(self, settings: SensitivitySettings, num_scenes: int) -> None:
        self.scenes = Scenes(
            num_scenes, settings.num_frames, num_sprites=2, colours=COLOURS, seed=settings.seed, split="test"
        )
        self.reader = StateReader(self.scenes.config, max_sprites=4)
        self.rule = ClipRule(stride_frames=8)
        detectors = [build_detector(name, self.rule.clip_frames, batch_clips=16) for name in settings.detectors]
        self.detectors: dict[str, Detector] = {detector.label: detector for detector in detectors}

    def frames(self, index: int) -> Frames:
        return frames_of(self.scenes[index]).astype(np.float64)

    def score(self, videos: Sequence[Frames], indices: Sequence[int]) -> _Scored:
        """indices: of the scenes that the videos ought to show."""
        states = [self.reader.read(frames) for frames in videos]
        rows = [self._numbers(*row) for row in zip(videos, states, indices, strict=True)]
        numbers = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        return _Scored(numbers, self.features(videos, states))

    def features(self, videos: Sequence[Frames], states: Sequence[ReadState]) -> dict[str, NDArray[np.float64]]:
        """Of every sliding clip of every video, by label."""
        cuts = [clip_frame_numbers(len(frames), self.rule) for frames in videos]
        clips = np.concatenate([frames[cut] for frames, cut in zip(videos, cuts, strict=True)])
        pixels = np.round(255 * clips).astype(np.uint8)
        found = {label: detector.features(pixels) for label, detector in self.detectors.items()}
        size = self.scenes.config.sprite_size
        described = [
            describe_state(ReadState(state.position[clip], state.identity[clip]), size)
            for state, cut in zip(states, cuts, strict=True)
            for clip in cut
        ]
        return {**found, SceneState.label: np.stack(described)}

    def _numbers(self, frames: Frames, state: ReadState, index: int) -> dict[str, float]:
        sample = self.scenes[index]
        truth = frames_of(sample).astype(np.float64)
        encoded = builtin_frame_features(frames)
        found = scene_metrics(
            true_state(sample), state, self.reader.walls, radius=STATE_RADIUS, patience=STATE_PATIENCE
        )
        return {
            "psnr": float(psnr(truth, frames).mean()),
            "ssim": float(ssim(truth, frames).mean()),
            "sharpness": float(sharpness(frames).mean()),
            "flicker": flicker(frames),
            "freeze_fraction": freeze_fraction(frames),
            "dynamic_degree": dynamic_degree(frames),
            "consistency": subject_consistency(encoded),
            f"cosine_lag_{LONGEST_LAG}": float(cosine_by_lag(encoded, (LONGEST_LAG,)).cosine[0]),
            "drift_brightness": drift(255 * exposure(frames).mean),
            "drift_saturation": drift(saturation(frames).mean),
            "drift_sharpness": drift(sharpness(frames)),
            **{key: float(found._asdict()[key]) for key in STATE_METRICS},
        }


def _values(scored: Sequence[_Scored]) -> dict[str, NDArray[np.float64]]:
    """Of every metric at every strength: the mean over videos, or the distance from the first, undamaged one."""
    clean = scored[0]
    values = {key: np.array([np.nanmean(one.numbers[key]) for one in scored]) for key in clean.numbers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamplesWarning)  # all sets are of one size
        for label, features in clean.features.items():
            values[label] = np.array([frechet_distance(features, one.features[label]) for one in scored])
            values[_mmd_label(label)] = np.array([polynomial_mmd(features, one.features[label]) for one in scored])
    return values


def _by_chance(clean: _Scored, others: _Scored) -> dict[str, float]:
    """How much two sets of real videos differ: 1.96 deviations of the difference of means, or their distance."""
    chance = {}
    for key, values in clean.numbers.items():
        deviation = float(np.nanstd(np.concatenate([values, others.numbers[key]])))
        chance[key] = 1.96 * math.sqrt(2 / len(values)) * deviation
    distances = _values([clean, others])
    for label in clean.features:
        for name in (label, _mmd_label(label)):
            chance[name] = float(np.abs(np.diff(distances[name]))[0])
    return chance


def _mmd_label(label: str) -> str:
    return label.replace("fd_", "mmd_", 1)


def _strengths(corruption: Corruption, count: int) -> tuple[float, ...]:
    step = len(corruption.strengths) // count
    return corruption.strengths[step - 1 :: step]
