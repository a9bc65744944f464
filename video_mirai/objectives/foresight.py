"""The foresight loss (Video-Mirai, arXiv 2606.03971; Mirai, 2601.14671): the causal state of a chunk predicts what a
teacher says of this chunk and the ones ahead."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.models.predictor import ForesightPredictor
from video_mirai.models.teachers import AverageTeacher, TeacherConfig, TeacherEncoder, resolve_layer
from video_mirai.objectives.look_ahead import ForesightTargets, fused_targets, head_offsets, look_ahead_targets
from video_mirai.ops.ramps import decay_factor

__all__ = ["ForesightConfig", "ForesightSource", "ForesightTargets", "foresight_loss", "look_ahead_targets"]


@dataclass
class WeightSchedule:
    """How the weight of the foresight loss goes over the run.

    Attributes:
        start_step: before it the weight is 0.
        warmup_steps: from there it rises linearly to its peak.
        decay: from its peak to the run's end.
        final_fraction: of the peak, reached after the last step; "constant" stays at the peak.
    """

    start_step: int = 0
    warmup_steps: int = 0
    decay: Literal["constant", "cosine", "linear"] = "constant"
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.start_step < 0 or self.warmup_steps < 0:
            raise ValueError("foresight.schedule: start_step and warmup_steps must not be negative.")

    def factor(self, step: int, num_steps: int) -> float:
        """On the peak weight, at a step counted from 0."""
        peak = self.start_step + self.warmup_steps
        if step < self.start_step:
            return 0.0
        if step < peak:
            return (step - self.start_step + 1) / (self.warmup_steps + 1)
        return decay_factor(self.decay, self.final_fraction, step, peak, num_steps)


@dataclass
class ForesightConfig:
    """Foresight supervision.

    Attributes:
        weight: of the foresight loss beside the flow loss, at its peak.
        window: look-ahead offsets, in chunks; 0 is the chunk itself.
        fuse: "mean": the target is the mean over the window. "heads": a head of the predictor for each offset.
        neighbours: with heads, so many nearest positions around the window's offsets get a head each, too.
        student_layers: transformer blocks of the student whose residual stream is supervised, each through its own
            predictor: below 1 a fraction of the depth, else the block's number from 1.
        tap: states of the "noisy" tokens, or of the "clean" ones that teacher forcing gives beside them.
        predictor: "blocks" (transformer, attention inside the chunk), "mlp", "linear" or "none".
        predictor_blocks: of "blocks".
        loss: "cosine", or "smooth_l1" against targets of zero mean and unit variance over their width.
        shuffle_future: a control: what comes after a chunk is another clip's before the teacher reads for that chunk.
    """

    weight: float = 0.2
    schedule: WeightSchedule = field(default_factory=WeightSchedule)
    window: list[int] = field(default_factory=lambda: [0, 1])
    fuse: Literal["mean", "heads"] = "mean"
    neighbours: int = 0
    student_layers: list[float] = field(default_factory=lambda: [0.5])
    tap: Literal["noisy", "clean"] = "noisy"
    predictor: Literal["blocks", "mlp", "linear", "none"] = "blocks"
    predictor_blocks: int = 3
    loss: Literal["cosine", "smooth_l1"] = "cosine"
    shuffle_future: bool = False
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        if self.neighbours < 0 or (self.neighbours and self.fuse != "heads"):
            raise ValueError(f"foresight.neighbours={self.neighbours} must be 0, or more with foresight.fuse=heads.")

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """Numbers of the supervised blocks of a student with so many; ValueError for one that it doesn't have."""
        layers = tuple(resolve_layer("foresight.student_layers", value, num_layers) for value in self.student_layers)
        if not layers or len(set(layers)) < len(layers):
            raise ValueError(f"foresight.student_layers={self.student_layers}: name at least one block, none twice.")
        return layers

    def num_heads(self) -> int:
        """Targets for every token."""
        return 1 if self.fuse == "mean" else len(head_offsets(tuple(self.window), self.neighbours))


class ForesightSource:
    """Teacher and look-ahead window: makes targets. Lives outside the objective; never wrapped or exported."""

    def __init__(
        self, teacher: TeacherEncoder, config: ForesightConfig, chunk_frames: int, codec: Codec, num_steps: int
    ) -> None:
        """codec: the latents'; num_steps: of the run, for the schedule of the weight."""
        self.teacher = teacher
        self.config = config
        self.chunk_frames = chunk_frames
        self.codec = codec
        self.num_steps = num_steps

    @property
    def clips_needed(self) -> int:
        """Clips that a batch has to have."""
        return 2 if self.config.shuffle_future else 1

    def follow(self, average: dict[str, Tensor]) -> None:
        """Where the teacher is the student's average: these are its weights, and stay so as they move."""
        if isinstance(self.teacher, AverageTeacher):
            self.teacher.follow(average)

    def targets(
        self, latents: Tensor, context: Tensor | None, video: Tensor | None = None, step: int = 0
    ) -> ForesightTargets:
        """Targets for every chunk.

        Args:
            latents: (B, F, C, H, W), clean.
            video: (B, T, 3, H, W), the same clips, where the data has them; else encoders decode the latents.
            step: of the run, from 0.
        """
        scale = self.config.schedule.factor(step, self.num_steps)
        if not self.config.shuffle_future:
            return self._read(latents, context, video)._replace(scale=scale)
        num_chunks = latents.shape[1] // self.chunk_frames
        by_chunk = []
        for chunk in range(num_chunks):
            kept = (chunk + 1) * self.chunk_frames
            spliced = self._read(
                splice_future(latents, kept),
                splice_future(context, kept) if context is not None and context.ndim == 4 else context,
                splice_future(video, self.codec.num_pixel_frames(kept)) if video is not None else None,
            )
            by_chunk.append((spliced.targets[:, :, chunk], spliced.valid[:, chunk]))
        targets, valid = zip(*by_chunk, strict=True)
        return ForesightTargets(torch.stack(targets, dim=2), torch.stack(valid, dim=1), scale)

    def _read(self, latents: Tensor, context: Tensor | None, video: Tensor | None) -> ForesightTargets:
        features = self.teacher.encode(latents, context, video)
        rows, _ = self.teacher.grid(*latents.shape[-2:])
        window, neighbours = tuple(self.config.window), self.config.neighbours
        return fused_targets(features, window, self.chunk_frames, rows, neighbours, fuse=self.config.fuse)


def splice_future(clips: Tensor, kept_frames: int) -> Tensor:
    """(B, F, ...) clips that keep their first frames and go on as the next clip of the batch does."""
    if len(clips) < 2:
        raise ValueError("foresight.shuffle_future takes the future of another clip; a batch of one has none.")
    return torch.cat([clips[:, :kept_frames], clips.roll(-1, dims=0)[:, kept_frames:]], dim=1)


def make_predictors(config: ForesightConfig, student: CausalVideoDiT, teacher_width: int) -> nn.ModuleDict:
    """{supervised layer of the student: its ForesightPredictor}."""
    heads = student.config.num_attention_heads
    predictors = nn.ModuleDict()
    for layer in config.layers(student.config.num_layers):
        predictors[str(layer)] = ForesightPredictor(
            heads * student.config.attention_head_dim,
            teacher_width,
            heads,
            config.predictor_blocks,
            kind=config.predictor,
            num_targets=config.num_heads(),
        )
    return predictors


def supervise(
    predictors: nn.ModuleDict,
    hidden: dict[int, Tensor],
    foresight: ForesightTargets,
    config: ForesightConfig,
    chunk_shape: tuple[int, int, int],
) -> Tensor:
    """The foresight loss, unweighted: mean over the student's layers.

    Args:
        predictors: {layer: ForesightPredictor}.
        hidden: {layer: (B, tokens, D)}, of the targets' chunks.
        chunk_shape: frames, rows and columns of a chunk.
    """
    losses = [
        foresight_loss(predictor(hidden[int(layer)], *chunk_shape), foresight, config.loss)
        for layer, predictor in predictors.items()
    ]
    return torch.stack(losses).mean()


def foresight_loss(predicted: Tensor, foresight: ForesightTargets, kind: str = "cosine") -> Tensor:
    """Error of each head, averaged over the tokens that have a target, then over the heads; in fp32.

    Args:
        predicted: (B, heads, num_chunks * tokens, D_teacher).
        kind: a key of LOSSES.
    """
    heads = []
    for head, valid in enumerate(foresight.valid):
        targets = foresight.targets[:, head].float()
        error = LOSSES[kind](predicted[:, head].float().reshape(targets.shape), targets)  # (B, num_chunks, tokens)
        heads.append((error * valid).sum() / (len(error) * valid.sum()))
    return torch.stack(heads).mean()


def _cosine(predicted: Tensor, targets: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(predicted, targets, dim=-1)


def _smooth_l1(predicted: Tensor, targets: Tensor) -> Tensor:
    normalised = functional.layer_norm(targets, targets.shape[-1:])
    return functional.smooth_l1_loss(predicted, normalised, reduction="none").mean(-1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": _cosine, "smooth_l1": _smooth_l1}
