"""The foresight loss (Video-Mirai, arXiv 2606.03971): the causal state of a chunk predicts what a teacher,
who saw the whole clip, says of this chunk and the ones ahead."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from video_mirai.models.teachers import TeacherConfig, TeacherEncoder


@dataclass
class ForesightConfig:
    """Foresight supervision.

    Attributes:
        weight: of the foresight loss beside the flow loss.
        window: look-ahead offsets, in chunks; 0 is the chunk itself.
        student_layer: transformer block (1-based) of the student whose residual stream is supervised.
        predictor_blocks: transformer blocks of the predictor; 0 leaves norms and one linear map.
    """

    weight: float = 0.2
    window: list[int] = field(default_factory=lambda: [0, 1])
    student_layer: int = 1
    predictor_blocks: int = 3
    teacher: TeacherConfig = field(default_factory=TeacherConfig)


class ForesightTargets(NamedTuple):
    """targets (B, num_chunks, tokens, D_teacher); valid (num_chunks,) bool: chunks that have a target."""

    targets: Tensor
    valid: Tensor


class ForesightSource:
    """Teacher and look-ahead window: makes targets. Lives outside the objective; never trained, averaged or saved."""

    def __init__(self, teacher: TeacherEncoder, window: tuple[int, ...], chunk_frames: int) -> None:
        self.teacher = teacher
        self.window = window
        self.chunk_frames = chunk_frames

    def targets(self, latents: Tensor, context: Tensor | None) -> ForesightTargets:
        """Targets for every chunk of clean latents (B, F, C, H, W)."""
        features = self.teacher.encode(latents, context)
        chunks = rearrange(features, "b (i c) n d -> b i (c n) d", c=self.chunk_frames)
        return ForesightTargets(*look_ahead_targets(chunks, self.window))


def look_ahead_targets(features: Tensor, window: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean over the valid offsets of the features ahead: T_i = mean_{d in window, i + d < num_chunks} H_{i+d}.

    Args:
        features: (B, num_chunks, tokens, D).
        window: offsets in chunks, at least one, none negative, none twice.

    Returns:
        targets like features, without gradient, zero where there is none; valid (num_chunks,) bool.
    """
    if not window or min(window) < 0 or len(set(window)) != len(window):
        raise ValueError(f"window={tuple(window)}: give at least one look-ahead offset, none negative, none twice.")
    num_chunks = features.shape[1]
    if min(window) >= num_chunks:
        raise ValueError(
            f"window={tuple(window)} looks past a clip of {num_chunks} chunks; every chunk lacks a target."
        )
    total = torch.zeros_like(features)
    count = torch.zeros(num_chunks, device=features.device)
    for offset in window:
        ahead = max(num_chunks - offset, 0)
        total[:, :ahead] += features[:, offset:]
        count[:ahead] += 1
    targets = total / count.clamp_min(1)[None, :, None, None].to(features.dtype)
    return targets.detach(), count > 0


def foresight_loss(predicted: Tensor, foresight: ForesightTargets) -> Tensor:
    """1 - cosine, averaged over tokens and the chunks that have a target; in fp32.

    Args:
        predicted: (B, num_chunks * tokens, D_teacher).
    """
    targets = foresight.targets.float()
    predicted = predicted.float().reshape(targets.shape)
    cosine = functional.cosine_similarity(predicted, targets, dim=-1)  # (B, num_chunks, tokens)
    return 1 - cosine[:, foresight.valid].mean()
