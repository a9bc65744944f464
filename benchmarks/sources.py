"""What each source of foresight costs: its training step beside the plain one, and inference, which stays the same."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator

from benchmarks.measure import Findings, ratios, take_turns, timed
from benchmarks.objective import GROUP, make_model, make_trainer, num_frames, read_config, write_teacher
from benchmarks.sizes import RunSize, Sizes
from video_mirai.build import build_objective, teacher_origin
from video_mirai.config import RunConfig, config_to_yaml
from video_mirai.data.loader import collate_clips
from video_mirai.models.codecs import build_codec
from video_mirai.training.estimate import ClipSize, estimate_step, rollout_cost
from video_mirai.training.teacher_sources import Placing, build_teacher
from video_mirai.training.trainer import Trainer, start_accelerator

PLAIN = "none"
AVERAGE = (
    "foresight.teacher.kind=ema",
    "foresight.teacher.checkpoint=''",
    "foresight.teacher.sigma=0",
    "foresight.fuse=heads",
    "foresight.window=[1,2]",
    "foresight.neighbours=4",
)


def measure_sources(sizes: Sizes, device: torch.device, work_dir: Path) -> Findings:
    """Seconds of Trainer.train_step with every source, beside none of the same turn; encoders on fewer clips."""
    findings = Findings()
    accelerator = start_accelerator(read_config(sizes.run).train, work_dir)
    teacher = write_teacher(sizes.run, work_dir / "source_teacher")
    latent_sources = {
        "non-causal DiT": (teacher,),
        "causal DiT": (
            write_causal_teacher(sizes.run, work_dir / "causal_teacher"),
            "foresight.teacher.kind=causal_dit",
        ),
        "moving average, 6 heads": AVERAGE,
        "non-causal DiT, shuffled future": (teacher, "foresight.shuffle_future=true"),
    }
    trainers = _make_trainers(sizes.run, latent_sources, accelerator, work_dir)
    _add_rows(findings, trainers, device, sizes.repetitions, sizes.warmup)
    _add_counts(findings, sizes.run, latent_sources)

    clips = sizes.sources.encoder_batch
    encoders = {f"{name}, {clips} clips": settings for name, settings in _encoders(sizes, work_dir).items()}
    fewer = f"train.batch_size={clips}"
    if encoders:
        trainers |= (of_encoders := _make_trainers(sizes.run, encoders, accelerator, work_dir, fewer))
        _add_rows(findings, of_encoders, device, sizes.sources.encoder_repetitions, sizes.warmup)
        _add_counts(findings, sizes.run, encoders)
    for what, found in _inference(trainers, sizes.run).items():
        findings.add(GROUP, f"{what} at inference, any source / none", found, "x", at_most=1.0, at_least=1.0)
    return findings


def write_causal_teacher(size: RunSize, folder: Path) -> str:
    """As `write_teacher`, with the run.yaml that says that it was trained causally."""
    override = write_teacher(size, folder)
    (folder / "run.yaml").write_text(config_to_yaml(read_config(size, "objective.kind=diffusion_forcing")))
    return override


def _make_trainers(
    size: RunSize, sources: dict[str, tuple[str, ...]], accelerator: Accelerator, work_dir: Path, *overrides: str
) -> dict[str, Trainer]:
    """By source; first that of none."""
    settings = {PLAIN: ("foresight=null",)} | sources
    return {
        name: make_trainer(read_config(size, *overrides, *lines), size, accelerator, work_dir)
        for name, lines in settings.items()
    }


def _add_rows(
    findings: Findings, trainers: dict[str, Trainer], device: torch.device, repetitions: int, warmup: int
) -> None:
    clips = trainers[PLAIN].train_set
    batch = collate_clips([clips[index] for index in range(len(clips))])
    steps = {name: timed(partial(trainer.train_step, batch), device) for name, trainer in trainers.items()}
    turns = take_turns(steps, repetitions, warmup, "sources")
    for name, seconds in turns.items():
        if name != PLAIN:
            findings.add(GROUP, f"source {name} / none", ratios(seconds, turns[PLAIN]), "x")
            findings.series[f"training step, source {name}"] = seconds


def _add_counts(findings: Findings, size: RunSize, sources: dict[str, tuple[str, ...]]) -> None:
    """What training.estimate says of the same steps; the codec, which encoders need to see pixels, is not counted."""
    plain = _counted_flops(read_config(size, "foresight=null"), size)
    for name, settings in sources.items():
        ratio = _counted_flops(read_config(size, *settings), size) / plain
        findings.add(GROUP, f"source {name} / none, counted FLOPs", [ratio], "x")


def _counted_flops(config: RunConfig, size: RunSize) -> float:
    codec, teacher, meta = build_codec(config.codec), None, torch.device("meta")
    with meta:
        student = make_model(config, size)
    if config.foresight is not None:
        teacher = build_teacher(teacher_origin(config, student, codec), Placing(meta, torch.float32, None))
    with meta:
        objective = build_objective(config, size.channels, 0 if teacher is None else teacher.feature_dim)
    clip = ClipSize(num_frames(config), student.tokens_per_frame(size.latent_size, size.latent_size), 0)
    return estimate_step(objective, teacher, codec, config.train, clip, num_processes=1).flops


def _encoders(sizes: Sizes, work_dir: Path) -> dict[str, tuple[str, ...]]:
    """{family: settings}, each an untrained network of its architecture; none without transformers (extra hf)."""
    if find_spec("transformers") is None:
        return {}
    from transformers import AutoConfig

    settings: dict[str, tuple[str, ...]] = {}
    image_sizes = dict(sizes.sources.encoder_image_sizes)
    for family, differences in sizes.sources.encoders:
        AutoConfig.for_model(family, **differences).save_pretrained(work_dir / family)
        settings[family] = (
            "foresight.teacher.kind=encoder",
            f"foresight.teacher.checkpoint={work_dir / family}",
            "foresight.teacher.untrained=true",
            "foresight.teacher.layer=0.75",
            "foresight.teacher.sigma=0",
            f"foresight.teacher.image_size={image_sizes.get(family, 'null')}",
        )
    return settings


def _inference(trainers: dict[str, Trainer], size: RunSize) -> dict[str, list[float]]:
    """What every source's model costs, relative to none: numbers exported, FLOPs of a frame, bytes of cache."""
    shapes = {
        name: {key: value.shape for key, value in trainer.ema_state().items()} for name, trainer in trainers.items()
    }
    for name, found in shapes.items():
        if found != shapes[PLAIN]:
            raise ValueError(f"source {name}: the exported model is not the one without foresight.")
    settings = read_config(size).rollout
    costs = {}
    for name, trainer in trainers.items():
        student = trainer.objective.student
        tokens = student.tokens_per_frame(size.latent_size, size.latent_size)
        costs[name] = rollout_cost(student, settings, tokens, context_tokens=0)
    counts = {name: sum(shape.numel() for shape in found.values()) for name, found in shapes.items()}
    return {
        "parameters": [count / counts[PLAIN] for count in counts.values()],
        "counted FLOPs of a frame": [cost.flops_per_frame / costs[PLAIN].flops_per_frame for cost in costs.values()],
        "computed bytes of the KV cache": [cost.cache_bytes / costs[PLAIN].cache_bytes for cost in costs.values()],
    }
