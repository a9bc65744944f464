"""A study's small files with numbers that a test chooses, without any run."""

import json
from collections.abc import Sequence
from pathlib import Path

from video_mirai.config import save_config
from video_mirai.study.collect import FACTS_FILE, STUDY_FILE, write_rows
from video_mirai.study.config import ArmSpec, CommandSpec, Contrast, PrimaryMetric, StudyConfig, TeacherSpec

STEPS = [25, 50, 100]
KEPT = PrimaryMetric("Kept track", "video", "higher", key="first_step_beyond", decimals=1)
DISTANCE = PrimaryMetric("Last window", "window", "lower", key="fd_state", decimals=2)
PROBE = PrimaryMetric("Probe R2, 1 ahead", "probe", "higher", offset=1)


def study_config(results: Path, *, seeds: tuple[int, ...] = (1, 2, 3)) -> StudyConfig:
    """Baseline, foresight (with a teacher) and window0."""
    return StudyConfig(
        name="made_up",
        arms={"baseline": ArmSpec("a.yaml"), "foresight": ArmSpec("b.yaml", "wise"), "window0": ArmSpec("c.yaml")},
        reference="baseline",
        primary=[KEPT, DISTANCE, PROBE],
        contrasts=[Contrast("foresight", "window0")],
        evaluate=CommandSpec("eval.yaml"),
        probe=CommandSpec("probe.yaml"),
        seeds=list(seeds),
        teachers={"wise": TeacherSpec("t.yaml")},
        num_resamples=200,
        out="runs/none",
        results=str(results),
    )


def write_study(
    results: Path,
    *,
    gains: dict[str, float],
    seeds: tuple[int, ...] = (1, 2, 3),
    videos: int = 6,
    levels: Sequence[float] = (0.0, 4.0, 8.0),
    seed_gains: dict[int, float] | None = None,
) -> None:
    """Arm and reference differ by `gains[arm]` in every video, seed and step; everyone has `levels` at STEPS.

    seed_gains: instead of `gains`, for the seeds it names, where an arm has any gain.
    """
    config = study_config(results, seeds=seeds)
    results.mkdir(parents=True, exist_ok=True)
    save_config(config, results / STUDY_FILE)
    _write_json(results / FACTS_FILE, _facts())
    teacher = results / "teachers" / "wise"
    teacher.mkdir(parents=True)
    _write_cost(teacher / "teacher.json", 40.0)
    for arm in config.arms:
        for seed in seeds:
            folder = results / arm / f"seed{seed}"
            folder.mkdir(parents=True)
            gain = (seed_gains or {}).get(seed, gains[arm]) if arm in gains else 0.0
            _write_arm(folder, arm, seed, gain, videos, levels)


def _write_arm(folder: Path, arm: str, seed: int, gain: float, videos: int, levels: Sequence[float]) -> None:
    level = {step: at + seed + gain for step, at in zip(STEPS, levels, strict=True)}
    write_rows(folder / "per_video.csv", [
        {"step": step, "clip": clip, "first_step_beyond": level[step] + clip}
        for step in STEPS for clip in range(videos)
    ])  # fmt: skip
    write_rows(folder / "windows.csv", [
        {"step": step, "window": window, "first": 1, "last": 8, "key": "fd_state", "value": 50.0 - level[step] + window}
        for step in STEPS for window in range(2)
    ])  # fmt: skip
    write_rows(folder / "curves.csv", [
        {"metric": "psnr", "frame": frame, "mean": 20.0 + gain - frame} for frame in range(1, 5)
    ])  # fmt: skip
    write_rows(folder / "training.csv", [{"step": step, "train/flow": 1 / step} for step in STEPS])
    _write_cost(folder / "train.json", 200.0 if arm == "foresight" else 100.0)
    _write_cost(folder / "evaluate.json", 30.0)
    if arm != "baseline":
        write_rows(folder / "probe.csv", [
            {"target": "pixels", "offset": offset, "readout": "ridge", "video": video, "arm": 0.5 + gain / 100,
             "reference": 0.5} for offset in (0, 1) for video in range(videos)
        ])  # fmt: skip
        _write_cost(folder / "probe.json", 20.0)


def _facts() -> dict:
    return {
        "num_steps": STEPS[-1],
        "steps": STEPS,
        "differences": [["foresight", "foresight.weight", "–", "0.2"], ["window0", "foresight.window", "–", "[0]"]],
        "clips": {"num_clips": 6, "history_frames": 2, "horizon_frames": 32, "training_frames": 8},
        "metrics": {"psnr": ["PSNR", "dB"]},
        "probe_others": [{"predictor": "raw pixels", "target": "pixels", "offset": 1, "r2": 0.75}],
        "reference_rows": [
            {"row": "copy-last-frame", "metrics": {"first_step_beyond": 3.0}, "windows": [{}, {"fd_state": 70.0}]}
        ],
    }


def _write_cost(path: Path, seconds: float) -> None:
    _write_json(path, {"cpu_seconds": seconds, "wall_seconds": seconds, "attempts": [{}], "revision": "0" * 40,
                       "commands": ["python scripts/train_video.py"]})  # fmt: skip


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
