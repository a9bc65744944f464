"""A whole evaluation: continue the held-out clips with every model, score every row, hand the scores over.

Processes divide the work by batch and by clip and exchange frames through the output folder, which they share. What
is in a batch and what noise a clip gets does not depend on how many processes there are, so neither do the numbers.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from video_mirai.data.scenes import Scenes
from video_mirai.evaluation.aggregate import RowScores, Timeline, VideoScores, clip_timeline
from video_mirai.evaluation.detectors import Detector, build_detector
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
from video_mirai.evaluation.protocol import EvaluateConfig, Protocol, copy_last_frame
from video_mirai.evaluation.state_reader import StateReader
from video_mirai.media import to_uint8
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec, PixelsCodec
from video_mirai.sampling.rollout import RolloutSettings

TRUTH, OTHERS = "truth", "real"
COPY_ROW, REAL_ROW, CODEC_ROW = "copy-last-frame", "real vs real", "codec"
RESERVED = (TRUTH, OTHERS, COPY_ROW, REAL_ROW, CODEC_ROW)


@dataclass(frozen=True)
class Contestant:
    """A model to evaluate. path: as the user named it; training_frames: length of its training clips, pixel frames."""

    path: str
    model: CausalVideoDiT
    codec: Codec
    rollout: RolloutSettings
    training_frames: int


class Processes(NamedTuple):
    """The processes that share the work. gather: concatenates a list over all of them, in any order."""

    rank: int
    num_processes: int
    wait: Callable[[], None]
    gather: Callable[[list[Any]], list[Any]]

    @property
    def is_main(self) -> bool:
        return self.rank == 0


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
    rows: list[RowScores]
    weights: dict[str, str]
    speeds: dict[str, float | None]


def check_names(models: dict[str, str]) -> None:
    """ValueError unless there are models and their names can be folder names."""
    if not models:
        raise ValueError("no models to evaluate; name some: models.baseline=RUN models.foresight=RUN.")
    for name in models:
        if name in RESERVED or not re.fullmatch(r"[\w.+-]+", name):
            raise ValueError(
                f"models.{name}: choose a name of letters, digits, '_', '.', '+' and '-', none of {RESERVED}."
            )


def evaluate(
    config: EvaluateConfig,
    held_out: HeldOut,
    horizon_frames: int,
    models: dict[str, Contestant],
    processes: Processes,
    device: torch.device,
) -> Evaluation:
    """Generate what is missing, score everything. Every process calls it and gets the same scores.

    Raises:
        ValueError: settings that cannot be, a detector that is unknown or does not fit.
    """
    timeline = clip_timeline(horizon_frames, config.window_frames, config.stride_frames)
    detectors = _build_detectors(config, device)
    reader = None
    if isinstance(held_out.dataset, Scenes):
        scenes = held_out.dataset.config
        reader = StateReader(scenes, max_sprites=scenes.num_sprites + 2)
    protocol = Protocol(config, timeline, detectors, reader)
    stores = _store_real_videos(config, held_out, processes)
    weights, speeds = {}, {}
    for name, contestant in models.items():
        weights[name] = weights_sha256(contestant.model)
        settings = _generation_settings(config, held_out, horizon_frames, contestant, weights[name])
        stores[name] = _store(config, name, settings)
        speed = _generate(config, held_out, horizon_frames, name, contestant, stores, processes, device)
        speeds[name] = _total_speed(processes.gather([speed]))
    processes.wait()
    rows = _score(config, held_out, models, stores, protocol, timeline, processes, device)
    return Evaluation(config, held_out, horizon_frames, timeline, protocol, detectors, rows, weights, speeds)


def weights_sha256(model: torch.nn.Module) -> str:
    """sha256 over the names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def video_file(config: EvaluateConfig, row: str, index: int) -> Path:
    """Where the mp4 of a clip lies."""
    return Path(config.out) / "videos" / row / f"{index:04d}.mp4"


def _build_detectors(config: EvaluateConfig, device: torch.device) -> dict[str, Detector]:
    """By label; two of one label would overwrite each other's numbers."""
    detectors: dict[str, Detector] = {}
    for name in config.detectors:
        detector = build_detector(name, config.window_frames, device=device, allow_import=config.allow_import)
        if detector.label in detectors:
            raise ValueError(f"detectors: {name!r} and another one are both labelled {detector.label}; choose one.")
        detectors[detector.label] = detector
    return detectors


def _store(config: EvaluateConfig, row: str, settings: dict[str, Any]) -> ClipStore:
    out = Path(config.out)
    return ClipStore(out / "frames" / row, out / "videos" / row, settings_hash(settings))


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
    stores: dict[str, ClipStore],
    processes: Processes,
    device: torch.device,
) -> Speed:
    """This process's share of the batches that are not finished yet."""
    clips = range(len(held_out.compared))
    batches = [clips[start : start + config.batch_clips] for start in range(0, len(clips), config.batch_clips)]
    mine = batches[processes.rank :: processes.num_processes]
    # A batch is redone whole: its numbers may depend, in the last digits, on what is computed together.
    todo = [batch for batch in mine if not all(stores[name].has(clip) for clip in batch)]
    total = sum(len(batch) for batch in todo) * horizon_frames
    started = time.perf_counter()
    with tqdm(total=total, unit="frame", desc=f"rollout {name}", disable=not processes.is_main or not todo) as bar:
        for batch in todo:
            truth = [stores[TRUTH].load(clip) for clip in batch]
            history = np.stack([clip.frames[: config.history_frames] for clip in truth])
            generators = [clip_generator(config.seed, clip, device) for clip in batch]
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
                stores[name].save(clip, StoredClip(original.name, frames, original.state), held_out.dataset.fps)
    return Speed(total, time.perf_counter() - started)


def _total_speed(speeds: list[Speed]) -> float | None:
    """Frames per second of all processes together; None where everything was finished before."""
    frames = sum(speed.frames for speed in speeds)
    return frames / max(speed.seconds for speed in speeds) if frames else None


def _score(
    config: EvaluateConfig,
    held_out: HeldOut,
    models: dict[str, Contestant],
    stores: dict[str, ClipStore],
    protocol: Protocol,
    timeline: Timeline,
    processes: Processes,
    device: torch.device,
) -> list[RowScores]:
    """Scores of every row, models first, each in the order of the clips."""
    codecs = _codec_rows(models)
    mine: list[tuple[str, VideoScores]] = []
    clips = range(max(len(held_out.compared), len(held_out.others)))[processes.rank :: processes.num_processes]
    for clip in tqdm(clips, desc="score", unit="clip", disable=not processes.is_main):
        if clip < len(held_out.others):
            mine.append((REAL_ROW, protocol.score(clip, stores[OTHERS].load(clip), truth=None)))
        if clip >= len(held_out.compared):
            continue
        truth = stores[TRUTH].load(clip)
        mine.append((TRUTH, protocol.score(clip, truth, truth=None)))
        mine += [(name, protocol.score(clip, stores[name].load(clip), truth)) for name in models]
        mine.append((COPY_ROW, protocol.score(clip, copy_last_frame(truth, config.history_frames), truth)))
        for row, codec in codecs.items():
            frames = reconstruct(codec, truth.frames, device)
            mine.append((row, protocol.score(clip, truth._replace(frames=frames), truth)))
    by_row: dict[str, list[VideoScores]] = {}
    for row, scores in processes.gather(mine):
        by_row.setdefault(row, []).append(scores)
    for scores in by_row.values():
        scores.sort(key=lambda score: score.clip)
    kinds = dict.fromkeys(models, "model") | {COPY_ROW: "copy"} | dict.fromkeys(codecs, "codec") | {REAL_ROW: "real"}
    return [
        RowScores(row, kind, by_row[row], by_row[TRUTH], timeline, config.ddof)
        for row, kind in kinds.items()
        if len(by_row.get(row, [])) >= 2
    ]


def _codec_rows(models: dict[str, Contestant]) -> dict[str, Codec]:
    """One row for each codec that loses something, named after its models where there are several."""
    owners: dict[str, list[str]] = {}
    for name, contestant in models.items():
        if not isinstance(contestant.codec, PixelsCodec):
            owners.setdefault(contestant.codec.fingerprint(), []).append(name)
    if len(owners) == 1:
        return {CODEC_ROW: models[next(iter(owners.values()))[0]].codec}
    return {f"{CODEC_ROW} of {', '.join(names)}": models[names[0]].codec for names in owners.values()}
