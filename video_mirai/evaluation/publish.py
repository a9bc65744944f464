"""Files of an evaluation: results.json, the CSV files, plots, and the report page."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from video_mirai.data.video_folder import VideoFolder
from video_mirai.evaluation.aggregate import RowScores, few_samples_warnings, make_difference, make_row
from video_mirai.evaluation.generation import settings_hash
from video_mirai.evaluation.plots import DARK, LIGHT, plot_curves
from video_mirai.evaluation.protocol import UNPAIRED
from video_mirai.evaluation.report import Gallery, Plot, Strip, build_report
from video_mirai.evaluation.results import (
    ClipsInfo,
    CsvRow,
    DetectorInfo,
    Difference,
    EvaluationResult,
    ModelInfo,
    Row,
    write_results,
)
from video_mirai.evaluation.run import TRUTH, Contestant, Evaluation, video_file

PACKAGES = ("video_mirai", "torch", "diffusers", "numpy")


class Published(NamedTuple):
    result: EvaluationResult
    report: Path


def publish(
    evaluation: Evaluation,
    models: Mapping[str, Contestant],
    revision: str,
    device: torch.device,
    notes: Sequence[str] = (),
) -> Published:
    """Aggregate the scores and write every file; for the main process alone.

    Args:
        notes: sentences to show above the results, beside the warnings that the numbers give rise to.
    """
    out = Path(evaluation.config.out)
    result = make_result(evaluation, models, revision, device, notes)
    write_results(result, per_video_rows(evaluation.rows), out)
    plots = make_plots(result, out / "plots")
    report = out / "report.html"
    report.write_text(build_report(result, plots, make_galleries(evaluation)), encoding="utf-8")
    return Published(result, report)


def make_result(
    evaluation: Evaluation,
    models: Mapping[str, Contestant],
    revision: str,
    device: torch.device,
    notes: Sequence[str],
) -> EvaluationResult:
    """All numbers of an evaluation, and how they were made."""
    config = evaluation.config
    settings = asdict(config) | {"horizon_frames": evaluation.horizon_frames}
    resampling = config.resampling()
    return EvaluationResult(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        revision=revision,
        hardware=_hardware(device),
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        config=settings,
        config_sha256=settings_hash(settings),
        clips=_clips_info(evaluation, models),
        models=[
            ModelInfo(
                name,
                model.path,
                evaluation.weights[name],
                model.training_frames,
                asdict(model.rollout),
                f"{type(model.codec).__name__} {model.codec.fingerprint()[:16]}",
                evaluation.speeds[name],
            )
            for name, model in models.items()
        ],
        detectors=_detector_infos(evaluation),
        ddof=config.ddof,
        metrics=evaluation.protocol.metrics(),
        window_metrics=evaluation.protocol.window_metrics(),
        rows=[make_row(row, resampling) for row in evaluation.rows],
        differences=make_differences(evaluation),
        warnings=[*notes, *_warnings(evaluation)],
    )


def make_differences(evaluation: Evaluation) -> list[Difference]:
    """Every later model minus the first one, then every model minus copy-last-frame."""
    resampling = evaluation.config.resampling()
    rows = [row for row in evaluation.rows if row.kind == "model"]
    differences = [make_difference(row, rows[0], resampling) for row in rows[1:]]
    copies = [row for row in evaluation.rows if row.kind == "copy"]
    return differences + [make_difference(row, copy, resampling, UNPAIRED) for copy in copies for row in rows]


def per_video_rows(rows: list[RowScores]) -> list[CsvRow]:
    """One CSV row for each row of the table and clip."""
    return [
        {"row": row.name, "kind": row.kind, "clip": score.clip, "video": score.video, **score.numbers}
        for row in rows
        for score in row.scores
    ]


def make_plots(result: EvaluationResult, folder: Path) -> list[Plot]:
    """Curves over time; the light ones are written to the folder as well."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        ("psnr", "PSNR against the true continuation", "dB", "How far a rollout is from the one true future."),
        *(
            (d.label, f"{d.label}, windows of {d.clip_frames} frames", d.label,
             "Distance of each window to the true videos' same window; real versus real is the floor.")
            for d in result.detectors
        ),
        ("ssim", "SSIM against the true continuation", "SSIM", "Structure kept of the one true future."),
        ("consistency", "Drift: consistency with the given frames", "cosine", "A frozen video stays at 1."),
        ("sharpness", "Drift: sharpness", "variance of the Laplacian", "Blur is below real video, noise above."),
        ("brightness", "Drift: brightness", "mean luma, of 255", "Slow change of exposure."),
    ]  # fmt: skip
    plots = []
    for key, title, y_label, caption in wanted:
        images = [
            plot_curves(
                _drawn_rows(result.rows, key), key, title, y_label, result.clips.history_frames,
                result.clips.training_frames, theme,
            )
            for theme in (LIGHT, DARK)
        ]  # fmt: skip
        light, dark = images
        if light is not None and dark is not None:
            (folder / f"{key}.png").write_bytes(light)
            plots.append(Plot(title, caption, light, dark))
    return plots


def make_galleries(evaluation: Evaluation) -> list[Gallery]:
    """The first clips whatever they look like, then those where the last model does worst."""
    config = evaluation.config
    last = [row for row in evaluation.rows if row.kind == "model"][-1]
    fixed = [score.clip for score in last.scores[: config.fixed_videos]]
    by_psnr = sorted(last.scores, key=lambda score: score.numbers["psnr"])
    worst = [score.clip for score in by_psnr if score.clip not in fixed][: config.worst_videos]
    galleries = [
        Gallery(
            "Same histories, side by side",
            f"The first {len(fixed)} histories of the seeded order, chosen before anything was generated. All videos "
            "of a strip share their first frames; from then on the models are on their own.",
            [_strip(evaluation, clip) for clip in fixed],
            pause_button=True,
        ),
        Gallery(
            f"Worst {len(worst)}",
            f"The other histories on which {last.name} has its lowest mean PSNR.",
            [_strip(evaluation, clip) for clip in worst],
        ),
    ]
    return [gallery for gallery in galleries if gallery.strips]


def _strip(evaluation: Evaluation, clip: int) -> Strip:
    rows = [row for row in evaluation.rows if row.kind == "model"]
    score = rows[0].scores[clip]
    scores = ", ".join(f"{row.name} {row.scores[clip].numbers['psnr']:.1f} dB" for row in rows)
    videos = [
        (name, video_file(evaluation.config, name, clip).read_bytes()) for name in (TRUTH, *(row.name for row in rows))
    ]
    return Strip(f"Clip {clip}, {score.video} · {scores} ·", videos)


def _drawn_rows(rows: list[Row], key: str) -> list[Row]:
    """A copied frame has no consistency, sharpness or brightness worth a line; its PSNR and distance have."""
    of_its_own = key in ("consistency", "sharpness", "brightness")
    return [row for row in rows if not (of_its_own and row.kind in ("copy", "codec"))]


def _clips_info(evaluation: Evaluation, models: Mapping[str, Contestant]) -> ClipsInfo:
    config, dataset = evaluation.config, evaluation.held_out.dataset
    name = f"video folder {dataset.config.root}" if isinstance(dataset, VideoFolder) else "synthetic scenes"
    window, stride = config.window_frames, config.stride_frames
    return ClipsInfo(
        dataset=name,
        split=config.split,
        fps=float(dataset.fps),
        height=dataset.config.height,
        width=dataset.config.width,
        num_clips=len(evaluation.held_out.compared),
        num_source_videos=len({score.video for score in evaluation.rows[0].scores}),
        num_real_clips=len(evaluation.held_out.others),
        history_frames=config.history_frames,
        horizon_frames=evaluation.horizon_frames,
        training_frames=max(model.training_frames for model in models.values()),
        clip_rule=f"clips of {window} frames starting every {stride} after the history; windows start every {window}",
        seed=config.seed,
    )


def _detector_infos(evaluation: Evaluation) -> list[DetectorInfo]:
    return [
        DetectorInfo(label, d.name, d.sha256, d.clip_frames, d.feature_dim, d.preprocessing)
        for label, d in evaluation.detectors.items()
    ]


def _warnings(evaluation: Evaluation) -> list[str]:
    sentences = [sentence for row in evaluation.rows[:1] for sentence in few_samples_warnings(row)]
    others, compared = len(evaluation.held_out.others), len(evaluation.held_out.compared)
    if not any(row.kind == "real" for row in evaluation.rows):
        sentences.append("There are no other held-out videos, so the noise floor (real versus real) is missing.")
    elif others < compared:
        sentences.append(
            f"Real versus real has {others} clips where the models have {compared}; with fewer clips a Frechet "
            "distance is larger, so the floor shown is too high."
        )
    return sentences + _undefined(evaluation.rows)


def _undefined(rows: list[RowScores]) -> list[str]:
    """One sentence per metric that some clips have and others have not."""
    sentences = []
    for key in dict.fromkeys(key for row in rows for key in row.scores[0].numbers):
        missing = {
            row.name: sum(not np.isfinite(score.numbers[key]) for score in row.scores)
            for row in rows
            if key in row.scores[0].numbers
        }
        total = sum(len(row.scores) for row in rows if row.name in missing)
        if 0 < sum(missing.values()) < total:
            where = ", ".join(f"{count} clips of {name}" for name, count in missing.items() if count)
            sentences.append(f"{key} is undefined on {where}; they are left out of its mean.")
    return sentences


def _hardware(device: torch.device) -> dict[str, str]:
    found = {"machine": platform.machine(), "system": platform.system(), "threads": str(torch.get_num_threads())}
    if device.type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found
