"""`i3d_torchscript`: the I3D of the published Frechet video distance, from a torchscript file that the user has."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from video_mirai.evaluation.detectors.base import check_clips, file_sha256, in_batches, resized

SIZE = 224
NUM_LOGITS = 400
# The network halves time several times over; shorter clips fail inside it.
MIN_FRAMES = 9


class I3DTorchscript:
    """Kinetics-400 logits of I3D; the only detector whose distance is called FVD.

    Called as its authors' scripts call it, `model(clips, rescale=False, resize=False, return_features=True)` with
    clips (B, 3, T, 224, 224) that are already resized and in [-1, 1]. Those scripts pass `return_features` to get the
    400 values before the softmax; probabilities are recognised and refused.

    Raises:
        FileNotFoundError: no such file. ValueError: not torchscript, or not the 400 logits.
    """

    name = "i3d_torchscript"
    label = "FVD"
    preprocessing = f"bilinear {SIZE} x {SIZE} without antialias, values in [-1, 1], logits"
    feature_dim = NUM_LOGITS

    def __init__(self, path: str, clip_frames: int, batch_clips: int, device: torch.device) -> None:
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(
                f"I3D torchscript {path!r} does not exist; FVD needs the published i3d_torchscript.pt "
                "(Kinetics-400), which the repository universome/fvd-comparison links to."
            )
        if clip_frames < MIN_FRAMES:
            raise ValueError(
                f"clip_frames={clip_frames}: I3D needs at least {MIN_FRAMES} frames; published FVD uses 16."
            )
        self.clip_frames = clip_frames
        self.sha256 = file_sha256(file)
        self._batch_clips = batch_clips
        self._device = device
        try:
            self._model = torch.jit.load(str(file), map_location=device).eval()
        except RuntimeError as error:
            raise ValueError(f"{path!r} is not a torchscript file: {str(error).splitlines()[0]}") from error
        self._probe(path)

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        return in_batches(clips, self._batch_clips, self._device, self._logits)

    def _logits(self, clips: torch.Tensor) -> torch.Tensor:
        x = resized(clips, SIZE, SIZE, antialias=False).transpose(1, 2) / 127.5 - 1  # (B, 3, T, 224, 224)
        return self._model(x, rescale=False, resize=False, return_features=True)

    def _probe(self, path: str) -> None:
        """One noisy clip: refuses another network, and probabilities in place of logits."""
        clip = np.random.RandomState(0).randint(0, 256, (1, self.clip_frames, 32, 32, 3)).astype(np.uint8)
        try:
            output = in_batches(clip, 1, self._device, self._logits)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"{path!r} can't be called as i3d_torchscript.pt is: {reason}") from error
        if output.shape != (1, NUM_LOGITS):
            raise ValueError(
                f"{path!r} returned shape {output.shape}; I3D's {NUM_LOGITS} Kinetics logits are expected."
            )
        if output.min() >= 0 and abs(output.sum() - 1) < 1e-3:
            raise ValueError(f"{path!r} returned probabilities; FVD is defined on I3D's logits, before the softmax.")
