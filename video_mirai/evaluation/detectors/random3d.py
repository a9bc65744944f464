"""`random3d`: a small 3D convolutional network with fixed random weights, so that a distance needs no download."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from video_mirai.evaluation.detectors.base import Resize, check_clips, check_output, in_batches, tensors_sha256

SIZE = 64
RESIZE = Resize(SIZE, SIZE, antialias=True)
SEED = 0
# (channels, kernel, stride) of each layer; time, height, width.
LAYERS = (
    (16, (3, 5, 5), (1, 2, 2)),
    (24, (3, 3, 3), (2, 2, 2)),
    (24, (3, 3, 3), (2, 2, 2)),
)
# A quarter of the first layer sees colour; the rest sees contrast only, which is weaker in video by about this factor.
CONTRAST_GAIN = 4.0
# How fast features change says what their mean over time cannot (a shuffled clip has the same mean); weighed to match.
MOTION_WEIGHT = 3.0


class Random3D:
    """Mean, and mean absolute change from frame to frame, of every channel of three random ReLU layers (d = 128)."""

    name = "random3d"
    label = "fd_random3d"
    preprocessing = f"{RESIZE}, values in [-1, 1]"

    def __init__(self, clip_frames: int, batch_clips: int, device: torch.device) -> None:
        if clip_frames < 8:
            raise ValueError(f"clip_frames={clip_frames}: random3d needs at least 8 frames.")
        self.clip_frames = clip_frames
        self.feature_dim = 2 * sum(channels for channels, _, _ in LAYERS)
        self._batch_clips = batch_clips
        self._device = device
        weights = _fixed_weights()
        self.sha256 = tensors_sha256([tensor for layer in weights for tensor in layer])
        self._weights = [(kernel.to(device), bias.to(device)) for kernel, bias in weights]

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        return check_output(self, in_batches(clips, self._batch_clips, self._device, self._network), len(clips))

    def _network(self, clips: torch.Tensor) -> torch.Tensor:
        x = (RESIZE(clips) / 127.5 - 1).transpose(1, 2)  # (B, 3, T, H, W)
        pooled = []
        for (kernel, bias), (_, size, stride) in zip(self._weights, LAYERS, strict=True):
            x = F.relu(F.conv3d(x, kernel, bias, stride, padding=[side // 2 for side in size]))
            pooled.append(x.mean(dim=(2, 3, 4)))
            pooled.append(MOTION_WEIGHT * x.diff(dim=2).abs().mean(dim=(2, 3, 4)))
        return torch.cat(pooled, dim=1)  # (B, d)


def _fixed_weights() -> list[tuple[torch.Tensor, torch.Tensor]]:
    # NumPy never changes the stream of this legacy generator, unlike torch's: the network is the same everywhere.
    random = np.random.RandomState(SEED)
    weights, channels_in = [], 3
    for channels, size, _ in LAYERS:
        kernel = random.standard_normal((channels, channels_in, *size))
        contrast = channels // 4 if channels_in == 3 else channels
        kernel[contrast:] -= kernel[contrast:].mean(axis=(1, 2, 3, 4), keepdims=True)
        kernel *= math.sqrt(2) / np.sqrt(np.square(kernel).sum(axis=(1, 2, 3, 4), keepdims=True))
        kernel[contrast:] *= CONTRAST_GAIN
        bias = 0.1 * random.standard_normal(channels)
        weights.append((torch.tensor(kernel, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32)))
        channels_in = channels
    return weights
