"""Feature networks for Frechet distances, behind one protocol.

A detector is named by one word or by `word:argument`, as in a configuration file:

    transnet                                TransNetV2 from its package (extra `detectors`); label fd_transnet
    random3d                                fixed random weights; label fd_random3d
    i3d_torchscript:PATH                    the published I3D file; the only one labelled FVD
    module:callable                         any function clips -> features, when importing is allowed; label fd_callable
"""

from collections.abc import Callable

import torch

from video_mirai.evaluation.detectors.base import Detector, check_clips, check_output
from video_mirai.evaluation.detectors.external import ExternalDetector
from video_mirai.evaluation.detectors.i3d import I3DTorchscript
from video_mirai.evaluation.detectors.random3d import Random3D
from video_mirai.evaluation.detectors.transnet import TransNet

__all__ = ["Detector", "build_detector", "check_clips", "check_output"]

_BUILTIN: dict[str, Callable[[int, int, torch.device], Detector]] = {"random3d": Random3D, "transnet": TransNet}


def build_detector(
    name: str,
    clip_frames: int,
    *,
    device: torch.device | str = "cpu",
    batch_clips: int = 4,
    allow_import: bool = False,
) -> Detector:
    """The detector called `name`; see the module's docstring for the names.

    Args:
        clip_frames: frames of every clip it will see; published FVD uses 16.
        batch_clips: clips computed together; memory, not results, depends on it.
        allow_import: whether a name may import a module of the user's; a configuration file alone must not.
    Raises:
        ValueError: unknown name, missing package, a file or function that is no such detector.
        FileNotFoundError: missing weights.
    """
    device = torch.device(device)
    if name in _BUILTIN:
        return _BUILTIN[name](clip_frames, batch_clips, device)
    kind, _, argument = name.partition(":")
    if kind == I3DTorchscript.name and argument:
        return I3DTorchscript(argument, clip_frames, batch_clips, device)
    if not argument or kind in (*_BUILTIN, I3DTorchscript.name):
        known = ", ".join([*_BUILTIN, f"{I3DTorchscript.name}:PATH", "module:callable"])
        raise ValueError(f"detector {name!r} is not known; choose one of {known}.")
    if not allow_import:
        raise ValueError(f"detector {name!r} would import the module {kind!r}, which was not allowed.")
    return ExternalDetector(name, clip_frames, batch_clips)
