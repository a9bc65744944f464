"""What a detector is, and what every detector shares: checks, batches, resizing, file hashes."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from video_mirai.evaluation.frame_quality import as_array


class Detector(Protocol):
    """A frozen network whose features a Frechet distance compares.

    Attributes:
        name: kind of the network. label: what a distance made with it is called: "FVD" or "fd_<name>".
        sha256: of the weights, hex. clip_frames: frames of one clip. feature_dim: width d.
        preprocessing: what happens to the frames, as one phrase for reports.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def clip_frames(self) -> int: ...
    @property
    def feature_dim(self) -> int: ...
    @property
    def preprocessing(self) -> str: ...

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Clips (N, clip_frames, H, W, 3) uint8 to (N, feature_dim) float64; batches inside, order kept."""
        ...


class FrameEncoder(Protocol):
    """A network that has features of single frames too, such as the consistencies are made of."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def preprocessing(self) -> str: ...

    def frame_features(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Frames (T, H, W, 3) uint8 to (T, D) float64."""
        ...


@dataclass(frozen=True)
class Resize:
    """Bilinear, half-pixel centres, to height x width.

    Attributes:
        antialias: whether shrinking averages over the pixels that it leaves out.
        crop: shrink the shorter side and cut the middle out, instead of stretching the whole frame.
    """

    height: int
    width: int
    antialias: bool
    crop: bool = False

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """uint8 (B, T, H, W, 3) to float32 (B, T, 3, height, width), 0 to 255."""
        frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()  # (B*T, 3, H, W)
        scale = max(self.height / frames.shape[2], self.width / frames.shape[3])
        scaled = (max(self.height, round(scale * frames.shape[2])), max(self.width, round(scale * frames.shape[3])))
        target = scaled if self.crop else (self.height, self.width)
        if tuple(frames.shape[2:]) != target:
            frames = F.interpolate(frames, target, mode="bilinear", antialias=self.antialias)
        top, left = (target[0] - self.height) // 2, (target[1] - self.width) // 2
        return frames[:, :, top : top + self.height, left : left + self.width].unflatten(0, clips.shape[:2])

    def __str__(self) -> str:
        shape = "shorter side first, then the middle" if self.crop else "aspect ratio not kept"
        return f"bilinear {self.width} x {self.height} {'with' if self.antialias else 'without'} antialias, {shape}"


def check_clips(clips: NDArray[np.uint8], clip_frames: int) -> None:
    """ValueError unless clips are (N, clip_frames, H, W, 3) uint8 with N >= 1."""
    clips = as_array(clips, "clips")
    if clips.ndim != 5 or clips.shape[-1] != 3 or clips.dtype != np.uint8:
        raise ValueError(f"clips are {clips.dtype} of shape {clips.shape}; expected uint8 (clips, frames, H, W, 3).")
    if clips.shape[1] != clip_frames or len(clips) == 0:
        raise ValueError(
            f"clips of shape {clips.shape}: this detector needs at least one clip of {clip_frames} frames."
        )


def check_output(detector: Detector, features: NDArray[np.floating], num_clips: int) -> NDArray[np.float64]:
    """The features as float64, or a ValueError when they are not (num_clips, feature_dim) and finite."""
    rows = np.asarray(features, dtype=np.float64)
    expected = (num_clips, detector.feature_dim)
    if rows.shape != expected:
        raise ValueError(f"detector {detector.name} returned shape {rows.shape}; expected {expected}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"detector {detector.name} returned NaN or infinite features.")
    return rows


def in_batches(
    clips: NDArray[np.uint8], batch_clips: int, device: torch.device, network: Callable[[torch.Tensor], torch.Tensor]
) -> NDArray[np.float64]:
    """Runs `network` on uint8 batches (B, T, H, W, 3) without gradients; (N, d) float64."""
    rows = []
    with torch.inference_mode():
        for start in range(0, len(clips), batch_clips):
            batch = torch.from_numpy(np.ascontiguousarray(clips[start : start + batch_clips])).to(device)
            rows.append(network(batch).double().cpu().numpy())
    return np.concatenate(rows)


def file_sha256(*paths: Path) -> str:
    """Hex digest of the bytes of a file, or of several, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def tensors_sha256(tensors: Iterable[torch.Tensor]) -> str:
    """Hex digest of the tensors' bytes, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
