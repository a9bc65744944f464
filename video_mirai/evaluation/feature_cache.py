"""Features of real videos on disk, so that a detector, which takes most of the time, sees each clip once.

An entry's key is the sha256 of everything that its numbers depend on: the pixels that the detector was given, the
detector's name, weights and preprocessing, and what computed them. Which file the pixels come from, the frame rate, the
resizing, the clip rule, the split and the seed all change the pixels, so a stale entry can't be found. An entry that is
damaged, or holds another key than its name says, is rejected and made anew.
"""

import hashlib
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from video_mirai.evaluation.detectors import Detector

logger = logging.getLogger(__name__)

FORMAT = 1


class CachedDetector:
    """A detector whose features are read from `folder` where they are known, and written there where they are not.

    device: where the detector computes; another one rounds differently, and has its own entries.
    """

    def __init__(self, detector: Detector, folder: str | Path, device: torch.device) -> None:
        self._detector = detector
        self._folder = Path(folder)
        self._device = device
        self.name = detector.name
        self.label = detector.label
        self.sha256 = detector.sha256
        self.clip_frames = detector.clip_frames
        self.feature_dim = detector.feature_dim
        self.preprocessing = detector.preprocessing

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        key = self._key(clips)
        path = self._folder / self.label / f"{_sha256(_canonical(key))}.npz"
        known = _read_entry(path, key, (len(clips), self.feature_dim))
        if known is not None:
            return known
        features = self._detector.features(clips)
        _write_entry(path, key, features)
        return features

    def _key(self, clips: NDArray[np.uint8]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "clips": {"sha256": _sha256(np.ascontiguousarray(clips).tobytes()), "shape": list(clips.shape)},
            "detector": {
                "name": self.name, "label": self.label, "sha256": self.sha256, "clip_frames": self.clip_frames,
                "feature_dim": self.feature_dim, "preprocessing": self.preprocessing,
            },
            "computed": {"torch": torch.__version__, "device": self._device.type},
        }  # fmt: skip


def _read_entry(path: Path, key: dict[str, Any], shape: tuple[int, int]) -> NDArray[np.float64] | None:
    """The features of an entry; None where there is none, or none that can be trusted."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            found_key, features, checksum = str(stored["key"]), stored["features"], str(stored["sha256"])
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        logger.warning("%s cannot be read (%s); its features are made anew.", path, error)
        return None
    if found_key != _canonical(key).decode():
        logger.warning("%s holds features of other clips or another detector; they are made anew.", path)
        return None
    if features.shape != shape or features.dtype != np.float64 or _sha256(features.tobytes()) != checksum:
        logger.warning("%s is damaged; its features are made anew.", path)
        return None
    return features


def _write_entry(path: Path, key: dict[str, Any], features: NDArray[np.float64]) -> None:
    """In one move, so that a killed run leaves no half entry; processes that race write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, key=_canonical(key).decode(), features=features, sha256=_sha256(features.tobytes()))
    os.replace(part, path)


def _canonical(key: dict[str, Any]) -> bytes:
    return json.dumps(key, sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
