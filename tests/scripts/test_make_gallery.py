"""An evaluation's videos side by side in one file."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import make_gallery
from _cli import run_script
from video_mirai.data.video_reader import open_video
from video_mirai.evaluation.generation import ClipStore, StoredClip

MODELS = ("truth", "mine")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Two models' two videos of 6 frames, every pixel of its own colour."""
    generator = np.random.default_rng(0)
    for model in MODELS:
        store = ClipStore(tmp_path / "frames" / model, tmp_path / "videos" / model, "settings")
        for clip in range(2):
            frames = generator.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
            store.save(clip, StoredClip(f"clip{clip}", frames, {}), fps=8)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, report: Path, out: Path, *given: object) -> int:
    """Exit code of the script, run in this process."""
    words = ["make_gallery.py", "--report", report, "--models", *MODELS, "--clips", 0, 1, "--out", out, *given]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as exit_info:
        run_script(make_gallery.main)
    return int(exit_info.value.code or 0)


def webp_frames(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        frames = []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")))
        return np.stack(frames)


def test_a_webp_shows_the_exact_frames(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, report, report / "new" / "gallery.webp", "--scale", 2) == 0
    shown = webp_frames(report / "new" / "gallery.webp")
    with np.load(report / "frames" / "truth" / "0000.npz") as stored:
        assert (shown[:, -32:, :32] == stored["frames"].repeat(2, axis=1).repeat(2, axis=2)).all()
    assert len(shown) == 6


def test_fewer_frames_and_colours(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, report, report / "gallery.webp", "--frames", 4, "--colours", 8) == 0
    shown = webp_frames(report / "gallery.webp")
    assert len(shown) == 4 and 1 < len(np.unique(shown.reshape(-1, 3), axis=0)) <= 8


def test_an_evaluation_of_folders_has_no_exact_frames_and_is_shown_from_its_mp4s(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(report / "frames")
    assert call(monkeypatch, report, report / "gallery.mp4") == 0
    with open_video(report / "gallery.mp4") as video:
        assert video.info.num_frames == 6


def test_an_mp4_of_all_frames(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, report, report / "gallery.mp4") == 0
    with open_video(report / "gallery.mp4") as video:
        assert video.info.num_frames == 6 and video.info.fps == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--clips", "7"], "does the evaluation have this model and this clip?"),
        (["--models", "theirs"], "does the evaluation have this model and this clip?"),
        (["--out", "gallery.txt"], "--out gallery.txt: must end in one of .webp, .mp4, .gif"),
        (["--scale", "0"], "--scale 0 must be at least 1"),
        (["--colours", "300"], "--colours 300"),
        (["--frames", "0"], "--frames 0"),
    ],
)
def test_users_mistake_is_one_line(
    report: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    message: str,
) -> None:
    assert call(monkeypatch, report, report / "gallery.webp", *given) == 2
    assert message in capsys.readouterr().err
