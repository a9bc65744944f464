"""Tokens, FLOPs and memory of a training step, by counting; nothing is run.

A matrix product of (n, k) and (k, m) counts 2 n k m FLOPs. Only matrix products and attention are counted, attention
over all keys given, masked or not, as dense kernels compute it. A backward pass counts twice its forward pass. With
width D, feed-forward width M, and per clip S tokens in F frames and L context tokens, one forward pass is

    S x [ 8 D^2 (qkv, out) + 4 D S (scores, mix) + 4 D M (feed-forward) ] x layers
    + [ S (4 D^2 + 4 D L) + 4 D^2 L ] x layers        cross-attention, with text only
    + S x 2 D P (in + out)                            patch embedding and output layer, P pixels a patch
    + F x [ 2 D f + 2 D^2 + 12 D^2 ]                  noise-level embedding, f frequencies

Teacher forcing puts the history beside the targets, so S and F nearly double. The codec is not counted. In a rollout
the S tokens of a chunk attend to the cached ones too: scores and mix are then 4 D (S + cached). What a pass makes of
the context alone, 4 D^2 L a layer and its embedding, is kept for as long as the context stays, and so is what it makes
of noise levels. A pass that only commits ends in the last layer with queries, keys and values.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.cache_size import cache_bytes
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.models.pixel_teachers import PixelTeacher
from video_mirai.models.predictor import PredictorBlock
from video_mirai.models.teachers import AverageTeacher, DiTTeacher, TeacherEncoder
from video_mirai.objectives.flow_matching import Objective
from video_mirai.sampling.rollout import RolloutSettings, cache_sizes
from video_mirai.sampling.solvers import SOLVERS
from video_mirai.training.trainer import TrainConfig


@dataclass(frozen=True)
class TransformerSize:
    """What FLOPs and memory follow from; patch_inputs, patch_outputs: numbers per patch; text_dim 0: no text."""

    num_layers: int
    width: int
    ffn_width: int
    patch_inputs: int
    patch_outputs: int
    frequencies: int
    text_dim: int


class ClipSize(NamedTuple):
    """One clip as the model sees it: latent frames, tokens of each, and context tokens (0 = no context)."""

    frames: int
    tokens_per_frame: int
    context_tokens: int


class StepEstimate(NamedTuple):
    """Of one optimiser step over all processes; memory in bytes, per process and rough."""

    tokens: int
    student_flops: float
    predictor_flops: float
    teacher_flops: float
    state_bytes: int
    activation_bytes: int

    @property
    def flops(self) -> float:
        """All together."""
        return self.student_flops + self.predictor_flops + self.teacher_flops


class RolloutCost(NamedTuple):
    """Of generating one video whose window is full; bytes of its KV cache."""

    flops_per_frame: float
    cache_bytes: int


def forward_flops(
    size: TransformerSize,
    tokens: int,
    frames: int,
    context_tokens: int = 0,
    *,
    cached_tokens: int = 0,
    conditioning_is_kept: bool = False,
) -> float:
    """Of one clip through one forward pass; the formula at the top of this file.

    Args:
        conditioning_is_kept: what earlier passes made of the same context and noise levels.
    """
    width = size.width
    per_token = 8 * width**2 + 4 * width * (tokens + cached_tokens) + 4 * width * size.ffn_width
    flops = float(size.num_layers * tokens * per_token)
    if size.text_dim:
        flops += size.num_layers * tokens * (4 * width**2 + 4 * width * context_tokens)
    if size.text_dim and not conditioning_is_kept:
        text_embedder = context_tokens * 2 * (size.text_dim * width + width**2)
        flops += size.num_layers * 4 * width**2 * context_tokens + text_embedder
    flops += tokens * 2 * width * (size.patch_inputs + size.patch_outputs)
    return flops if conditioning_is_kept else flops + frames * (2 * width * size.frequencies + 14 * width**2)


def commit_saves(size: TransformerSize, tokens: int, context_tokens: int, cached_tokens: int) -> float:
    """Of a forward pass, what one that only commits leaves out in the last layer and behind it."""
    width = size.width
    per_token = 2 * width**2 + 4 * width * (tokens + cached_tokens) + 4 * width * size.ffn_width
    if size.text_dim:
        per_token += 4 * width**2 + 4 * width * context_tokens
    return float(tokens * (per_token + 2 * width * size.patch_outputs))


def predictor_flops(predictors: nn.Module, tokens: int, chunk_tokens: int) -> float:
    """Of one clip through the foresight predictors: every linear map for every token, attention inside chunks."""
    per_token = 0
    for module in predictors.modules():
        if isinstance(module, nn.Linear):
            per_token += 2 * module.in_features * module.out_features
        elif isinstance(module, PredictorBlock):
            per_token += 4 * module.to_out.in_features * chunk_tokens
    return float(tokens * per_token)


def teacher_flops(teacher: TeacherEncoder, clip: ClipSize, codec: Codec) -> float:
    """Of one clip through the teacher once; an encoder's are counted by torch, so it has to be on the meta device."""
    if isinstance(teacher, DiTTeacher):
        tokens = clip.frames * clip.tokens_per_frame
        return forward_flops(size_of(teacher.network), tokens, clip.frames, clip.context_tokens)
    assert isinstance(teacher, PixelTeacher)
    size = teacher.image_size
    video = torch.zeros(1, codec.num_pixel_frames(clip.frames), 3, size, size, device="meta")
    with FlopCounterMode(display=False) as counter:
        teacher.read(video)
    return float(counter.get_total_flops())


def teacher_parameters(teacher: TeacherEncoder | None) -> int:
    """That it holds; the student's average holds its own already."""
    return 0 if teacher is None or isinstance(teacher, AverageTeacher) else count_parameters(teacher.network)


def rollout_cost(
    model: CausalVideoDiT, settings: RolloutSettings, tokens_per_frame: int, context_tokens: int
) -> RolloutCost:
    """Of a model, which may be on the meta device; its context and the noise levels are known to the cache."""
    chunk, sizes = settings.chunk_frames, cache_sizes(settings, 1, tokens_per_frame)
    size, tokens = size_of(model), chunk * tokens_per_frame
    cached = (sizes.sink_frames + sizes.window_frames) * tokens_per_frame
    one_pass = forward_flops(size, tokens, chunk, context_tokens, cached_tokens=cached, conditioning_is_kept=True)
    commit = one_pass - commit_saves(size, tokens, context_tokens, cached)  # fused with another pass or not
    flops = denoising_passes(settings) * one_pass + commit
    return RolloutCost(sizes.batch_size * flops / chunk, cache_bytes(model, sizes))


def denoising_passes(settings: RolloutSettings) -> int:
    """Forward passes that the solver makes for one chunk."""
    passes = 0

    def velocity_of(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return x

    frame = torch.zeros(1, 1, 1, 1, 1)
    SOLVERS[settings.solver](velocity_of, frame, denoising_sigmas(settings.num_steps, settings.shift))
    return passes


def state_bytes(student: int, predictor: int, teacher: int, codec: int, muon: int) -> int:
    """fp32 bytes held for the whole run, from parameter counts.

    Weights, gradients and two moments for what trains (one for the `muon` parameters among the student's), the
    student's moving average, and the frozen networks.
    """
    trained = student + predictor
    return 4 * (4 * trained - muon + student + teacher + codec)


def activation_bytes(size: TransformerSize, clips: int, tokens: int, bytes_per_number: int, checkpointing: bool) -> int:
    """Kept for the backward pass of `clips` clips at once: about 16 D + 3 M numbers per token and layer, 1 D with
    activation checkpointing; and one bool per pair of tokens for a dense mask."""
    per_token = size.width if checkpointing else 16 * size.width + 3 * size.ffn_width
    return clips * tokens * size.num_layers * per_token * bytes_per_number + tokens**2


def estimate_step(
    objective: Objective,
    teacher: TeacherEncoder | None,
    codec: Codec,
    train: TrainConfig,
    clip: ClipSize,
    num_processes: int,
) -> StepEstimate:
    """Of a run's parts, which may be on the meta device."""
    settings = objective.config
    history = clip.frames - settings.chunk_frames if settings.kind == "teacher_forcing" else 0
    frames = clip.frames + history
    student = size_of(objective.student)
    tokens = frames * clip.tokens_per_frame
    predictor, from_teacher = 0.0, 0.0
    if objective.predictor is not None:
        chunk_tokens = settings.chunk_frames * clip.tokens_per_frame
        predictor = predictor_flops(
            objective.predictor, _tapped_frames(objective, clip) * clip.tokens_per_frame, chunk_tokens
        )
    if teacher is not None and objective.foresight is not None:
        # The control reads a clip of its own for every chunk.
        passes = clip.frames // settings.chunk_frames if objective.foresight.shuffle_future else 1
        from_teacher = passes * teacher_flops(teacher, clip, codec)
    muon = 0
    if train.optimizer.kind == "muon":
        muon = sum(weight.numel() for weight in objective.student.blocks.parameters() if weight.ndim == 2)
    clips_at_once = train.batch_size // (num_processes * train.gradient_accumulation)
    return StepEstimate(
        tokens=train.batch_size * tokens,
        student_flops=3 * train.batch_size * forward_flops(student, tokens, frames, clip.context_tokens),
        predictor_flops=3 * train.batch_size * predictor,
        teacher_flops=train.batch_size * from_teacher,
        state_bytes=state_bytes(
            count_parameters(objective.student),
            count_parameters(objective.predictor),
            teacher_parameters(teacher),
            count_parameters(codec),
            muon,
        ),
        activation_bytes=activation_bytes(
            student, clips_at_once, tokens, 2 if train.precision == "bf16" else 4, train.gradient_checkpointing
        ),
    )


def _tapped_frames(objective: Objective, clip: ClipSize) -> int:
    """Frames whose states the predictor reads; the last chunk has no clean copy."""
    is_clean = objective.foresight is not None and objective.foresight.tap == "clean"
    return clip.frames - objective.config.chunk_frames * is_clean


def size_of(model: CausalVideoDiT) -> TransformerSize:
    """Read off a model's own config, and the blocks it has: a teacher keeps only those that run."""
    config = model.config
    patch = math.prod(config.patch_size)
    return TransformerSize(
        num_layers=len(model.blocks),
        width=config.num_attention_heads * config.attention_head_dim,
        ffn_width=config.ffn_dim,
        patch_inputs=config.in_channels * patch,
        patch_outputs=config.out_channels * patch,
        frequencies=config.freq_dim,
        text_dim=config.text_dim or 0,
    )


def count_parameters(module: nn.Module | None) -> int:
    """0 for None."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def readable(number: float) -> str:
    """1234567 -> "1.23 M"."""
    for factor, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return f"{number / factor:.3g} {letter}"
    return f"{number:.3g} "
