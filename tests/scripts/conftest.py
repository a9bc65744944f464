"""What every test of the rollout script begins with: a run, a clip, and the script itself."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_training import forget_accelerator, make_trainer, tiny_config

import rollout
from _cli import run_script
from video_mirai import build
from video_mirai.media import write_video


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of an untrained model."""
    config = tiny_config(tmp_path_factory.mktemp("runs"), "validation.history_frames=3")
    folder = build.export_run(config, make_trainer(config))
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (9, 40, 64, 3)).astype(np.uint8), fps=12)
    return path


@pytest.fixture
def roll_out(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Exit code of the script, run in this process."""

    def run(*arguments: object) -> int:
        forget_accelerator()
        words = ["rollout.py", "--checkpoint", str(run_folder), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as exit_info:
            run_script(rollout.main)
        forget_accelerator()
        code = exit_info.value.code
        if isinstance(code, str):  # as Python does with a last word
            print(code, file=sys.stderr)
            return 1
        return int(code or 0)

    return run
