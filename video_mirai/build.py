"""Composition root, which alone reads RunConfig (run_card puts it into words): from settings to checked parts.

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
from video_mirai.export_folder import (
    CODEC,
    CONFIG_FILE,
    TRANSFORMER,
    ClipFormat,
    find_run_export,
    read_clip_format,
    resolve,
)
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec, build_codec, load_codec
from video_mirai.models.teachers import TeacherEncoder
from video_mirai.objectives.flow_matching import Objective
from video_mirai.objectives.foresight import ForesightSource, make_predictors
from video_mirai.ops.attention import check_backend
from video_mirai.pipeline import VideoMiraiPipeline
from video_mirai.run_card import card_facts
from video_mirai.sampling.rollout import RolloutSettings
from video_mirai.training.batches import ClipSet
from video_mirai.training.checkpoint import list_checkpoints, load_checkpoint
from video_mirai.training.checks import LatentShape, check_fit, check_rollout
from video_mirai.training.export import ExportParts, write_export
from video_mirai.training.export_proof import Baseline
from video_mirai.training.foresight_checks import check_foresight
from video_mirai.training.seeds import derive_seed, make_generator
from video_mirai.training.teacher_sources import Placing, TeacherOrigin, build_teacher
from video_mirai.training.trainer import Trainer
from video_mirai.training.validation import Validator

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
    _check_guidance(config, config.rollout)
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
    with torch.device("meta"):
        wanted = CausalVideoDiT(**student_settings(model, latent_channels)).config
    found = CausalVideoDiT.load_config(folder)
    for name, value in wanted.items():  # all of them: a checkpoint is exported with what the config says
        theirs = found.get(name, value)
        is_architecture = not name.startswith("_") and name != "attention_backend"
        if is_architecture and _as_tuple(theirs) != _as_tuple(value):
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
    folder = find_run_export(path)
    model = CausalVideoDiT.from_pretrained(folder / TRANSFORMER, torch_dtype=torch.float32).to(device).eval()
    check_backend(model.config.attention_backend, torch.device(device), masked=False, backward=False)
    config = load_config(RunConfig, folder / CONFIG_FILE)
    codec = load_codec(folder / CODEC).to(device)
    return LoadedRun(model, codec, config.rollout, config, read_clip_format(folder))


def check_generation(run: LoadedRun, settings: RolloutSettings) -> None:
    """ValueError where a run would have to generate in a way that it was not trained for."""
    if run.config.objective.kind == "bidirectional":
        raise ValueError(f"{run.config.name} is a bidirectional teacher: it sees the future and cannot generate.")
    check_rollout(settings, run.config.objective, run.model, trained_frames(run))
    _check_guidance(run.config, settings)


def trained_frames(run: LoadedRun) -> int:
    """Latent frames of the clips that a run was trained on."""
    data = run.config.data
    chosen = {"video_folder": data.video_folder, "scenes": data.scenes, "latent_shards": data.latent_shards}[data.kind]
    assert chosen is not None, "the run would not have started"
    return chosen.num_frames if data.kind == "latent_shards" else run.codec.num_latent_frames(chosen.num_frames)


def _check_guidance(config: RunConfig, settings: RolloutSettings) -> None:
    """A model from elsewhere may know what no context looks like; one trained from scratch has to be shown."""
    scale = settings.guidance.context_scale
    if scale != 1 and not config.objective.context_dropout and config.model.init_from is None:
        raise ValueError(
            f"rollout.guidance.context_scale={scale}, but the model never trains without its context: set "
            f"objective.context_dropout, to 0.1 say."
        )


def load_pipeline(path: str | Path, device: torch.device | str = "cpu") -> VideoMiraiPipeline:
    """The pipeline of any export, also of one older than the pipeline, which has no model_index.json; see load_run."""
    run = load_run(path, device)
    check_generation(run, run.rollout)
    return VideoMiraiPipeline(run.model, run.codec, asdict(run.rollout), run.clips._asdict())


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
    folder = resolve(path)
    return folder if (folder / "config.json").is_file() else find_run_export(folder) / TRANSFORMER


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
    clips = clip_format(config.data, trainer.train_set)
    parts = ExportParts(trainer.objective.student.config, weights, trainer.codec, clips, trainer.config_yaml)
    baseline = export_baseline(config, trainer.train_set, trainer.codec, clips)
    return write_export(run_dir(config), parts, baseline, card_facts(config, run_dir(config), trainer.step))


def export_checkpoint(
    run: Path, folder: Path | None, out: Path | None = None, *, name: str | None = None, license: str | None = None
) -> Path:
    """Write `run`/export, or `out`/export, from a checkpoint of the run; None: from its newest one.

    name, license: what the export and its model card say; None: what the run's config says.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, damaged, not this run's, or an empty name or licence.
    """
    if folder is None:
        saved = list_checkpoints(run)
        if not saved:
            raise FileNotFoundError(f"{run} holds no checkpoints.")
        folder = saved[-1]
    if folder.resolve().parent.parent != run.resolve():
        raise ValueError(f"{folder} is no checkpoint of {run}; an export belongs to the run that it is of.")
    tensors, state, _ = load_checkpoint(folder)
    config = load_config(RunConfig, folder / CONFIG_FILE)
    for key, text in {"name": name, "license": license}.items():
        if text is not None and not text.strip():
            raise ValueError(f"{key}: an empty one says nothing.")
    config = replace(
        config, name=config.name if name is None else name, license=config.license if license is None else license
    )
    codec = build_codec(config.codec)
    data_set = build_data_set(config.data)
    clips = clip_format(config.data, data_set)
    baseline = export_baseline(config, data_set, codec, clips)
    parts = ExportParts(baseline.student.config, tensors["ema"], codec, clips, config_to_yaml(config))
    return write_export(run if out is None else out, parts, baseline, card_facts(config, run, state["step"]))


def export_baseline(config: RunConfig, data_set: ClipSet, codec: Codec, clips: ClipFormat) -> Baseline:
    """What an export has to cost: the student that this config gives without foresight, on the meta device."""
    with torch.device("meta"):
        student = build_objective(replace(config, foresight=None), codec.latent_channels, teacher_width=0).student
    context_tokens = 0 if config.model.text_dim is None else latent_shape(data_set, codec).context_tokens
    settings = None if config.objective.kind == "bidirectional" else config.rollout
    height, width = clips.height // codec.spatial_factor, clips.width // codec.spatial_factor
    return Baseline(student, settings, height, width, context_tokens)


def clip_format(config: DataConfig, data_set: ClipSet) -> ClipFormat:
    """Of the videos behind a data set; latents know the size of theirs, for the others the config says it."""
    sized = {"video_folder": config.video_folder, "scenes": config.scenes}.get(config.kind, data_set)
    assert isinstance(sized, VideoFolderConfig | ScenesConfig | LatentShards)
    return ClipFormat(sized.height, sized.width, data_set.fps)
