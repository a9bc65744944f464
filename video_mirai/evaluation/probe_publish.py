"""Files of a probe: results.json, the CSV files, curves, pictures, and the report page."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from video_mirai.data.scenes import Scenes
from video_mirai.evaluation.bootstrap import bootstrap, paired_bootstrap
from video_mirai.evaluation.contestants import weights_sha256
from video_mirai.evaluation.generation import settings_hash
from video_mirai.evaluation.plots import DARK, LIGHT
from video_mirai.evaluation.probe_data import PIXELS, POSITION, VELOCITY, Splits
from video_mirai.evaluation.probe_pictures import make_pictures
from video_mirai.evaluation.probe_report import build_page, plot_difference, plot_r2, png_bytes
from video_mirai.evaluation.probe_result import (
    BASELINE,
    CHECKPOINT,
    COPY,
    NO_READOUT,
    RAW_PIXELS,
    RIDGE,
    SHUFFLED,
    UNTRAINED,
    ProbeClipsInfo,
    ProbeDifference,
    ProbedModelInfo,
    ProbeResult,
    ProbeScore,
    TargetInfo,
    write_result,
)
from video_mirai.evaluation.probe_run import Probe, VideoNumbers
from video_mirai.evaluation.report import Plot
from video_mirai.evaluation.results import CsvRow, Estimate

PACKAGES = ("video_mirai", "torch", "diffusers", "numpy")
UNITS = {PIXELS: "of 1", POSITION: "pixels", VELOCITY: "pixels a frame"}
# What the checkpoint is compared with, where it is there.
REFERENCES = (BASELINE, UNTRAINED, RAW_PIXELS, COPY)
# Shuffled features can do this well by chance; more says that something leaks.
SHUFFLED_LIMIT = 0.02
FEW_VIDEOS = 20


class PublishedProbe(NamedTuple):
    result: ProbeResult
    report: Path


def publish_probe(probe: Probe, revision: str, device: torch.device, notes: Sequence[str] = ()) -> PublishedProbe:
    """Resample, and write every file.

    Args:
        notes: sentences to show above the results, beside the warnings that the numbers give rise to.
    """
    out = Path(probe.config.out)
    result = make_result(probe, revision, device, notes)
    write_result(result, per_video_rows(probe), out)
    plots = make_plots(result, out / "plots")
    pictures = make_pictures(probe)
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.clip:04d}.png").write_bytes(png_bytes(picture.image))
    report = out / "report.html"
    report.write_text(build_page(result, plots, pictures), encoding="utf-8")
    return PublishedProbe(result, report)


def make_result(probe: Probe, revision: str, device: torch.device, notes: Sequence[str]) -> ProbeResult:
    """All numbers of a probe, and how they were made."""
    config = probe.config
    settings = asdict(config)
    scores = [_score(probe, numbers) for numbers in probe.scores]
    hardware = {"machine": platform.machine(), "system": platform.system(), "device": str(device)}
    return ProbeResult(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        revision=revision,
        hardware=hardware,
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        config=settings,
        config_sha256=settings_hash(settings),
        checkpoint=_model_info(probe, CHECKPOINT),
        baseline=_model_info(probe, BASELINE) if BASELINE in probe.models else None,
        clips=_clips_info(probe),
        targets=_targets(probe),
        scores=scores,
        differences=make_differences(probe),
        warnings=[*notes, *_warnings(probe, scores)],
    )


def make_differences(probe: Probe) -> list[ProbeDifference]:
    """Checkpoint minus each of its references, for every target, offset and readout."""
    by_place = {(n.target, n.offset, n.predictor, n.readout): n.numbers for n in probe.scores}
    differences = []
    for target, offset, predictor, readout in by_place:
        if predictor != CHECKPOINT:
            continue
        ours = by_place[target, offset, predictor, readout]
        for reference in REFERENCES:
            theirs = by_place.get((target, offset, reference, NO_READOUT if reference == COPY else readout))
            if theirs is not None:
                metrics = {key: _paired(probe, values, theirs[key]) for key, values in ours.items()}
                differences.append(ProbeDifference(target, offset, readout, CHECKPOINT, reference, metrics))
    return differences


def per_video_rows(probe: Probe) -> list[CsvRow]:
    """One CSV row for each test video, target, offset, predictor and readout."""
    return [
        {
            "video": video,
            "target": n.target,
            "offset": n.offset,
            "predictor": n.predictor,
            "readout": n.readout,
            **{key: float(values[place]) for key, values in n.numbers.items()},
        }
        for n in probe.scores
        for place, video in enumerate(probe.test_videos)
    ]


def make_plots(result: ProbeResult, folder: Path) -> list[Plot]:
    """R2 of every target and readout, then the differences; the light ones are written to the folder as well."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = []
    for readout in result.readouts():
        for target in result.targets:
            light, dark = (plot_r2(result, target.key, readout, theme) for theme in (LIGHT, DARK))
            (folder / f"{target.key}_{readout}.png").write_bytes(light)
            plots.append(Plot(f"{target.key}, {readout}", "", light, dark))
        light, dark = (plot_difference(result, readout, theme) for theme in (LIGHT, DARK))
        (folder / f"difference_{readout}.png").write_bytes(light)
        plots.append(Plot(f"difference, {readout}", "", light, dark))
    return plots


def _score(probe: Probe, numbers: VideoNumbers) -> ProbeScore:
    metrics = {key: _estimate(probe, values) for key, values in numbers.numbers.items()}
    return ProbeScore(
        numbers.target, numbers.offset, numbers.predictor, numbers.readout, metrics, numbers.strength, numbers.seeds
    )


def _estimate(probe: Probe, values: np.ndarray) -> Estimate:
    """Mean over the test videos that have a number."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return Estimate(float(finite.mean()) if len(finite) else float("nan"))
    interval = bootstrap(finite, num_resamples=probe.config.num_resamples, seed=probe.config.seed)
    return Estimate(interval.estimate, interval.low, interval.high)


def _paired(probe: Probe, ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    both = np.isfinite(ours) & np.isfinite(theirs)
    if both.sum() < 2:
        return Estimate(float("nan"))
    interval = paired_bootstrap(
        ours[both], theirs[both], num_resamples=probe.config.num_resamples, seed=probe.config.seed
    )
    return Estimate(interval.estimate, interval.low, interval.high)


def _model_info(probe: Probe, name: str) -> ProbedModelInfo:
    of = probe.models[name]
    return ProbedModelInfo(
        of.path,
        weights_sha256(of.model),
        probe.layers[name],
        of.model.config.num_layers,
        probe.collected.features[name].shape[-1],
        of.rollout.window_frames,
        of.rollout.chunk_frames,
    )


def _clips_info(probe: Probe) -> ProbeClipsInfo:
    dataset, splits = probe.clips.dataset, probe.clips.splits
    parts = {part: getattr(splits, part) for part in Splits._fields}
    return ProbeClipsInfo(
        dataset="synthetic scenes" if isinstance(dataset, Scenes) else str(dataset.config.root),
        split=probe.config.split,
        num_clips=len(probe.clips.videos),
        num_videos={
            part: len({probe.clips.videos[clip] for clip in clips if probe.collected.kept[clip].any()})
            for part, clips in parts.items()
        },
        num_rows={part: int(probe.collected.kept[clips].sum()) for part, clips in parts.items()},
        frames_read=list(probe.frames),
    )


def _targets(probe: Probe) -> list[TargetInfo]:
    pictures = list(probe.collected.picture_shape)
    return [
        TargetInfo(key, UNITS[key], pictures if key == PIXELS else [values.shape[-1]])
        for key, values in probe.collected.targets.items()
    ]


def _warnings(probe: Probe, scores: Sequence[ProbeScore]) -> list[str]:
    sentences = []
    if len(probe.test_videos) < FEW_VIDEOS:
        sentences.append(f"Only {len(probe.test_videos)} test videos: the intervals are rough.")
    shuffled = [
        s for s in scores if s.predictor == SHUFFLED and s.readout == RIDGE and s.metrics["r2"].value > SHUFFLED_LIMIT
    ]
    sentences += [
        f"Shuffled features reach R2 {s.metrics['r2'].value:.3f} on {s.target} at D = {s.offset}, which must "
        f"not be above 0: something leaks, or there are too few test videos."
        for s in shuffled
    ]
    return sentences
