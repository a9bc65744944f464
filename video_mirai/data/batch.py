"""What data sets return and loaders yield."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from torch import Tensor


class ClipKey(NamedTuple):
    """Names one clip of a data set: a clip depends only on the data set's seed, the epoch and the index."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class VideoSample(TypedDict, total=False):
    """One clip: a VideoBatch without the batch axis."""

    video: Tensor
    latents: Tensor
    context: Tensor
    caption: str
    state: dict[str, Tensor]
    name: str
    index: int


class VideoBatch(TypedDict, total=False):
    """Clips of equal size.

    video: (B, T, C, H, W) float32 in [-1, 1].
    latents: (B, F, C, h, w), instead of video where the data is encoded already.
    context: (B, L, D) conditioning, or (B, T, L, D), frame t's being what leads to frame t.
    caption: what each clip's video is said to show.
    state: what the data knows about its own content, by name; each (B, ...).
    name: source of each clip, for messages and results per video; clips of one video share it.
    index: (B,) int64, index of each clip in its data set.
    """

    video: Tensor
    latents: Tensor
    context: Tensor
    caption: list[str]
    state: dict[str, Tensor]
    name: list[str]
    index: Tensor
