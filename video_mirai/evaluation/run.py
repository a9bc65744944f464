"""A whole evaluation: continue the held-out clips with every model, score every row, hand the scores over.

Processes divide the work by batch and by clip and exchange frames through the output folder, which they share. What
is in a batch and what noise a clip gets does not depend on how many processes there are, so neither do the numbers.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from video_mirai.data.scenes import Scenes
from video_mirai.evaluation.contestants import (
    CODEC_ROW,
    COPY_ROW,
    OTHERS,
    READER_ROW,
    REAL_ROW,
    TRUTH,
    VELOCITY_ROW,
    Contestant,
    Processes,
    weights_sha256,
)
from video_mirai.evaluation.detectors import Detector
from video_mirai.evaluation.generation import (
    ClipStore,
    StoredClip,
    as_model_input,
    clip_generator,
    continue_videos,
    reconstruct,
    settings_hash,
)
from video_mirai.evaluation.held_out import HeldOut
from video_mirai.evaluation.networks import build_detectors, build_frame_encoders, build_lpips, cached_detectors
from video_mirai.evaluation.protocol import EvaluateConfig, FrameEncoders, Protocol, copy_last_frame
from video_mirai.evaluation.row_scores import RowScores, Timeline, VideoScores, clip_timeline
from video_mirai.evaluation.samples import merge_samples
from video_mirai.evaluation.scene_rows import SceneRows
from video_mirai.media import to_uint8
from video_mirai.models.codecs import Codec, PixelsCodec


class Speed(NamedTuple):
    """Frames generated and seconds taken by one process."""

    frames: int
    seconds: float


class Evaluation(NamedTuple):
    """Everything that was measured; `publish` makes files of it."""

    config: EvaluateConfig
    held_out: HeldOut
    horizon_frames: int
    timeline: Timeline
    protocol: Protocol
    detectors: dict[str, Detector]
    encoders: FrameEncoders
    rows: list[RowScores]
    weights: dict[str, str]
    speeds: dict[str, float | None]


def evaluate(
    config: EvaluateConfig,
    held_out: HeldOut,
    horizon_frames: int,
    models: dict[str, Contestant],
    processes: Processes,
    device: torch.device,
    *,
    allow_import: bool = False,
) -> Evaluation:
    """Generate what is missing, score everything. Every process calls it and gets the same scores.

    Args:
        allow_import: whether a detector may be a module of the user's.
    Raises:
        ValueError: settings that cannot be, a detector that is unknown or does not fit.
    """
    timeline = clip_timeline(horizon_frames, config.window_frames, config.stride_frames)
    shown = held_out.dataset.config if isinstance(held_out.dataset, Scenes) else None
    detectors = build_detectors(config, device, allow_import=allow_import, scenes=shown)
    encoders = build_frame_encoders(config, device)
    scenes = None if shown is None else SceneRows(shown, config.state_radius, config.state_patience)
    clip_rule = f"clips starting every {config.stride_frames} frames, pooled over time"
    protocol = Protocol(
        config, timeline, detectors, encoders, scenes, clip_rule, build_lpips(config, device), config.samples_per_clip
    )
    stores = _store_real_videos(config, held_out, processes)
    weights = {name: weights_sha256(contestant.model) for name, contestant in models.items()}
    speeds, samples = {}, {}
    for name, contestant in models.items():
        settings = _generation_settings(config, held_out, horizon_frames, contestant, weights[name])
        samples[name] = [_sample_store(config, name, settings, i) for i in range(config.samples_per_clip)]
        parts = [
            _generate(config, held_out, horizon_frames, name, contestant, i, stores[TRUTH], store, processes, device)
            for i, store in enumerate(samples[name])
        ]
        speeds[name] = _total_speed(processes.gather(parts))
    processes.wait()
    cached = cached_detectors(config, detectors, device)
    score = _Scorer(config, models, stores, samples, protocol, scenes, cached, device)
    rows = _score(config, held_out, score, timeline, processes)
    return Evaluation(config, held_out, horizon_frames, timeline, protocol, detectors, encoders, rows, weights, speeds)


def video_file(config: EvaluateConfig, row: str, index: int) -> Path:
    """Where the mp4 of a clip lies."""
    return Path(config.out) / "videos" / row / f"{index:04d}.mp4"


def _store(config: EvaluateConfig, row: str, settings: dict[str, Any]) -> ClipStore:
    out = Path(config.out)
    return ClipStore(out / "frames" / row, out / "videos" / row, settings_hash(settings))


def _sample_store(config: EvaluateConfig, row: str, settings: dict[str, Any], sample: int) -> ClipStore:
    """The first sample lies in the row's own folder, where a single one would."""
    return (
        _store(config, row, settings)
        if sample == 0
        else _store(config, f"{row}/sample_{sample}", settings | {"sample": sample})
    )


def _store_real_videos(config: EvaluateConfig, held_out: HeldOut, processes: Processes) -> dict[str, ClipStore]:
    """The main process reads the data set; everyone else finds the frames in the folder."""
    identity = held_out.identity()
    stores = {name: _store(config, name, identity) for name in (TRUTH, OTHERS)}
    if processes.is_main:
        for store, indices in ((stores[TRUTH], held_out.compared), (stores[OTHERS], held_out.others)):
            for clip, index in enumerate(indices):
                if not store.has(clip):
                    store.save(clip, held_out.read(index), held_out.dataset.fps)
    processes.wait()
    return stores


def _generation_settings(
    config: EvaluateConfig, held_out: HeldOut, horizon_frames: int, contestant: Contestant, weights: str
) -> dict[str, Any]:
    """All that decides the generated frames."""
    return {
        "clips": held_out.identity(),
        "history_frames": config.history_frames,
        "horizon_frames": horizon_frames,
        "batch_clips": config.batch_clips,
        "seed": config.seed,
        "rollout": asdict(contestant.rollout),
        "weights": weights,
        "codec": contestant.codec.fingerprint(),
    }


def _generate(
    config: EvaluateConfig,
    held_out: HeldOut,
    horizon_frames: int,
    name: str,
    contestant: Contestant,
    sample: int,
    truths: ClipStore,
    store: ClipStore,
    processes: Processes,
    device: torch.device,
) -> Speed:
    """This process's share of the batches that are not finished yet."""
    clips = range(len(held_out.compared))
    batches = [clips[start : start + config.batch_clips] for start in range(0, len(clips), config.batch_clips)]
    mine = batches[processes.rank :: processes.num_processes]
    # A batch is redone whole: its numbers may depend, in the last digits, on what is computed together.
    todo = [batch for batch in mine if not all(store.has(clip) for clip in batch)]
    total = sum(len(batch) for batch in todo) * horizon_frames
    started = time.perf_counter()
    with tqdm(total=total, unit="frame", desc=f"rollout {name}", disable=not processes.is_main or not todo) as bar:
        for batch in todo:
            truth = [truths.load(clip) for clip in batch]
            history = np.stack([clip.frames[: config.history_frames] for clip in truth])
            generators = [clip_generator(config.seed, clip, device, sample) for clip in batch]
            parts = [history]
            for video in continue_videos(
                contestant.model,
                contestant.codec,
                as_model_input(history, device),
                horizon_frames,
                contestant.rollout,
                generators,
            ):
                parts.append(to_uint8(video))
                bar.update(video.shape[0] * video.shape[1])
            for clip, original, frames in zip(batch, truth, np.concatenate(parts, axis=1), strict=True):
                store.save(clip, StoredClip(original.name, frames, original.state), held_out.dataset.fps)
    return Speed(total, time.perf_counter() - started)


def _total_speed(speeds: list[Speed]) -> float | None:
    """Frames per second of all processes together; None where everything was finished before."""
    frames = sum(speed.frames for speed in speeds)
    return frames / max(speed.seconds for speed in speeds) if frames else None


class _Scorer:
    """Scores of every row of one clip."""

    def __init__(
        self,
        config: EvaluateConfig,
        models: dict[str, Contestant],
        stores: dict[str, ClipStore],
        samples: dict[str, list[ClipStore]],
        protocol: Protocol,
        scenes: SceneRows | None,
        cached: dict[str, Detector],
        device: torch.device,
    ) -> None:
        self._history_frames = config.history_frames
        self._models = models
        self._stores = stores
        self._samples = samples
        self._protocol = protocol
        self._scenes = scenes
        self._cached = cached
        self._device = device
        self._codecs = _codec_rows(models)

    def kinds(self) -> dict[str, str]:
        """Kind of every row, in the order of the table."""
        kinds = dict.fromkeys(self._models, "model") | {COPY_ROW: "copy"}
        if self._scenes is not None:
            kinds |= {VELOCITY_ROW: "velocity", READER_ROW: "reader"}
        return kinds | dict.fromkeys(self._codecs, "codec") | {REAL_ROW: "real"}

    def other(self, clip: int) -> tuple[str, VideoScores]:
        """A clip of another real video."""
        video = self._stores[OTHERS].load(clip)
        return REAL_ROW, self._protocol.score(clip, video, truth=None, detectors=self._cached)

    def compared(self, clip: int) -> list[tuple[str, VideoScores]]:
        """A true clip and everything that is compared with it."""
        score, history = self._protocol.score, self._history_frames
        truth = self._stores[TRUTH].load(clip)
        found = [(TRUTH, score(clip, truth, truth=None, detectors=self._cached))]
        for name, stores in self._samples.items():
            found.append((name, merge_samples([score(clip, store.load(clip), truth) for store in stores])))
        found.append((COPY_ROW, score(clip, copy_last_frame(truth, history), truth)))
        if self._scenes is not None:
            found.append((VELOCITY_ROW, self._scenes.constant_velocity(clip, truth, history)))
            found.append((READER_ROW, self._scenes.reader_floor(clip, truth, history)))
        for row, codec in self._codecs.items():
            frames = reconstruct(codec, truth.frames, self._device)
            found.append((row, score(clip, truth._replace(frames=frames), truth)))
        return found


def _score(
    config: EvaluateConfig, held_out: HeldOut, scorer: _Scorer, timeline: Timeline, processes: Processes
) -> list[RowScores]:
    """Scores of every row, models first, each in the order of the clips."""
    mine: list[tuple[str, VideoScores]] = []
    clips = range(max(len(held_out.compared), len(held_out.others)))[processes.rank :: processes.num_processes]
    for clip in tqdm(clips, desc="score", unit="clip", disable=not processes.is_main):
        if clip < len(held_out.others):
            mine.append(scorer.other(clip))
        if clip < len(held_out.compared):
            mine += scorer.compared(clip)
    by_row = scores_by_row(processes.gather(mine))
    return [
        RowScores(row, kind, by_row[row], by_row[TRUTH], timeline, config.ddof)
        for row, kind in scorer.kinds().items()
        if len(by_row.get(row, [])) >= 2
    ]


def scores_by_row(scores: list[tuple[str, VideoScores]]) -> dict[str, list[VideoScores]]:
    """Each row's scores in the order of its clips."""
    by_row: dict[str, list[VideoScores]] = {}
    for row, score in scores:
        by_row.setdefault(row, []).append(score)
    return {row: sorted(found, key=lambda score: score.clip) for row, found in by_row.items()}


def _codec_rows(models: dict[str, Contestant]) -> dict[str, Codec]:
    """One row for each codec that loses something, named after its models where there are several."""
    owners: dict[str, list[str]] = {}
    for name, contestant in models.items():
        if not isinstance(contestant.codec, PixelsCodec):
            owners.setdefault(contestant.codec.fingerprint(), []).append(name)
    if len(owners) == 1:
        return {CODEC_ROW: models[next(iter(owners.values()))[0]].codec}
    return {f"{CODEC_ROW} of {', '.join(names)}": models[names[0]].codec for names in owners.values()}
