"""What a user hands to the pipeline, and what it hands back: checked, and between [0, 1] and a codec's [-1, 1]."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from diffusers.video_processor import VideoProcessor
from einops import rearrange
from PIL.Image import Image
from torch import Tensor

from video_mirai.sampling.guidance import GuidanceConfig
from video_mirai.sampling.rollout import RolloutSettings
from video_mirai.sampling.state import Generators

Video = list[Image] | np.ndarray | Tensor
Videos = Video | list[Video]
Frames = list[list[Image]] | np.ndarray | Tensor

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
PROCESSOR = VideoProcessor(do_resize=False, do_normalize=False, do_convert_rgb=True)


def pixels_of(history: Videos, height: int, width: int) -> Tensor:
    """(B, T, 3, H, W) in [-1, 1] of images, or of arrays and tensors in [0, 1] or of uint8.

    Raises:
        ValueError: of another size or range, or not all of one length.
    """
    try:
        video = PROCESSOR.preprocess_video(history)
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"history: videos of one size and length are needed, none empty ({error}).") from error
    if video.dtype == torch.uint8:
        video = video / 255
    video = rearrange(video, "b c t h w -> b t c h w").detach().float()
    if video.shape[2:] != (3, height, width):
        raise ValueError(
            f"history: frames of (3, {height}, {width}) are needed (channels, height, width), as in training; got "
            f"{tuple(video.shape[2:])}. video_mirai.data.video_reader.fit_frames crops and resizes."
        )
    if not bool(((video >= 0) & (video <= 1)).all()):
        raise ValueError("history: floats have to lie in [0, 1]; uint8 is taken in 0..255.")
    return 2 * video - 1


def checked_context(context: Tensor | None, text_dim: int | None, num_videos: int) -> Tensor | None:
    """The context, or none, as the transformer needs it; ValueError for any other."""
    if (context is None) != (text_dim is None):
        wanted = "no context" if text_dim is None else f"a context of width {text_dim}"
        raise ValueError(f"this transformer takes {wanted}, got {None if context is None else tuple(context.shape)}.")
    if context is None:
        return None
    if context.ndim not in (3, 4) or context.shape[-1] != text_dim or len(context) != num_videos:
        raise ValueError(
            f"context: expected ({num_videos}, L, {text_dim}) or ({num_videos}, F, L, {text_dim}), "
            f"got {tuple(context.shape)}."
        )
    return context.detach()


def checked_generators(
    generator: Generators | None, seed: int | None, num_videos: int, device: torch.device
) -> Generators:
    """One, or one per video: those given, of seeds that follow each other, or seeded by torch's global one."""
    if generator is None and seed is None:
        return torch.Generator(device).manual_seed(int(torch.randint(2**31, ())))
    if generator is None:
        return [torch.Generator(device).manual_seed(int(seed or 0) + row) for row in range(num_videos)]
    if seed is not None:
        raise ValueError("give seed or generator, not both.")
    several = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if several != [generator] and len(several) != num_videos:
        raise ValueError(f"{len(several)} generators for {num_videos} videos; give one, or one per video.")
    return generator


def settings_from(rollout: Mapping[str, Any]) -> RolloutSettings:
    """RolloutSettings of what `dataclasses.asdict` made of some; ValueError for an unknown field."""
    own = {name: value for name, value in rollout.items() if name != "guidance"}
    guidance = rollout.get("guidance", {})
    known = {field.name for kind in (RolloutSettings, GuidanceConfig) for field in fields(kind)}
    unknown = sorted({*own, *guidance} - known)
    if unknown:
        raise ValueError(f"unknown rollout settings {unknown}; is this export of a newer video_mirai?")
    return RolloutSettings(**own, guidance=GuidanceConfig(**guidance))


def replaced_chunk(given: Tensor, chunk: Tensor) -> Tensor:
    """Latents in the place of a chunk's; ValueError for another shape."""
    if given.shape != chunk.shape:
        raise ValueError(f"latents: expected {tuple(chunk.shape)} from the callback, got {tuple(given.shape)}.")
    return given.detach().to(chunk)


def check_output_type(output_type: str) -> None:
    """ValueError for an unknown one."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"unknown output_type {output_type!r}; known: {', '.join(OUTPUT_TYPES)}.")


def in_form(part: Tensor, output_type: str) -> Frames:
    """Decoded frames (B, T, 3, H, W) in [-1, 1] in the form asked for; latents as they are."""
    if output_type == "latent":
        return part
    return PROCESSOR.postprocess_video(rearrange(part / 2 + 0.5, "b t c h w -> b c t h w"), output_type)


class ChangingContext:
    """The context that rollout asks for before every chunk: the same tensor until another takes its place."""

    def __init__(self, context: Tensor | None) -> None:
        self.present = context
        self._since = 0
        self._frames_done = 0

    def replace(self, context: Tensor | None) -> None:
        """From the next frame on; one per frame counts from there."""
        self.present, self._since = context, self._frames_done

    def __call__(self, start: int, num_frames: int) -> Tensor:
        assert self.present is not None
        self._frames_done = start + num_frames
        if self.present.ndim == 3:
            return self.present
        first, last = start - self._since, start - self._since + num_frames
        if last > self.present.shape[1]:
            raise ValueError(f"context: given for {self.present.shape[1]} latent frames, but {last} are needed.")
        return self.present[:, first:last]
