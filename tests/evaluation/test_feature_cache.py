from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from video_mirai.evaluation.feature_cache import CachedDetector

CLIPS = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 8, 3), dtype=np.uint8)


@dataclass
class CountingDetector:
    """Mean colours; counts how often it computes."""

    name: str = "mean"
    label: str = "fd_mean"
    sha256: str = "0" * 64
    clip_frames: int = 4
    feature_dim: int = 3
    preprocessing: str = "none"
    calls: int = 0

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        self.calls += 1
        return clips.mean(axis=(1, 2, 3))


def cached(detector: CountingDetector, folder: Path) -> CachedDetector:
    return CachedDetector(detector, folder, torch.device("cpu"))


def entry(folder: Path) -> Path:
    (found,) = folder.rglob("*.npz")
    return found


def test_known_clips_are_not_computed_again(tmp_path: Path) -> None:
    detector = CountingDetector()
    first = cached(detector, tmp_path).features(CLIPS)
    np.testing.assert_array_equal(cached(detector, tmp_path).features(CLIPS), first)
    np.testing.assert_array_equal(first, CLIPS.mean(axis=(1, 2, 3)))
    assert detector.calls == 1


@pytest.mark.parametrize("changed", [{"sha256": "1" * 64}, {"preprocessing": "bilinear"}, {"name": "other"}], ids=str)
def test_another_detector_has_entries_of_its_own(changed: dict[str, str], tmp_path: Path) -> None:
    cached(CountingDetector(), tmp_path).features(CLIPS)
    other = CountingDetector(**changed)
    cached(other, tmp_path).features(CLIPS)
    assert other.calls == 1


def test_one_grey_level_or_another_order_is_another_entry(tmp_path: Path) -> None:
    detector = CountingDetector()
    changed = CLIPS.copy()
    changed[2, 3, 7, 7, 2] ^= 1
    for clips in (CLIPS, changed, CLIPS[::-1], CLIPS[:2]):
        np.testing.assert_array_equal(cached(detector, tmp_path).features(clips), clips.mean(axis=(1, 2, 3)))
    assert detector.calls == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "pickled", "another's"])
def test_what_cannot_be_trusted_is_made_anew(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    detector = CountingDetector()
    expected = cached(detector, tmp_path).features(CLIPS)
    path = entry(tmp_path)
    with np.load(path) as stored:
        arrays = dict(stored)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "flipped":
        np.savez(path, **(arrays | {"features": expected + 1e-9}))
    elif damage == "pickled":
        np.savez(path, **(arrays | {"features": np.array([object()], dtype=object)}), allow_pickle=True)
    else:
        cached(detector, tmp_path / "second").features(CLIPS + 1)
        entry(tmp_path / "second").rename(path)
    calls = detector.calls
    np.testing.assert_array_equal(cached(detector, tmp_path).features(CLIPS), expected)
    assert detector.calls == calls + 1
    assert "made anew" in caplog.text
    np.testing.assert_array_equal(cached(detector, tmp_path).features(CLIPS), expected)
    assert detector.calls == calls + 1
