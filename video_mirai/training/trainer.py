"""The training loop: batches in, optimiser steps, a moving average, numbers, checkpoints."""

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from video_mirai.data.batch import VideoBatch, VideoSample
from video_mirai.data.batch_stream import BatchStream, LoaderConfig
from video_mirai.data.loader import EpochSampler, count_neighbours
from video_mirai.models.codecs import Codec
from video_mirai.objectives.flow_matching import Objective
from video_mirai.objectives.foresight import ForesightSource
from video_mirai.training import checkpoint
from video_mirai.training.batches import ClipSet, check_batch_size, count_frames, encode_batch, split_batch
from video_mirai.training.ema import EMAConfig, ema_weights, make_ema
from video_mirai.training.optimizers import (
    OptimizerConfig,
    ScheduleConfig,
    clip_gradients,
    learning_rates,
    make_optimizers,
    make_schedulers,
)
from video_mirai.training.signals import StopSignals
from video_mirai.training.tracking import RunLog, progress_bar
from video_mirai.training.validation import Validator

logger = logging.getLogger(__name__)


@dataclass
class TrainConfig:
    """How long, how large, how often.

    Attributes:
        batch_size: clips per optimiser step, over all processes and accumulation steps together.
        gradient_accumulation: backward passes that one optimiser step is split into.
        precision: of the forward pass; weights, gradients and optimiser state are always fp32.
        compile: torch.compile of the student's blocks; the first step takes a minute or so longer.
        max_grad_norm: student and predictor are clipped to it separately.
        keep_checkpoints: so many newest ones stay, and the one with the lowest validation loss.
        tracker: a name that Accelerate knows, such as "tensorboard" or "wandb"; "none" leaves metrics.jsonl alone.
    """

    num_steps: int = 1000
    batch_size: int = 32
    gradient_accumulation: int = 1
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    gradient_checkpointing: bool = False
    max_grad_norm: float = 1.0
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    tracker: str = "tensorboard"
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "gradient_accumulation", "log_every", "keep_checkpoints"):
            if (value := vars(self)[name]) < 1:
                raise ValueError(f"train.{name}={value} must be at least 1.")


class TrainingDiverged(RuntimeError):
    """A loss term or a gradient became NaN or infinite; the weights are still those from before that step."""


class StepResult(NamedTuple):
    """Loss terms, averaged over processes and accumulation steps; gradient norms before clipping; rates used."""

    terms: dict[str, float]
    grad_norms: dict[str, float]
    learning_rates: dict[str, float]


def start_accelerator(config: TrainConfig, run_dir: Path) -> Accelerator:
    """The Accelerator of a run; the config, not accelerate's own settings, decides the precision."""
    return Accelerator(
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=run_dir,
        step_scheduler_with_optimizer=False,
    )


class Trainer:
    """Trains an Objective. Codec and foresight source stay outside what Accelerate wraps; nothing trains them.

    Args:
        objective: student and, with foresight, predictor, in fp32.
        train_set: map-style, as video_mirai.data describes.
        seed: of the data order.
        generators: this process's own, saved in checkpoints; "noise" feeds the objective.
        config_yaml: the resolved config, kept inside every checkpoint.
    """

    def __init__(
        self,
        objective: Objective,
        config: TrainConfig,
        *,
        accelerator: Accelerator,
        codec: Codec,
        train_set: ClipSet,
        run_dir: Path,
        seed: int,
        generators: dict[str, torch.Generator],
        config_yaml: str,
        foresight: ForesightSource | None = None,
        validator: Validator | None = None,
    ) -> None:
        parts = (accelerator.num_processes, config.gradient_accumulation)
        check_batch_size(config.batch_size, *parts, 1 if foresight is None else foresight.clips_needed)
        self.config = config
        self.accelerator = accelerator
        self.codec = codec
        self.foresight = foresight
        self.train_set = train_set
        self.validator = validator
        self.run_dir = run_dir
        self.seed = seed
        self.config_yaml = config_yaml
        self.generators = generators
        self.step = 0
        self._log: RunLog | None = None
        self._validated: tuple[int, float | None] = (0, None)  # the last step that was, and its loss

        self.objective = objective.train()
        if config.gradient_checkpointing:
            objective.student.enable_gradient_checkpointing()
        if config.compile:
            objective.student.compile_repeated_blocks()
        self.optimizers = make_optimizers(objective, config.optimizer)
        self.schedulers = make_schedulers(self.optimizers, config.schedule, config.num_steps)
        self._prepared, *_ = accelerator.prepare(objective, *self.optimizers.values())
        self.ema = make_ema(objective.student, config.ema)
        if foresight is not None:
            foresight.follow(dict(zip(self._student_names(), self.ema.shadow_params, strict=True)))

    def fit(self, num_steps: int) -> bool:
        """Train until step `num_steps`, counted from the start of the run, not from a resume.

        Returns:
            False where SIGTERM or SIGINT came to one of the processes: the step was finished and saved.

        Raises:
            TrainingDiverged: a loss term or gradient is not finite; the last checkpoint is untouched.
            CheckpointFailed: no room, or no right to write; likewise.
            TooManyWorkerFailures, and what the data set raises.
        """
        self._log = RunLog(self.accelerator, self.run_dir, self.step)
        watch = _Stopwatch()
        frames = 0
        stopped = False
        with (
            StopSignals() as signals,
            self._batches() as batches,
            progress_bar(self.accelerator, num_steps, self.step) as bar,
        ):
            while self.step < num_steps and not stopped:
                batch = next(batches)
                result = self.train_step(batch)
                frames += count_frames(batch)
                bar.update()
                if self._due(self.config.log_every, num_steps):
                    rate = frames * self.accelerator.num_processes / watch.lap()
                    frames = 0
                    self._log.log(self._numbers(result, rate), self.step)
                    bar.set_postfix(self._shown(result, rate), refresh=False)
                # Validated before saved: a run that is killed in between does both again.
                if self.validator is not None and self._due(self.validator.config.every_steps, num_steps):
                    self._log.log(self.validate(), self.step)
                    watch.lap()
                stopped = not self._all_agree(signals.received is None)
                if stopped or self._due(self.config.checkpoint_every, num_steps):
                    self.save()
        self._log.close()
        return not stopped

    def train_step(self, batch: VideoBatch) -> StepResult:
        """One optimiser step on this process's share of a batch."""
        terms = self._mean_over_processes(self._backward(batch))
        rates = learning_rates(self.optimizers)
        norms = {part: float(norm) for part, norm in clip_gradients(self.objective, self.config.max_grad_norm).items()}
        self._check_finite(terms, norms)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for scheduler in self.schedulers.values():
            scheduler.step()
        self.ema.step(self.objective.student.parameters())
        self.step += 1
        return StepResult(terms, norms, rates)

    def validate(self) -> dict[str, float]:
        """Losses and rollouts of the averaged weights on held-out clips; draws from no training generator."""
        assert self.validator is not None
        # Eager, because clips come in shapes that would each be compiled anew.
        with ema_weights(self.objective.student, self.ema), torch.compiler.set_stance("force_eager"):
            numbers = self.validator.run(self.objective, self.codec, self.accelerator, self.run_dir, self.step)
        self._validated = (self.step, numbers["validation/loss"])
        return numbers

    def save(self) -> Path:
        """Write a checkpoint of this moment; every process calls it. CheckpointFailed where that can't be done."""
        if self._log is not None:
            self._log.flush()  # what a resume from here counts on
        tensors = {
            "objective": {name: checkpoint.whole(value) for name, value in self.objective.state_dict().items()},
            "ema": self.ema_state(),
        }
        settings: dict[str, Any] = {}
        for name, optimizer in self.optimizers.items():
            tensors[f"optimizer_{name}"], settings[name] = checkpoint.optimizer_snapshot(optimizer)
        state = {
            "step": self.step,
            "ema_step": self.ema.optimization_step,
            "optimizers": settings,
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
            "validation_loss": self._validated[1] if self._validated[0] == self.step else None,
            "ran_on": self._ran_on(),
        }
        return checkpoint.save_checkpoint(
            self.run_dir,
            checkpoint.Snapshot(tensors, state, self.config_yaml),
            self.generators,
            keep=self.config.keep_checkpoints,
            rank=self.accelerator.process_index,
            all_agree=self._all_agree,
        )

    def load(self, folder: Path) -> None:
        """Go on exactly where the checkpoint in `folder` was written.

        Raises:
            FileNotFoundError, ValueError: no checkpoint, damaged, or of another model.
        """
        tensors, state, _ = checkpoint.load_checkpoint(folder)
        checkpoint.copy_parameters(tensors["objective"], self.objective.state_dict().items(), str(folder))
        shadows = zip(self._student_names(), self.ema.shadow_params, strict=True)
        checkpoint.copy_parameters(tensors["ema"], shadows, f"{folder} (EMA)")
        if state["optimizers"].keys() != self.optimizers.keys():
            raise ValueError(
                f"{folder} was trained with {', '.join(state['optimizers'])}, this config asks for "
                f"{', '.join(self.optimizers)}."
            )
        for name, optimizer in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, tensors.get(f"optimizer_{name}", {}), state["optimizers"][name])
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][name])
        self.ema.optimization_step = state["ema_step"]
        self.step = state["step"]
        self._validated = (self.step, state["validation_loss"])
        own_generators = checkpoint.restore_generators(folder, self.accelerator.process_index, self.generators)
        self._say_what_differs(state["ran_on"], own_generators)

    def ema_state(self) -> dict[str, Tensor]:
        """{the student's parameter name: averaged weight}, whole, on the CPU."""
        return {
            name: checkpoint.whole(shadow)
            for name, shadow in zip(self._student_names(), self.ema.shadow_params, strict=True)
        }

    def _backward(self, batch: VideoBatch) -> dict[str, Tensor]:
        """Gradients of the mean loss over the accumulation steps; its terms, detached."""
        parts = self.config.gradient_accumulation
        totals: dict[str, Tensor] = {}
        for index, part in enumerate(split_batch(batch, parts)):
            latents, context = encode_batch(part, self.codec, self.accelerator.device)
            targets = None
            if self.foresight is not None:
                reads_video = self.foresight.teacher.reads_pixels and "video" in part
                video = part["video"].to(latents.device) if reads_video else None
                with self.accelerator.autocast():
                    targets = self.foresight.targets(latents, context, video, self.step)
            is_last = index + 1 == parts
            with nullcontext() if is_last else self.accelerator.no_sync(self._prepared):
                terms = self._prepared(latents, context, self.generators["noise"], targets)
                (terms["total"] / parts).backward()
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.detach() / parts
        return totals

    def _mean_over_processes(self, terms: dict[str, Tensor]) -> dict[str, float]:
        values = self.accelerator.reduce(torch.stack(list(terms.values())).float(), reduction="mean")
        return dict(zip(terms, values.tolist(), strict=True))

    def _check_finite(self, terms: dict[str, float], norms: dict[str, float]) -> None:
        """Both are the same on every process, so that all stop together."""
        parts = {name: value for name, value in terms.items() if name != "total"}
        named = {f"loss term {name!r}": value for name, value in {**parts, "total": terms["total"]}.items()}
        named |= {f"gradient norm of the {part}": value for part, value in norms.items()}
        for name, value in named.items():
            if not math.isfinite(value):
                raise TrainingDiverged(f"step {self.step + 1}: {name} is {value}")

    def _batches(self) -> BatchStream:
        train_set = cast(Dataset[VideoSample], self.train_set)
        sampler = EpochSampler(
            len(self.train_set),
            self.config.batch_size // self.accelerator.num_processes,
            self.seed,
            start_step=self.step,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            clips_per_place=count_neighbours(train_set),
        )
        return BatchStream(train_set, sampler, self.config.loader)

    def _all_agree(self, mine: bool) -> bool:
        """Waits for every process; whether all said yes."""
        if self.accelerator.num_processes == 1:
            return mine
        refusals = torch.tensor([0.0 if mine else 1.0], device=self.accelerator.device)
        return float(self.accelerator.reduce(refusals, reduction="sum")) == 0

    def _say_what_differs(self, before: dict[str, Any], own_generators: bool) -> None:
        """On what else than before a resumed run goes on, and what that changes."""
        now = self._ran_on()
        if before["processes"] != now["processes"]:
            logger.warning(
                "resuming with %d processes instead of %d: weights, optimisers, schedules and the order of the data go "
                "on exactly; each process's noise%s does not, and sums over processes round differently.",
                now["processes"], before["processes"], "" if own_generators else " (drawn anew for this one)",
            )  # fmt: skip
        for what in now.keys() - {"processes"}:
            if before.get(what) != now[what]:
                logger.warning(
                    "resuming with %s %s instead of %s: everything goes on, but numbers round differently, so the run "
                    "is not bit for bit what it would have been.", what, now[what], before.get(what),
                )  # fmt: skip

    def _due(self, every: int, num_steps: int) -> bool:
        """Every so many steps and at the end; 0 = never."""
        return every > 0 and (self.step % every == 0 or self.step == num_steps)

    def _numbers(self, result: StepResult, frames_per_second: float) -> dict[str, float]:
        numbers = {f"train/{name}": value for name, value in result.terms.items()}
        numbers |= {f"grad_norm/{part}": value for part, value in result.grad_norms.items()}
        numbers |= {f"lr/{group}": rate for group, rate in result.learning_rates.items()}
        return numbers | {"train/frames_per_second": frames_per_second}

    def _shown(self, result: StepResult, frames_per_second: float) -> dict[str, str]:
        shown = {name: f"{value:.4f}" for name, value in result.terms.items() if name != "total"}
        rate = max(result.learning_rates.values())
        return shown | {"lr": f"{rate:.1e}", "frames/s": f"{frames_per_second:.0f}"}

    def _student_names(self) -> list[str]:
        return [name for name, _ in self.objective.student.named_parameters()]

    def _ran_on(self) -> dict[str, Any]:
        """What the bits of a run depend on besides its config."""
        return {
            "processes": self.accelerator.num_processes,
            "device": self.accelerator.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


class _Stopwatch:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        elapsed, self._start = now - self._start, now
        return elapsed
