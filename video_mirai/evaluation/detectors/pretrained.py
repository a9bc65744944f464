"""VideoMAE, V-JEPA 2, DINOv2 and CLIP through transformers (extra `hf`), from a local folder or a hub id."""

import importlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from video_mirai.evaluation.detectors.base import Resize, check_clips, check_output, file_sha256, in_batches

PACKAGE = "transformers"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# V-JEPA 2's predictor, which classifiers leave out.
UNUSED_WEIGHTS = ("predictor.",)
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Family:
    """One kind of network.

    Attributes:
        model_class: of transformers. model_types: as config.json may name them.
        takes_clips: whether it sees whole clips; else every frame alone.
        normalisation: mean and deviation of the colours, where the checkpoint does not state its own.
        features: what is kept, in words.
    """

    model_class: str
    model_types: tuple[str, ...]
    takes_clips: bool
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]]
    features: str


FAMILIES = {
    "videomae": Family("VideoMAEModel", ("videomae",), True, IMAGENET, "mean of the last layer's tokens"),
    "vjepa2": Family("VJEPA2Model", ("vjepa2",), True, IMAGENET, "mean of the encoder's tokens"),
    "dinov2": Family("AutoModel", ("dinov2", "dinov2_with_registers"), False, IMAGENET, "class token"),
    "clip": Family("CLIPModel", ("clip",), False, OPENAI, "image embedding"),
}


class PretrainedDetector:
    """Features of a pretrained network; label fd_<kind>.

    Networks of single frames (DINOv2, CLIP) describe a clip by the mean of its frames' features and the mean absolute
    change from frame to frame, and have `frame_features` for the consistencies. No checkpoint's own code is ever run.

    Args:
        kind: one of FAMILIES. source: folder, or hub id.
        antialias, crop: of the resize, see `Resize`.
    Raises:
        FileNotFoundError: no such folder or hub id. ValueError: transformers is missing, or another kind of checkpoint.
    """

    def __init__(
        self,
        kind: str,
        source: str,
        clip_frames: int,
        batch_clips: int,
        device: torch.device,
        *,
        antialias: bool = True,
        crop: bool = False,
    ) -> None:
        if importlib.util.find_spec(PACKAGE) is None:
            raise ValueError(f"detector {kind} needs the package transformers; pip install 'video_mirai[hf]'.")
        self._family = FAMILIES[kind]
        folder = find_folder(kind, source)
        config = read_config(folder, self._family)
        self.name = kind
        self.label = f"fd_{kind}"
        self.clip_frames = clip_frames
        self.sha256 = file_sha256(*weight_files(folder))
        self._batch_clips = batch_clips
        self._device = device
        self._model: Any = load_model(folder, self._family).to(device)
        check_clip_frames(kind, clip_frames, config)
        stated = read_processing(folder, config, self._family)
        self._resize = Resize(stated.size, stated.size, antialias, crop)
        self._mean, self._deviation = (torch.tensor(row, device=device)[:, None, None] for row in stated.normalisation)
        self.preprocessing = (
            f"{self._resize}, colours less {stated.normalisation[0]} over {stated.normalisation[1]}, "
            f"{self._family.features} of {source}"
        )
        probe = np.zeros((1, clip_frames, 16, 16, 3), np.uint8)
        self.feature_dim = in_batches(probe, 1, device, self._network).shape[1]

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        return check_output(self, in_batches(clips, self._batch_clips, self._device, self._network), len(clips))

    def frame_features(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Frames (T, H, W, 3) uint8 to (T, D) float64; ValueError for a network of whole clips."""
        if self._family.takes_clips:
            raise ValueError(f"detector {self.name} sees whole clips, not frames; take dinov2 or clip.")
        check_clips(frames[:, None], 1)
        return in_batches(frames[:, None], self._batch_clips * self.clip_frames, self._device, self._of_frames)

    def _network(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to (B, d)."""
        if not self._family.takes_clips:
            features = self._of_frames(clips).unflatten(0, clips.shape[:2])  # (B, T, D)
            motion = features.diff(dim=1).abs().mean(dim=1) if clips.shape[1] > 1 else torch.zeros_like(features[:, 0])
            return torch.cat([features.mean(dim=1), motion], dim=1)
        pixels = self._pixels(clips)
        if self.name == "vjepa2":
            return self._model(pixel_values_videos=pixels, skip_predictor=True).last_hidden_state.mean(dim=1)
        return self._model(pixel_values=pixels).last_hidden_state.mean(dim=1)

    def _of_frames(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to (B * T, D)."""
        pixels = self._pixels(clips).flatten(0, 1)
        if self.name == "clip":
            return self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output)
        return self._model(pixel_values=pixels).last_hidden_state[:, 0]

    def _pixels(self, clips: Tensor) -> Tensor:
        return (self._resize(clips) / 255 - self._mean) / self._deviation  # (B, T, 3, H, W)


def find_folder(kind: str, source: str) -> Path:
    """The folder itself, or the local copy of what the hub has; FileNotFoundError that says how to get it."""
    if Path(source).is_dir():
        return Path(source)
    advice = f"name a folder with config.json and weights, or a hub id: hf download OWNER/NAME, then {kind}:OWNER/NAME"
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source):
        raise FileNotFoundError(f"detector {kind}: {source!r} is no folder; {advice}.")
    try:
        folder = download(source, ["*.json", WEIGHTS[0]])
        if not any(folder.glob(WEIGHTS[0])):
            folder = download(source, ["*.json", WEIGHTS[1]])
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"detector {kind}: {source!r} is no folder and can't be downloaded ({reason}); {advice}."
        ) from error
    return folder


def download(source: str, patterns: list[str]) -> Path:
    """The local copy of those files of a hub id."""
    from huggingface_hub import snapshot_download  # here, because it takes long to import and few need it

    return Path(snapshot_download(source, allow_patterns=patterns))


def load_model(folder: Path, family: Family) -> torch.nn.Module:
    """The frozen network in fp32; ValueError where weights are missing, which transformers would make up."""
    model_class = getattr(importlib.import_module(PACKAGE), family.model_class)
    model, loaded = model_class.from_pretrained(
        str(folder), dtype=torch.float32, trust_remote_code=False, output_loading_info=True
    )
    missing = sorted(name for name in loaded["missing_keys"] if not name.startswith(UNUSED_WEIGHTS))
    if missing:
        raise ValueError(
            f"{str(folder)!r} lacks {len(missing)} weights of {family.model_class}, such as {missing[0]!r}."
        )
    return model.eval().requires_grad_(False)


def read_config(folder: Path, family: Family) -> dict[str, Any]:
    """config.json of a checkpoint, which must be of the family."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no config.json; a checkpoint of transformers is expected.")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found = config.get("model_type")
    if found not in family.model_types:
        raise ValueError(
            f"{str(folder)!r} is a checkpoint of {found!r}, not of {' or '.join(family.model_types)}; name its own "
            "kind, or wrap it in a function: module:callable."
        )
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files that are loaded, in the order of their names."""
    for pattern in WEIGHTS:
        if files := sorted(folder.glob(pattern)):
            return files
    raise FileNotFoundError(f"{str(folder)!r} holds no weights ({' or '.join(WEIGHTS)}).")


def check_clip_frames(kind: str, clip_frames: int, config: dict[str, Any]) -> None:
    """ValueError where the network can't take so many frames."""
    if kind == "videomae" and clip_frames != (needed := config.get("num_frames", 16)):
        raise ValueError(f"clip_frames={clip_frames}: this VideoMAE takes clips of exactly {needed} frames.")
    if kind == "vjepa2" and clip_frames % (step := config.get("tubelet_size", 2)):
        raise ValueError(f"clip_frames={clip_frames}: V-JEPA 2 takes a multiple of {step} frames.")


@dataclass(frozen=True)
class Processing:
    """Side of the square frame, pixels, and mean and deviation of the colours."""

    size: int
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]


def read_processing(folder: Path, config: dict[str, Any], family: Family) -> Processing:
    """What the checkpoint's preprocessor files state, else its configuration and the family's own normalisation."""
    stated: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (folder / name).is_file():
            stated |= json.loads((folder / name).read_text(encoding="utf-8"))
    network = config.get("vision_config", config)
    size = next(
        filter(None, [_side(stated.get("crop_size")), _side(stated.get("size")), _side(_own_size(network))]), 224
    )
    mean, deviation = family.normalisation
    return Processing(size, (tuple(stated.get("image_mean", mean)), tuple(stated.get("image_std", deviation))))


def _own_size(config: dict[str, Any]) -> int | None:
    return config.get("crop_size") or config.get("image_size")


def _side(size: Any) -> int | None:
    """A number, or the entry of {"height": n, ...} or {"shortest_edge": n}."""
    if isinstance(size, dict):
        return size.get("height") or size.get("shortest_edge")
    return size
