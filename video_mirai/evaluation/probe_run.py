"""A whole probe: read every clip, fit the readouts, score them on videos that neither fit nor choice has seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from video_mirai.data.scenes import Scenes, bounce, position_bounds
from video_mirai.evaluation.frame_quality import psnr
from video_mirai.evaluation.probe import (
    RidgeBasis,
    fit_ridge,
    innovation_cosine,
    mean_per_video,
    r2_per_video,
    ridge_basis,
    root_mean_square,
)
from video_mirai.evaluation.probe_data import (
    PIXELS,
    POSITION,
    Collected,
    ProbeClips,
    ProbeData,
    ShownFrame,
    collect,
    read_batch,
    shown_frames,
)
from video_mirai.evaluation.probe_features import (
    FeatureReader,
    HiddenReader,
    PixelReader,
    frames_to_read,
    require_causal,
)
from video_mirai.evaluation.probe_mlp import MlpConfig, fit_mlp
from video_mirai.evaluation.probe_result import (
    BASELINE,
    CHECKPOINT,
    CONSTANT_VELOCITY,
    COPY,
    MEAN,
    MLP,
    NO_READOUT,
    RAW_PIXELS,
    RIDGE,
    SHUFFLED,
    UNTRAINED,
)
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.models.teachers import resolve_layer
from video_mirai.sampling.rollout import RolloutSettings

# Clips whose later frames are replaced in the causality check.
CHECKED_CLIPS = 2


@dataclass
class ProbeConfig:
    """What is read from which clips, and what is predicted from it. Frames are latent frames.

    Attributes:
        out: folder of the report and the numbers.
        data: where the clips come from. split: of that data set, whatever `data` says; these videos are split again.
        num_clips: at most. val_share, test_share: of the videos, to choose the readouts' strength and to score them.
        history_frames: clean frames before the first chunk that is read.
        rows_per_clip, stride_frames: so many frames of a clip are read, so far apart; the same for every offset.
        rows: "all"; of scenes "hidden": frames in which a sprite is hidden, though the chunk or its window may show it;
            "remembered": frames in which some sprite that was seen before is hidden, and in all of the chunk that is
            read and of its window; hidden is what shows less than a tenth.
        offsets: frames ahead that are predicted.
        layer: whose residual stream is read: below 1 a fraction of the depth, else a block's number from 1.
        sigma: noise level of the chunk that is read.
        max_features: numbers of a state at most. Its tokens are concatenated; where that is more, averaged over the
            smallest square blocks for which it is not.
        picture_size: longest side of the pictures that are predicted; larger ones become means of square blocks.
        batch_clips: read together.
        mlp: the second readout.
        num_resamples: bootstrap draws.
        picture_videos: test videos shown in the report. picture_rollouts: whose mean is shown beside the readouts.
        seed: of the split, of the noise, of the untrained network and of the resampling.
        device: "auto", or a torch device.
    """

    out: str = "probes/latest"
    data: ProbeData = field(default_factory=ProbeData)
    split: str = "test"
    num_clips: int = 256
    val_share: float = 0.15
    test_share: float = 0.35
    history_frames: int = 4
    rows_per_clip: int = 8
    stride_frames: int = 1
    rows: Literal["all", "hidden", "remembered"] = "all"
    offsets: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 8])
    layer: float = 0.5
    sigma: float = 0.5
    max_features: int = 4096
    picture_size: int = 32
    batch_clips: int = 16
    mlp: MlpConfig = field(default_factory=MlpConfig)
    num_resamples: int = 2000
    picture_videos: int = 4
    picture_rollouts: int = 8
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        smallest = {"num_clips": 4, "history_frames": 1, "rows_per_clip": 1, "stride_frames": 1, "max_features": 1,
                    "picture_size": 1, "batch_clips": 1, "picture_videos": 0, "picture_rollouts": 0}  # fmt: skip
        for name, least in smallest.items():
            if (value := vars(self)[name]) < least:
                raise ValueError(f"{name}={value} must be at least {least}.")
        if not self.offsets or min(self.offsets) < 0 or len(set(self.offsets)) < len(self.offsets):
            raise ValueError(f"offsets={self.offsets}: give at least one, none negative, none twice.")
        if not 0 <= self.sigma <= 1:
            raise ValueError(f"sigma={self.sigma} must lie in [0, 1].")
        if not (0 < self.val_share < 1 and 0 < self.test_share < 1 and self.val_share + self.test_share < 1):
            raise ValueError(
                f"val_share={self.val_share} and test_share={self.test_share} must be positive and leave something to "
                f"fit on."
            )

    def frames_read(self, chunk_frames: int) -> list[int]:
        """Numbers of the latent frames that are read in every clip."""
        return frames_to_read(self.history_frames, self.rows_per_clip, self.stride_frames, chunk_frames)

    def clip_frames(self, chunk_frames: int) -> int:
        """Latent frames that a clip has to have."""
        return self.frames_read(chunk_frames)[-1] + max(self.offsets) + 1


@dataclass(frozen=True)
class ProbedModel:
    """A model to read. path: as the user named it."""

    path: str
    model: CausalVideoDiT
    codec: Codec
    rollout: RolloutSettings


class VideoNumbers(NamedTuple):
    """Scores of one predictor at one offset, one number for each test video; see ProbeScore."""

    target: str
    offset: int
    predictor: str
    readout: str
    numbers: dict[str, NDArray[np.float64]]
    strength: float | None
    seeds: list[float]


class Probe(NamedTuple):
    """Everything that was measured. shown: ridge predictions of pictures {predictor: {offset: (shown frames, m)}}."""

    config: ProbeConfig
    clips: ProbeClips
    models: dict[str, ProbedModel]
    layers: dict[str, int]
    frames: list[int]
    collected: Collected
    test_videos: list[str]
    scores: list[VideoNumbers]
    shown_frames: list[ShownFrame]
    shown: dict[str, dict[int, NDArray[np.float64]]]


class Parts(NamedTuple):
    """Rows to fit on, to choose with, and to score on."""

    train: NDArray[np.floating]
    val: NDArray[np.floating]
    test: NDArray[np.floating]


def run_probe(
    config: ProbeConfig, clips: ProbeClips, checkpoint: ProbedModel, baseline: ProbedModel | None, device: torch.device
) -> Probe:
    """Check that the features are causal, read them, fit and score.

    Raises:
        ValueError: features that have seen the future, or models that cannot be read side by side.
    """
    models = {CHECKPOINT: checkpoint} | ({BASELINE: baseline} if baseline is not None else {})
    _require_comparable(models)
    layers = {name: resolve_layer("layer", config.layer, m.model.config.num_layers) for name, m in models.items()}
    frames = config.frames_read(checkpoint.rollout.chunk_frames)
    readers = make_readers(config, models, layers, frames)
    checked, _ = read_batch(clips, list(range(min(CHECKED_CLIPS, len(clips.videos)))), checkpoint.codec)
    for reader in readers.values():
        require_causal(reader, checked, frames, checkpoint.codec.temporal_factor)
    collected = collect(
        clips, readers, frames, checkpoint.codec, config.batch_clips, config.picture_size,
        min_hidden_frames=min_hidden_frames(config, models),
    )  # fmt: skip
    tested = [clip for clip in clips.splits.test if collected.kept[clip].any()]
    videos = list(dict.fromkeys(clips.videos[clip] for clip in tested))
    if len(videos) < 2 or any(collected.kept[part].sum() < 2 for part in clips.splits):
        raise ValueError(f"rows={config.rows} leaves too few frames to fit, choose and test with; give more num_clips.")
    shown = shown_frames(clips, collected.kept, frames, config.picture_videos)
    probe = Probe(config, clips, models, layers, frames, collected, videos, [], shown, {})
    probe.scores.extend(_unfitted(probe))
    for name in tqdm(readers, desc="fit", unit="reader"):
        probe.scores.extend(_fitted(probe, name, device))
    return probe


def min_hidden_frames(config: ProbeConfig, models: Mapping[str, ProbedModel]) -> int:
    """Pixel frames for which a sprite is hidden in the rows that count; 0 = all rows.

    Raises:
        ValueError: rows=remembered with a model that always sees a clip's beginning.
    """
    if config.rows != "remembered":
        return int(config.rows == "hidden")
    shown = []
    for name, of in models.items():
        if of.rollout.sink_frames:
            raise ValueError(
                f"rows=remembered: the {name} keeps sight of a clip's first {of.rollout.sink_frames} frames "
                f"(sink_frames), so what it knows need not be remembered; choose rows=hidden."
            )
        shown.append((of.rollout.chunk_frames + of.rollout.window_frames) * of.codec.temporal_factor)
    return max(shown)


def make_readers(
    config: ProbeConfig, models: Mapping[str, ProbedModel], layers: Mapping[str, int], frames: Sequence[int]
) -> dict[str, FeatureReader]:
    """Of the models, of the checkpoint's untrained twin, and of raw pixels."""

    def hidden(name: str, model: CausalVideoDiT) -> HiddenReader:
        of = models[name]
        return HiddenReader(
            model, of.codec, frames, layers[name], config.sigma, of.rollout, config.max_features, config.seed
        )

    checkpoint = models[CHECKPOINT]
    readers: dict[str, FeatureReader] = {name: hidden(name, of.model) for name, of in models.items()}
    readers[UNTRAINED] = hidden(CHECKPOINT, untrained_twin(checkpoint.model, config.seed))
    readers[RAW_PIXELS] = PixelReader(frames, checkpoint.codec.temporal_factor, config.max_features)
    return readers


def untrained_twin(model: CausalVideoDiT, seed: int) -> CausalVideoDiT:
    """The same architecture with the weights that a seed gives it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = CausalVideoDiT.from_config(dict(model.config))
    return twin.to(model.device).eval()


def _fitted(probe: Probe, reader: str, device: torch.device) -> Iterator[VideoNumbers]:
    """Ridge and networks on one reader's features; on the checkpoint's, shuffled, too."""
    features = probe.collected.features[reader]
    parts = _rows_of_parts(probe, features)
    basis = ridge_basis(parts.train)
    coordinates = Parts(*(basis.coordinates(rows) for rows in parts))
    rng = np.random.default_rng(probe.config.seed)
    mixed = Parts(*(rng.permutation(rows) for rows in coordinates)) if reader == CHECKPOINT else None
    for key in probe.collected.targets:
        for offset in probe.config.offsets:
            yield _ridge(probe, reader, basis, coordinates, key, offset)
            if mixed is not None:
                yield _ridge(probe, SHUFFLED, basis, mixed, key, offset)
        if probe.config.mlp.seeds:
            yield from _networks(probe, reader, basis, parts, key, device)


def _ridge(probe: Probe, predictor: str, basis: RidgeBasis, coordinates: Parts, key: str, offset: int) -> VideoNumbers:
    targets = _targets(probe, key, offset)
    ridge = fit_ridge(basis, coordinates.train, targets.train, coordinates.val, targets.val)
    predictions = ridge.predict(coordinates.test)
    if key == PIXELS and predictor in probe.models:
        probe.shown.setdefault(predictor, {})[offset] = predictions[[shown.row for shown in probe.shown_frames]]
    numbers = _score(probe, key, offset, predictions)
    return VideoNumbers(key, offset, predictor, RIDGE, numbers, ridge.strength, [])


def _networks(
    probe: Probe, predictor: str, basis: RidgeBasis, parts: Parts, key: str, device: torch.device
) -> Iterator[VideoNumbers]:
    """Every offset: the mean over the seeds of each network's scores."""
    config = probe.config
    targets = [_targets(probe, key, offset) for offset in config.offsets]
    train, wanted = [of.train for of in targets], [of.val for of in targets]
    rows = Parts(*((part - basis.mean) / basis.scale for part in parts))
    of_seeds = []  # for every seed, the scores of every offset
    for seed in range(config.mlp.seeds):
        networks = fit_mlp(rows.train, train, rows.val, wanted, config.mlp, seed, device)
        predictions = [network.predict(rows.test) for network in networks]
        of_seeds.append([_score(probe, key, *found) for found in zip(config.offsets, predictions, strict=True)])
    for offset, scores in zip(config.offsets, zip(*of_seeds, strict=True), strict=True):
        numbers = {metric: np.mean([of[metric] for of in scores], axis=0) for metric in scores[0]}
        yield VideoNumbers(key, offset, predictor, MLP, numbers, None, [float(of["r2"].mean()) for of in scores])


def _unfitted(probe: Probe) -> Iterator[VideoNumbers]:
    """Copy, mean and constant velocity: of every pixel, or, with walls, of the sprites."""
    for key in probe.collected.targets:
        current = _targets(probe, key, 0).test
        for offset in probe.config.offsets:
            mean = _targets(probe, key, offset).train.mean(axis=0, dtype=np.float64)
            guesses = {COPY: current, MEAN: np.broadcast_to(mean, current.shape)}
            if key == PIXELS:
                change = current.astype(np.float64) - _targets(probe, key, -1).test
                guesses[CONSTANT_VELOCITY] = np.clip(current + offset * change, 0, 1)
            else:
                guesses[CONSTANT_VELOCITY] = constant_velocity(probe, key, offset)
            for name, predictions in guesses.items():
                yield VideoNumbers(key, offset, name, NO_READOUT, _score(probe, key, offset, predictions), None, [])


def constant_velocity(probe: Probe, key: str, offset: int) -> NDArray[np.float64]:
    """(n, K * 2) of the test rows: straight on from the true current positions, at the last step's velocity."""
    assert isinstance(probe.clips.dataset, Scenes), "nothing else knows a state"
    low, high = position_bounds(probe.clips.dataset.config)
    now = _targets(probe, POSITION, 0).test.reshape(-1, 2).astype(np.float64)
    before = _targets(probe, POSITION, -1).test.reshape(-1, 2)
    stride = probe.models[CHECKPOINT].codec.temporal_factor
    step = (now - before) / stride  # per pixel frame
    motion = bounce(np.clip(now, low, high), step, np.array([offset * stride]), low, high)
    values = motion.position if key == POSITION else motion.velocity
    return values[0].reshape(len(_targets(probe, key, 0).test), -1)


def _targets(probe: Probe, key: str, offset: int) -> Parts:
    """Values so many frames after those that were read, (n, m) for each part; rows in the order of the features'."""
    frames = np.array(probe.frames) + offset
    return _rows_of_parts(probe, probe.collected.targets[key][:, frames])


def _rows_of_parts(probe: Probe, values: NDArray[np.floating]) -> Parts:
    """(clips, R, m) to the rows that count of each part, (n, m)."""
    kept = probe.collected.kept
    return Parts(*(values[clips][kept[clips]] for clips in probe.clips.splits))


def _score(probe: Probe, key: str, offset: int, predictions: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Every metric of one prediction, one number for each test video."""
    targets = _targets(probe, key, offset)
    kept = probe.collected.kept
    videos = [probe.clips.videos[clip] for clip in probe.clips.splits.test for _ in range(kept[clip].sum())]
    numbers = {"r2": r2_per_video(targets.test, predictions, targets.train.mean(axis=0, dtype=np.float64), videos)}
    cosine = innovation_cosine(_targets(probe, key, 0).test, targets.test, predictions)
    numbers["cosine"] = mean_per_video(cosine, videos)
    if key == PIXELS:
        true, shown = (part.reshape(-1, *probe.collected.picture_shape) for part in (targets.test, predictions))
        numbers["psnr"] = mean_per_video(psnr(true, np.clip(shown, 0, 1)), videos)
    else:
        numbers["rmse"] = root_mean_square(targets.test, predictions, videos)
    return numbers


def _require_comparable(models: Mapping[str, ProbedModel]) -> None:
    """ValueError unless the models' latents and chunks are the same."""
    if len({of.codec.fingerprint() for of in models.values()}) > 1:
        raise ValueError("the two models were trained on latents of different codecs; choose another baseline.")
    chunks = {name: of.rollout.chunk_frames for name, of in models.items()}
    if len(set(chunks.values())) > 1:
        raise ValueError(f"both models must generate chunks of the same length, got {chunks}; choose another baseline.")
