"""Composition root: the only reader of RunConfig. From settings to parts, with every check that comes before training.

`plan_run` builds the networks on the meta device (no memory, no weights read) and checks that all parts fit together;
`build_trainer` then builds them for real; `load_run` opens what a run exported.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from video_mirai.config import DataConfig, ModelConfig, RunConfig, config_to_yaml, load_config
from video_mirai.data.latent_shards import LatentShards
from video_mirai.data.scenes import Scenes, ScenesConfig
from video_mirai.data.video_folder import VideoFolder, VideoFolderConfig
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec, build_codec, load_codec
from video_mirai.models.teachers import TeacherEncoder
from video_mirai.objectives.flow_matching import Objective
from video_mirai.objectives.foresight import ForesightSource, make_predictors
from video_mirai.ops.attention import check_backend
from video_mirai.sampling.rollout import RolloutSettings
from video_mirai.training.batches import ClipSet
from video_mirai.training.checkpoint import list_checkpoints, load_checkpoint
from video_mirai.training.checks import LatentShape, check_fit
from video_mirai.training.export import (
    CODEC,
    CONFIG_FILE,
    TRANSFORMER,
    ClipFormat,
    find_export,
    read_clip_format,
    write_export,
)
from video_mirai.training.foresight_checks import check_foresight
from video_mirai.training.seeds import derive_seed, make_generator
from video_mirai.training.teacher_sources import Placing, TeacherOrigin, build_teacher
from video_mirai.training.trainer import Trainer
from video_mirai.training.validation import Validator

ASSET_PREFIX = "asset:"
ASSETS = Path(__file__).resolve().parents[1] / "assets" / "checkpoints"

DATA_SETS: dict[str, Callable[..., Any]] = {
    "video_folder": VideoFolder,
    "scenes": Scenes,
    "latent_shards": LatentShards,
}


class LoadedRun(NamedTuple):
    """What a run exported, ready to generate."""

    model: CausalVideoDiT
    codec: Codec
    rollout: RolloutSettings
    config: RunConfig
    clips: ClipFormat


class RunPlan(NamedTuple):
    """A checked run: networks on the meta device, codec real."""

    objective: Objective
    teacher: TeacherEncoder | None
    codec: Codec
    train_set: ClipSet
    shape: LatentShape


def plan_run(config: RunConfig, device: torch.device) -> RunPlan:
    """Open the data, read the codec, and check that everything fits together and trains on `device`.

    Raises:
        FileNotFoundError, ValueError: one line that names the setting or file at fault.
    """
    codec = build_codec(config.codec)
    train_set = build_data_set(config.data)
    shape = latent_shape(train_set, codec)
    teacher = None
    if config.foresight is not None:
        with torch.device("meta"):
            student = CausalVideoDiT(**student_settings(config.model, shape.channels))
        placing = Placing(torch.device("meta"), torch.float32, None)
        teacher = build_teacher(teacher_origin(config, student, codec), placing)
    with torch.device("meta"):
        objective = build_objective(config, shape.channels, teacher.feature_dim if teacher is not None else 0)
    if config.model.init_from is not None:
        _require_codec(_transformer_folder(config.model.init_from), codec, f"model.init_from={config.model.init_from}")
    check_fit(objective, config.rollout, shape, device)
    if teacher is not None:
        check_foresight(objective, teacher, shape, device)
    return RunPlan(objective, teacher, codec, train_set, shape)


def build_trainer(config: RunConfig, plan: RunPlan, accelerator: Accelerator) -> Trainer:
    """The trainer of a planned run, from its first step."""
    teacher_width = plan.teacher.feature_dim if plan.teacher is not None else 0
    objective = build_objective(config, plan.shape.channels, teacher_width)
    if config.model.init_from is not None:
        objective.student = load_student(config.model, plan.shape.channels)
    codec = plan.codec.to(accelerator.device)
    rank = accelerator.process_index
    set_seed(derive_seed(config.seed, "global", rank) % 2**32)  # nothing here draws from these; other code may
    generators = {"noise": make_generator(accelerator.device, config.seed, "noise", rank)}
    foresight = None
    if config.foresight is not None:
        generators["teacher"] = make_generator(accelerator.device, config.seed, "teacher", rank)
        foresight = build_foresight(config, objective.student, codec, generators["teacher"])
    return Trainer(
        objective,
        config.train,
        accelerator=accelerator,
        codec=codec,
        train_set=plan.train_set,
        run_dir=run_dir(config),
        seed=config.seed,
        generators=generators,
        config_yaml=config_to_yaml(config),
        foresight=foresight,
        validator=build_validator(config, codec),
    )


def run_dir(config: RunConfig) -> Path:
    """Where a run writes."""
    return Path(config.output_dir) / config.name


def build_data_set(config: DataConfig, **changes: Any) -> ClipSet:
    """The data set that a config names, with some of its settings replaced."""
    settings = {"video_folder": config.video_folder, "scenes": config.scenes, "latent_shards": config.latent_shards}
    chosen = settings[config.kind]
    if chosen is None:
        raise ValueError(f"data.kind is {config.kind!r}, but there is no data.{config.kind} block.")
    return DATA_SETS[config.kind](**asdict(replace(chosen, **changes)))


def build_objective(config: RunConfig, latent_channels: int, teacher_width: int) -> Objective:
    """Student and, with foresight, predictor, each initialised from a seed of its own.

    The predictor comes last and draws from its own stream, so that the student starts the same with and without it.
    """
    with _seeded(config.seed, "student"):
        student = CausalVideoDiT(**student_settings(config.model, latent_channels))
    predictor = None
    if config.foresight is not None:
        with _seeded(config.seed, "predictor"):
            predictor = make_predictors(config.foresight, student, teacher_width)
    return Objective(student, config.objective, predictor, config.foresight)


def student_settings(model: ModelConfig, latent_channels: int) -> dict[str, Any]:
    """CausalVideoDiT's keyword arguments; what the config leaves out keeps the class's default."""
    if model.in_channels not in (None, latent_channels):
        raise ValueError(f"model.in_channels={model.in_channels}, but the codec's latents have {latent_channels}.")
    settings = {name: value for name, value in asdict(model).items() if value is not None and name != "init_from"}
    return settings | {"text_dim": model.text_dim, "in_channels": latent_channels, "out_channels": latent_channels}


def load_student(model: ModelConfig, latent_channels: int) -> CausalVideoDiT:
    """The student that `model.init_from` names, in fp32; its architecture has to be the config's."""
    folder = _transformer_folder(str(model.init_from))
    wanted = student_settings(model, latent_channels)
    found = CausalVideoDiT.load_config(folder)
    for name, value in wanted.items():
        theirs = found.get(name, value)
        if name != "attention_backend" and _as_tuple(theirs) != _as_tuple(value):
            raise ValueError(f"model.{name}={value}, but {model.init_from} (model.init_from) has {theirs}.")
    backend = {"attention_backend": model.attention_backend} if model.attention_backend is not None else {}
    return CausalVideoDiT.from_pretrained(folder, torch_dtype=torch.float32, **backend)


def build_foresight(
    config: RunConfig, student: CausalVideoDiT, codec: Codec, generator: torch.Generator
) -> ForesightSource:
    """The teacher and what is asked of it, on the generator's device."""
    assert config.foresight is not None
    # Frozen, so it needs no fp32 master weights.
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    with _seeded(config.seed, "untrained teacher"):
        teacher = build_teacher(teacher_origin(config, student, codec), Placing(generator.device, dtype, generator))
    return ForesightSource(teacher, config.foresight, config.objective.chunk_frames, codec, config.train.num_steps)


def teacher_origin(config: RunConfig, student: CausalVideoDiT, codec: Codec) -> TeacherOrigin:
    """What the teacher is made of; where it is an export, its codec has to be the run's.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or of another codec.
    """
    assert config.foresight is not None
    settings, trained_as, folder = config.foresight.teacher, None, None
    if settings.checkpoint and settings.kind in ("dit", "causal_dit"):
        folder = _transformer_folder(settings.checkpoint)
        _require_codec(folder, codec, f"the teacher {settings.checkpoint}")
        if (folder.parent / CONFIG_FILE).is_file():
            trained_as = load_config(RunConfig, folder.parent / CONFIG_FILE).objective
    return TeacherOrigin(settings, folder, trained_as, student, config.objective, codec)


def build_validator(config: RunConfig, codec: Codec) -> Validator | None:
    """Held-out clips for the loss and, unless the model is a bidirectional teacher, for rollouts."""
    settings = config.validation
    if settings.every_steps == 0:
        return None
    held_out = {"split": "val"} if config.validation_data is None else {}
    data = config.data if config.validation_data is None else config.validation_data
    loss_set = build_data_set(data, **held_out)
    rollout_set = None
    if settings.rollout_clips and config.objective.kind != "bidirectional":
        frames = settings.history_frames + settings.rollout_frames
        if data.kind != "latent_shards":
            frames = codec.num_pixel_frames(frames)
        rollout_set = build_data_set(data, num_frames=frames, **held_out)
    _try_to_read(loss_set, settings.num_clips)
    if rollout_set is not None:
        _try_to_read(rollout_set, settings.rollout_clips)
    return Validator(
        settings,
        loss_set,
        rollout_set,
        config.rollout,
        loss_set.fps,
        derive_seed(config.seed, "validation"),
    )


def _try_to_read(clips: ClipSet, count: int) -> None:
    """Its first clips, so that a bad file is said before training and not at the first validation."""
    for index in range(min(count, len(clips))):
        _ = clips[index]


def load_run(path: str | Path, device: torch.device | str = "cpu") -> LoadedRun:
    """A run's exported model, its codec and its settings, from a run folder, its export, or `asset:<name>`.

    Raises:
        FileNotFoundError: names what is missing.
        ValueError: its attention backend does not run on this device.
    """
    folder = find_export(_resolve(path))
    model = CausalVideoDiT.from_pretrained(folder / TRANSFORMER, torch_dtype=torch.float32).to(device).eval()
    check_backend(model.config.attention_backend, torch.device(device), masked=False, backward=False)
    config = load_config(RunConfig, folder / CONFIG_FILE)
    codec = load_codec(folder / CODEC).to(device)
    return LoadedRun(model, codec, config.rollout, config, read_clip_format(folder))


def latent_shape(train_set: ClipSet, codec: Codec) -> LatentShape:
    """Of the first clip, read to find out; encoded data says it itself."""
    sample = train_set[0]
    context_tokens = sample["context"].shape[-2] if "context" in sample else 0
    if "latents" in sample:
        if isinstance(train_set, LatentShards):
            train_set.require_codec(codec.fingerprint())
        frames, channels, height, width = sample["latents"].shape
        return LatentShape(frames, channels, height, width, context_tokens)
    codec.check_video(sample["video"][None])
    frames, _, height, width = sample["video"].shape
    factor = codec.spatial_factor
    return LatentShape(
        codec.num_latent_frames(frames), codec.latent_channels, height // factor, width // factor, context_tokens
    )


def _require_codec(transformer: Path, codec: Codec, what: str) -> None:
    """ValueError where a model is part of an export whose codec isn't this one."""
    folder = transformer.parent / CODEC
    if folder.is_dir() and load_codec(folder).fingerprint() != codec.fingerprint():
        raise ValueError(f"{what} was trained on another codec's latents than this run's.")


def _transformer_folder(path: str) -> Path:
    """A diffusers transformer folder itself, or the one inside an export."""
    folder = _resolve(path)
    return folder if (folder / "config.json").is_file() else find_export(folder) / TRANSFORMER


def _resolve(path: str | Path) -> Path:
    text = str(path)
    return ASSETS / text.removeprefix(ASSET_PREFIX) if text.startswith(ASSET_PREFIX) else Path(path)


@contextmanager
def _seeded(seed: int, what: str) -> Iterator[None]:
    """Inside, modules initialise from a stream of their own; outside, the global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, what))
        yield


def _as_tuple(value: Any) -> Any:
    """JSON turns tuples into lists."""
    return tuple(value) if isinstance(value, list) else value


def export_run(config: RunConfig, trainer: Trainer) -> Path | None:
    """Write the run's export folder from its averaged weights; every process calls it, the main one writes."""
    weights = trainer.ema_state()
    if not trainer.accelerator.is_main_process:
        return None
    student = trainer.objective.student
    card = model_card(config, trainer.step)
    clips = clip_format(config.data, trainer.train_set)
    return write_export(run_dir(config), student.config, weights, trainer.codec, clips, trainer.config_yaml, card)


def export_checkpoint(run: Path, folder: Path | None) -> Path:
    """Write `run`/export from a checkpoint, or from its newest one.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, damaged, or not this run's.
    """
    if folder is None:
        saved = list_checkpoints(run)
        if not saved:
            raise FileNotFoundError(f"{run} holds no checkpoints.")
        folder = saved[-1]
    tensors, state, config_yaml = load_checkpoint(folder)
    config = load_config(RunConfig, folder / CONFIG_FILE)
    codec = build_codec(config.codec)
    channels = tensors["ema"]["patch_embedding.weight"].shape[1]
    with torch.device("meta"):
        student = CausalVideoDiT(**student_settings(config.model, channels))
    card = model_card(config, state["step"])
    clips = clip_format(config.data, build_data_set(config.data))
    return write_export(run, student.config, tensors["ema"], codec, clips, config_yaml, card)


def clip_format(config: DataConfig, data_set: ClipSet) -> ClipFormat:
    """Of the videos behind a data set; latents know the size of theirs, for the others the config says it."""
    sized = {"video_folder": config.video_folder, "scenes": config.scenes}.get(config.kind, data_set)
    assert isinstance(sized, VideoFolderConfig | ScenesConfig | LatentShards)
    return ClipFormat(sized.height, sized.width, data_set.fps)


def model_card(config: RunConfig, step: int) -> str:
    """What this checkpoint is, for whoever finds it."""
    model, objective = config.model, config.objective
    role = "bidirectional teacher" if objective.kind == "bidirectional" else "causal video model"
    lines = [
        f"# {config.name}",
        "",
        f"A {role} trained by video_mirai for {step} steps of {config.train.batch_size} clips (seed {config.seed}).",
        "",
        f"- Weights: moving average of the student, safetensors, a diffusers `CausalVideoDiT` in `{TRANSFORMER}/`.",
        f"- Size: {model.num_layers} layers of {model.num_attention_heads} x {model.attention_head_dim}.",
        f"- Objective: {objective.kind}, chunks of {objective.chunk_frames} latent frames.",
        f"- Foresight: {_foresight_in_words(config)}.",
        f"- Data: {config.data.kind}; codec: {config.codec.kind} (in `{CODEC}/`).",
        f"- Every setting: `{CONFIG_FILE}`.",
        "",
        "Open it with `video_mirai.build.load_run(folder)` or `scripts/rollout.py --checkpoint folder`.",
    ]
    return "\n".join(lines) + "\n"


def _foresight_in_words(config: RunConfig) -> str:
    if config.foresight is None:
        return "none"
    foresight, teacher = config.foresight, config.foresight.teacher
    source = f"{'untrained ' if teacher.untrained else ''}{teacher.kind} {teacher.checkpoint}".rstrip()
    return (
        f"weight {foresight.weight}, window {foresight.window} ({foresight.fuse}), student layers "
        f"{foresight.student_layers}, teacher {source} at layer {teacher.layer:g}; predictor and teacher not included"
    )
