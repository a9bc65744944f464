"""Files of an evaluation: results.json, the CSV files, features, plots, and the report page."""

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from video_mirai.evaluation.aggregate import few_samples_warnings, make_difference, make_row, pooled_key
from video_mirai.evaluation.evaluated_row import FEATURES_FILE, save_features
from video_mirai.evaluation.findings import Findings
from video_mirai.evaluation.generation import settings_hash
from video_mirai.evaluation.plots import DARK, LIGHT, plot_curves, plot_lags
from video_mirai.evaluation.report import Plot, build_report
from video_mirai.evaluation.results import CsvRow, DetectorInfo, EvaluationResult, Row, write_results
from video_mirai.evaluation.row_scores import RowScores

PACKAGES = ("video_mirai", "torch", "diffusers", "numpy")


class Published(NamedTuple):
    result: EvaluationResult
    report: Path


def publish(findings: Findings, revision: str, device: torch.device) -> Published:
    """Aggregate the scores and write every file; for the main process alone."""
    out = Path(findings.config.out)
    result = make_result(findings, revision, device)
    write_numbers(findings, result)
    plots = make_plots(result, out / "plots")
    report = out / "report.html"
    report.write_text(build_report(result, plots, findings.galleries), encoding="utf-8")
    return Published(result, report)


def write_numbers(findings: Findings, result: EvaluationResult) -> None:
    """results.json, the CSV files and the features: all that programs read."""
    out = Path(findings.config.out)
    write_results(result, per_video_rows(findings.rows), out)
    save_features(findings.rows, out / FEATURES_FILE)


def make_result(findings: Findings, revision: str, device: torch.device) -> EvaluationResult:
    """All numbers of an evaluation, and how they were made."""
    resampling = findings.config.resampling()
    return EvaluationResult(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        revision=revision,
        hardware=_hardware(device),
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        config=findings.settings,
        config_sha256=settings_hash(findings.settings),
        clips=findings.clips,
        models=findings.models,
        detectors=[
            DetectorInfo(label, d.name, d.sha256, d.clip_frames, d.feature_dim, d.preprocessing)
            for label, d in findings.detectors.items()
        ],
        ddof=findings.config.ddof,
        metrics=findings.protocol.metrics(),
        window_metrics=findings.protocol.window_metrics(),
        rows=[make_row(row, resampling) for row in findings.rows],
        differences=[make_difference(row, other, resampling, out) for row, other, out in findings.comparisons],
        warnings=[*findings.notes, *_warnings(findings.rows)],
        rules=findings.rules,
        video_sets=findings.video_sets,
        vbench=findings.vbench,
    )


def per_video_rows(rows: list[RowScores]) -> list[CsvRow]:
    """One CSV row for each row of the table and clip."""
    return [
        {"row": row.name, "kind": row.kind, "clip": score.clip, "video": score.video, **score.numbers}
        for row in rows
        for score in row.scores
    ]


def make_plots(result: EvaluationResult, folder: Path) -> list[Plot]:
    """Curves over time, and against the lag; the light ones are written to the folder as well."""
    folder.mkdir(parents=True, exist_ok=True)
    distances = []
    for d in result.detectors:
        title = f"{d.label}, windows of {d.clip_frames} frames, "
        distances += [
            (d.label, title + "time-aligned", d.label,
             "Distance of each window to the real videos' window of the same time; real versus real is the floor."),
            (pooled_key(d.label), title + "pooled", d.label,
             "Distance of each window to all windows of the real videos together: change of content over time counts."),
        ]  # fmt: skip
    wanted = [
        ("psnr", "PSNR against the true video", "dB", "How far a video is from the one true one."),
        *distances,
        ("ssim", "SSIM against the true video", "SSIM", "Structure kept of the one true video."),
        ("on_track", "State: still on track", "share of videos", "No sprite lost so far, as “Kept track” counts it."),
        ("position_error", "State: position error", "px", "Of visible sprites that are found; the lost have none."),
        ("identity_persistence", "State: identity", "share", "Share of visible sprites found as the one they are."),
        ("consistency", "Drift: consistency with the first frames", "cosine", "A frozen video stays at 1."),
        ("sharpness", "Drift: sharpness", "variance of the Laplacian", "Blur is below real video, noise above."),
        ("brightness", "Drift: brightness", "mean luma, of 255", "Slow change of exposure."),
        ("contrast", "Drift: contrast", "deviation of luma, of 255", "Washed out is below, burnt out above."),
        ("saturation", "Drift: saturation", "saturation", "Colours that fade or burn in."),
    ]  # fmt: skip
    clips = result.clips
    plots = []
    for key, title, y_label, caption in wanted:
        rows = _drawn_rows(result.rows, key)
        images = [
            plot_curves(rows, key, title, y_label, clips.history_frames, clips.training_frames, theme)
            for theme in (LIGHT, DARK)
        ]
        plots += _kept(images, folder / f"{key}.png", title, caption)
    lag_title = "Drift: cosine by distance in frames"
    lags = [plot_lags(_drawn_rows(result.rows, "consistency"), lag_title, theme) for theme in (LIGHT, DARK)]
    return plots + _kept(
        lags, folder / "cosine_by_lag.png", lag_title,
        "Mean cosine of the features of frames so many apart; neighbours alone hide drift. Real video falls too.",
    )  # fmt: skip


def _kept(images: list[bytes | None], path: Path, title: str, caption: str) -> list[Plot]:
    """The plot, whose light form is written to `path`; nothing where no row has the curve."""
    light, dark = images
    if light is None or dark is None:
        return []
    path.write_bytes(light)
    return [Plot(title, caption, light, dark)]


def _drawn_rows(rows: list[Row], key: str) -> list[Row]:
    """A copied frame has nothing of its own worth a line; its PSNR and distance have."""
    of_its_own = key in ("consistency", "sharpness", "brightness", "contrast", "saturation")
    return [row for row in rows if not (of_its_own and row.kind in ("copy", "codec"))]


def _warnings(rows: list[RowScores]) -> list[str]:
    sentences = [sentence for row in rows[:1] for sentence in few_samples_warnings(row)]
    real = next((row for row in rows if row.kind == "real"), None)
    if real is None:
        sentences.append("There are too few real videos for real versus real, so the noise floor is missing.")
    else:
        here, there = (min(len(row.scores), len(row.reference)) for row in (real, rows[0]))
        if here < there:
            sentences.append(
                f"Real versus real compares {here} videos with as many where {rows[0].name} has {there}; with fewer "
                "videos a Frechet distance is larger, so the floor shown is too high."
            )
    return sentences + _undefined(rows)


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
