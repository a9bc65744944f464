"""Folders of small videos, real and generated, and evaluations of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_mirai.evaluation.contestants import Processes
from video_mirai.evaluation.findings import Findings
from video_mirai.evaluation.folder_run import evaluate_folders
from video_mirai.evaluation.publish import make_result, write_numbers
from video_mirai.evaluation.results import EvaluationResult
from video_mirai.evaluation.video_sets import FolderConfig
from video_mirai.media import write_video

FRAMES, SIZE, FPS = 24, 16, 8.0
ALONE = Processes(0, 1, lambda: None, lambda scores: scores)
CPU = torch.device("cpu")
QUICK = {"detectors": ["random3d"], "window_frames": 8, "stride_frames": 4, "num_resamples": 20, "num_subsets": 4,
         "fixed_videos": 1, "worst_videos": 1, "device": "cpu"}  # fmt: skip


def moving_texture(seed: int, frames: int = FRAMES, size: int = SIZE) -> np.ndarray:
    """(frames, size, size, 3) uint8: a random picture that moves sideways, a pixel a frame."""
    picture = np.random.default_rng(seed).integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
    picture = picture.repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([np.roll(picture, frame, axis=1) for frame in range(frames)])


def write_folder(folder: Path, videos: dict[str, np.ndarray], fps: float = FPS) -> Path:
    for name, frames in videos.items():
        write_video(folder / f"{name}.mp4", frames, fps)
    return folder


def write_real_and_fake(root: Path, num_videos: int = 6) -> tuple[Path, Path]:
    """Real videos, and darker ones of the same names."""
    real = {f"clip_{i}": moving_texture(i) for i in range(num_videos)}
    darker = {name: (frames * 0.8).astype(np.uint8) for name, frames in real.items()}
    return write_folder(root / "real", real), write_folder(root / "fake", darker)


def folder_config(root: Path, **settings: Any) -> FolderConfig:
    paths = {"real": str(root / "real"), "fakes": {"fake": str(root / "fake")}, "out": str(root / "out"),
             "feature_cache": str(root / "features")}  # fmt: skip
    return FolderConfig(**(paths | QUICK | settings))


def evaluate(root: Path, **settings: Any) -> Findings:
    return evaluate_folders(folder_config(root, **settings), ALONE, CPU)


def result_of(root: Path, **settings: Any) -> EvaluationResult:
    """What would be written; plots and page, which take longest, are not made."""
    return make_result(evaluate(root, **settings), "revision", CPU)


def make_files(findings: Findings) -> None:
    """The files that comparisons read."""
    write_numbers(findings, make_result(findings, "revision", CPU))
