"""Whether the parts of a run fit together: everything about sizes that can be wrong before the first step.

Foresight has its own: `foresight_checks`.
"""

from typing import NamedTuple

import torch

from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.objectives.flow_matching import Objective, ObjectiveConfig
from video_mirai.ops.attention import check_backend
from video_mirai.sampling.rollout import RolloutSettings


class LatentShape(NamedTuple):
    """Of one clip, as the model sees it."""

    frames: int
    channels: int
    height: int
    width: int
    context_tokens: int


def check_fit(objective: Objective, rollout: RolloutSettings, shape: LatentShape, device: torch.device) -> None:
    """The objective may be on the meta device; `device` is the one that trains.

    Raises:
        ValueError: names the settings that do not fit.
    """
    settings, frames = objective.config, shape.frames
    masked = settings.kind != "bidirectional"
    check_backend(objective.student.config.attention_backend, device, masked=masked, backward=True)
    text_dim = objective.student.config.text_dim
    if (shape.context_tokens == 0) != (text_dim is None):
        raise ValueError(
            f"model.text_dim={text_dim}, but the data set's clips come "
            f"{'without' if shape.context_tokens == 0 else 'with'} context."
        )
    if frames % settings.chunk_frames:
        raise ValueError(
            f"clips of {frames} latent frames are not a multiple of objective.chunk_frames={settings.chunk_frames}; "
            f"try clips of {frames // settings.chunk_frames * settings.chunk_frames}."
        )
    if settings.window_frames is not None and settings.window_frames + settings.chunk_frames > frames:
        raise ValueError(
            f"objective.window_frames={settings.window_frames} is longer than the clip: with a chunk of "
            f"{settings.chunk_frames} it needs more than its {frames} latent frames."
        )
    objective.student.tokens_per_frame(shape.height, shape.width)
    if masked:
        check_rollout(rollout, settings, objective.student, frames)


def check_rollout(rollout: RolloutSettings, settings: ObjectiveConfig, student: CausalVideoDiT, frames: int) -> None:
    """Nothing may be generated in a way that was not trained; frames: latent frames of a training clip.

    Raises:
        ValueError: names the setting that goes beyond the training.
    """
    chunk = settings.chunk_frames
    if rollout.chunk_frames != chunk:
        raise ValueError(f"rollout.chunk_frames={rollout.chunk_frames}, but the objective trains chunks of {chunk}.")
    seen = rollout.sink_frames + rollout.window_frames + chunk
    if seen > frames:
        raise ValueError(
            f"rollout.window_frames={rollout.window_frames} is longer than the clip: with sink and chunk it "
            f"sees {seen} latent frames, clips have {frames}; try {max(0, frames - chunk - rollout.sink_frames)}."
        )
    if settings.window_frames is not None and rollout.window_frames > settings.window_frames:
        raise ValueError(
            f"rollout.window_frames={rollout.window_frames} is longer than objective.window_frames="
            f"{settings.window_frames}, which is what the model learns to look back at."
        )
    noisiest = {"history_sigma": rollout.history_sigma}
    if rollout.guidance.history_scale != 1:
        noisiest["guidance.history_sigma"] = rollout.guidance.history_sigma
    for name, sigma in noisiest.items():
        if settings.kind == "teacher_forcing" and sigma > settings.history_sigma_max:
            raise ValueError(
                f"rollout.{name}={sigma} is above objective.history_sigma_max={settings.history_sigma_max}: the model "
                f"never learns from history as noisy as that."
            )
    last_sigma = float(denoising_sigmas(rollout.num_steps, rollout.shift)[-2])
    if student.config.prediction_type == "data" and last_sigma < student.config.sigma_floor:
        raise ValueError(
            f"rollout.num_steps={rollout.num_steps} with shift {rollout.shift:g} ends at sigma {last_sigma:.3g}, below "
            f"the model's sigma_floor={student.config.sigma_floor}; take fewer steps."
        )
