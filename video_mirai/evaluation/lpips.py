"""LPIPS, where its package, torchvision and the network's weights are on this machine. Nothing is downloaded."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from video_mirai.evaluation.detectors.base import tensors_sha256


class _Network(NamedTuple):
    """torchvision's name of the network, and of the file that its weights lie in."""

    constructor: str
    weights: str


NETWORKS = {
    "alex": _Network("alexnet", "alexnet-owt-*.pth"),
    "vgg": _Network("vgg16", "vgg16-*.pth"),
    "squeeze": _Network("squeezenet1_1", "squeezenet1_1-*.pth"),
}
# The pooling of AlexNet leaves nothing of smaller frames.
MIN_SIZE = 32


class Lpips:
    """Perceptual distance of each frame to the true one, of the package `lpips` (version 0.1), at the frames' own size.

    Args:
        net: a key of NETWORKS.
    Raises:
        ValueError: another network, or a package that is missing.
        FileNotFoundError: the network's weights are not in torch's hub folder.
    Source: Zhang et al. 2018.
    """

    def __init__(self, net: str, device: torch.device, batch_frames: int = 16) -> None:
        if net not in NETWORKS:
            raise ValueError(f"lpips={net!r} is not known; choose one of {', '.join(NETWORKS)}, or null.")
        package = _import_packages(net)
        _check_weights(net)
        self.name = f"lpips_{net}"
        self._network = package.LPIPS(net=net, verbose=False).eval().to(device)
        self.sha256 = tensors_sha256(self._network.state_dict().values())
        self._device = device
        self._batch_frames = batch_frames

    def per_frame(self, reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(T, H, W, 3) uint8 twice to (T,); 0 for equal frames."""
        if reference.shape != frames.shape:
            raise ValueError(
                f"reference {reference.shape} and frames {frames.shape} differ in shape; cut or resize one."
            )
        if min(frames.shape[1:3]) < MIN_SIZE:
            raise ValueError(f"LPIPS needs frames of at least {MIN_SIZE} x {MIN_SIZE} px, got {frames.shape[1:3]}.")
        found = []
        with torch.inference_mode():
            for start in range(0, len(frames), self._batch_frames):
                pair = (self._input(video[start : start + self._batch_frames]) for video in (reference, frames))
                found.append(self._network(*pair).flatten().double().cpu().numpy())
        return np.concatenate(found)

    def _input(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """(B, 3, H, W) float32 in [-1, 1]."""
        return torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).movedim(-1, 1).float() / 127.5 - 1


def _import_packages(net: str) -> Any:
    """The package lpips, which imports torchvision."""
    for name in ("torchvision", "lpips"):
        try:
            package = importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"lpips={net} needs the package {name}, which is not here; pip install lpips and the torchvision that "
                "belongs to your version of torch, or leave lpips=null."
            ) from error
    return package


def _check_weights(net: str) -> None:
    """The package would download them."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    wanted = NETWORKS[net]
    if not any(folder.glob(wanted.weights)):
        raise FileNotFoundError(
            f'lpips={net}: no {wanted.weights} in {folder}; fetch it once: python -c "import torchvision; '
            f"torchvision.models.{wanted.constructor}(weights='DEFAULT')\", or leave lpips=null."
        )
