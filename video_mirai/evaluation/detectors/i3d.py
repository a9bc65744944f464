"""I3D, the network of the published Frechet video distance, from the user's torchscript file or state dict."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from video_mirai.evaluation.detectors.base import Resize, check_clips, check_output, file_sha256, in_batches
from video_mirai.evaluation.detectors.i3d_network import I3D

SIZE = 224
NUM_LOGITS = 400
# The network halves time several times over; shorter clips fail inside it.
MIN_FRAMES = 9
PUBLISHED_FRAMES = 16
# How to call the published file when frames come resized and in [-1, 1]; of these a file is given what it declares.
FLAGS = {"rescale": False, "resize": False, "return_features": True}
PUBLISHED_EPS = 1e-5
# What frames of 0 to 255 are multiplied by, and then what is added to them.
VALUES = {"-1..1": (1 / 127.5, -1.0), "0..1": (1 / 255, 0.0), "0..255": (1.0, 0.0)}
# Largest difference of logits that counts as rounding, as a share of that between a bright and a dark clip.
RESCALE_TOLERANCE = 1e-2
HOW_TO_GET = {
    "i3d_torchscript": "FVD needs the published i3d_torchscript.pt (Kinetics-400), which the repository "
    "universome/fvd-comparison links to",
    "i3d": "FVD needs Kinetics-400 weights in the layout of piergiaj/pytorch-i3d, such as i3d_pretrained_400.pt, "
    "which the repository songweige/TATS holds",
}


class I3DDetector:
    """Kinetics-400 logits of I3D; the only detector whose distance is called FVD.

    FVD it is with the published preprocessing only (16 frames, whole frame stretched to 224 x 224 without antialias);
    with any other the label is fd_i3d.

    Args:
        kind: "i3d_torchscript" or "i3d", a state dict.
        antialias, crop: of the resize, see `Resize`.
        values: what the network takes, one of VALUES; None = "-1..1", which all published ones take, and then a
            torchscript file that can rescale by itself must agree.
        eps: of a state dict's batch norms, which it does not say: PUBLISHED_EPS goes with i3d_pretrained_400.pt, 1e-3
            with pytorch-i3d's own rgb_imagenet.pt.
    Raises:
        FileNotFoundError: no such file. ValueError: not such a file, or not the 400 logits.
    """

    feature_dim = NUM_LOGITS

    def __init__(
        self,
        kind: str,
        path: str,
        clip_frames: int,
        batch_clips: int,
        device: torch.device,
        *,
        antialias: bool = False,
        crop: bool = False,
        values: str | None = None,
        eps: float = PUBLISHED_EPS,
    ) -> None:
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"I3D file {path!r} does not exist; {HOW_TO_GET[kind]}.")
        if clip_frames < MIN_FRAMES:
            raise ValueError(
                f"clip_frames={clip_frames}: I3D needs at least {MIN_FRAMES} frames; published FVD uses "
                f"{PUBLISHED_FRAMES}."
            )
        if values is not None and values not in VALUES:
            raise ValueError(f"values={values!r} is not known; choose one of {', '.join(VALUES)}.")
        self.name = kind
        self.clip_frames = clip_frames
        self.sha256 = file_sha256(file)
        self._resize = Resize(SIZE, SIZE, antialias, crop)
        self._scale, self._offset = VALUES[values or "-1..1"]
        self._batch_clips = batch_clips
        self._device = device
        published = clip_frames == PUBLISHED_FRAMES and not antialias and not crop
        self.label = "FVD" if published else "fd_i3d"
        if kind == "i3d_torchscript":
            self._call, called = load_torchscript(file, device)
        else:
            self._call, called = load_weights(file, device, eps)
        self._probe(path, check_rescale=values is None and "rescale" in called)
        self.preprocessing = f"{self._resize}, values in [{(values or '-1..1').replace('..', ', ')}], {called}, logits"

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        return check_output(self, in_batches(clips, self._batch_clips, self._device, self._logits), len(clips))

    def _logits(self, clips: Tensor) -> Tensor:
        x = self._resize(clips).transpose(1, 2)  # (B, 3, T, 224, 224)
        return the_logits(self._call(x * self._scale + self._offset, FLAGS))

    def _rescaled(self, clips: Tensor) -> Tensor:
        """The logits when the file rescales 0 to 255 by itself."""
        return the_logits(self._call(self._resize(clips).transpose(1, 2), {**FLAGS, "rescale": True}))

    def _probe(self, path: str, *, check_rescale: bool) -> None:
        """Two noisy clips: refuses another network, probabilities in place of logits, and another range of values."""
        rng = np.random.RandomState(0)
        clips = rng.randint(0, 256, (2, self.clip_frames, 16, 16, 3)).astype(np.uint8)
        clips[1] = clips[1] // 4
        try:
            logits = in_batches(clips, 1, self._device, self._logits)
            by_itself = in_batches(clips, 1, self._device, self._rescaled) if check_rescale else logits
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"{path!r} can't be called as I3D files are: {reason}") from error
        if logits.shape != (2, NUM_LOGITS):
            raise ValueError(
                f"{path!r} returned shape {logits.shape} for 2 clips; I3D's {NUM_LOGITS} Kinetics logits are expected."
            )
        if not np.isfinite(logits).all():
            raise ValueError(f"{path!r} returned NaN or infinite logits for ordinary clips; the file is damaged.")
        if is_probabilities(torch.from_numpy(logits)):
            raise ValueError(f"{path!r} returned probabilities; FVD is defined on I3D's logits, before the softmax.")
        if np.allclose(logits[0], logits[1]):
            raise ValueError(f"{path!r} returned the same logits for two different clips; it is no working I3D.")
        if np.abs(by_itself - logits).max() > RESCALE_TOLERANCE * np.abs(logits[0] - logits[1]).max():
            raise ValueError(
                f"{path!r} rescales 0 to 255 to another range than [-1, 1], so it is not the published file; if you "
                "know what values it takes, say so: ?values=-1..1, 0..1 or 0..255."
            )


Call = Callable[[Tensor, dict[str, bool]], Tensor | tuple[Tensor, ...]]


def load_torchscript(file: Path, device: torch.device) -> tuple[Call, str]:
    """The network, called with those of the flags that it declares; and these in words."""
    try:
        model = torch.jit.load(str(file), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{str(file)!r} is not a torchscript file: {str(error).splitlines()[0]}") from error
    declared = [argument.name for argument in model.forward.schema.arguments]
    known = [name for name in FLAGS if name in declared]

    def call(clips: Tensor, flags: dict[str, bool]) -> Tensor | tuple[Tensor, ...]:
        return model(clips, **{name: flags[name] for name in known})

    said = ", ".join(f"{name}={FLAGS[name]}" for name in known)
    return call, f"called with {said}" if known else "called with the clip alone"


def load_weights(file: Path, device: torch.device, eps: float) -> tuple[Call, str]:
    """Our own network with the state dict of a file; logits averaged over time."""
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is empty"
        raise ValueError(f"{str(file)!r} is not a state dict: {reason}") from error
    model = I3D(NUM_LOGITS, eps)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if not isinstance(weights, dict):
        raise ValueError(
            f"{str(file)!r} holds a {type(weights).__name__}; the layout of piergiaj/pytorch-i3d is expected."
        )
    # Files of old torch versions lack the counters, which only training reads.
    wrong = [name for name, shape in expected.items() if not _fits(weights.get(name), shape, name)]
    if wrong or weights.keys() - expected.keys():
        first = (wrong or sorted(weights.keys() - expected.keys()))[0]
        raise ValueError(
            f"{str(file)!r} does not have the layout of piergiaj/pytorch-i3d with {NUM_LOGITS} classes: {first!r} is "
            f"{'missing or of another shape' if wrong else 'unknown'}."
        )
    model.load_state_dict(weights, strict=False)
    model.eval().requires_grad_(False).to(device)
    return lambda clips, flags: model(clips), f"state dict with batch norm eps {eps:g}, mean over time"


def _fits(tensor: Tensor | None, shape: torch.Size, name: str) -> bool:
    return name.endswith("num_batches_tracked") if tensor is None else tensor.shape == shape


def the_logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """(B, 400) from what I3D files return: logits, logits over time (B, 400, T, ...), or those and probabilities."""
    candidates = [output] if isinstance(output, Tensor) else [part for part in output if isinstance(part, Tensor)]
    if not candidates:
        raise ValueError(f"I3D file returned a {type(output).__name__} without a tensor in it; logits are expected.")
    flat = [part.flatten(2).mean(dim=2) if part.ndim > 2 else part for part in candidates]
    logits = [part for part in flat if part.ndim == 2 and not is_probabilities(part)]
    return logits[0] if len(logits) == 1 else flat[0]


def is_probabilities(rows: Tensor) -> bool:
    return bool((rows >= 0).all()) and torch.allclose(rows.sum(dim=1), torch.ones_like(rows[:, 0]), atol=1e-3)
