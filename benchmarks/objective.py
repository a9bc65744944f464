"""What foresight costs: the trainer's own optimiser step, with and without teacher and predictor."""

from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from benchmarks.measure import Findings, ratios, take_turns, timed
from benchmarks.sizes import RunSize, Sizes
from video_mirai.build import build_foresight, build_objective, student_settings
from video_mirai.config import RunConfig, load_config
from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.loader import collate_clips
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import build_codec
from video_mirai.training import estimate
from video_mirai.training.trainer import Trainer, start_accelerator

GROUP = "Foresight"
PLAIN, FORESIGHT = "training step without foresight", "training step with foresight"
RATIO_AT_MOST = 1.4
ROOT = Path(__file__).resolve().parents[1]


class RandomLatents:
    """As many clips of random latents as a batch takes."""

    fps = 10.0

    def __init__(self, config: RunConfig, size: RunSize) -> None:
        shape = (num_frames(config), size.channels, size.latent_size, size.latent_size)
        self._clips = torch.randn(config.train.batch_size, *shape)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, key: int | ClipKey) -> VideoSample:
        index = key.index if isinstance(key, ClipKey) else key
        return VideoSample(latents=self._clips[index], name=f"random {index}", index=index)


def measure_foresight(sizes: Sizes, device: torch.device, work_dir: Path, *, compiled: bool) -> Findings:
    """Seconds of Trainer.train_step: teacher, forward, backward, clipping, optimisers, moving average."""
    teacher = write_teacher(sizes.run, work_dir / "teacher")
    config = read_config(sizes.run, f"train.compile={compiled}", teacher)
    accelerator = start_accelerator(config.train, work_dir)
    if accelerator.device.type != device.type:
        raise ValueError(
            f"Accelerate runs on {accelerator.device}, not on {device}; for a CPU set ACCELERATE_USE_CPU=1."
        )
    plain = read_config(sizes.run, f"train.compile={compiled}", "foresight=null")
    trainers = {
        PLAIN: make_trainer(plain, sizes.run, accelerator, work_dir),
        FORESIGHT: make_trainer(config, sizes.run, accelerator, work_dir),
    }
    clips = trainers[PLAIN].train_set
    batch = collate_clips([clips[index] for index in range(len(clips))])
    steps = {name: timed(partial(trainer.train_step, batch), device) for name, trainer in trainers.items()}
    turns = take_turns(steps, sizes.repetitions, sizes.warmup, "foresight")
    findings = Findings()
    suffix = ", compiled" if compiled else ""
    for name, seconds in turns.items():
        findings.add(GROUP, f"{name}{suffix}", seconds, "s")
    ratio = ratios(turns[FORESIGHT], turns[PLAIN])
    findings.add(GROUP, f"with foresight / without{suffix}", ratio, "x", at_most=RATIO_AT_MOST)
    if not compiled:
        findings.add(GROUP, "with foresight / without, counted FLOPs", [_flops_ratio(trainers, sizes.run)], "x")
    findings.series |= {f"{name}{suffix}": seconds for name, seconds in turns.items()}
    return findings


def read_config(size: RunSize, *overrides: str) -> RunConfig:
    """The run's config, for a single process that starts from random weights and writes nothing."""
    fixed = ["train.tracker=none", "train.gradient_accumulation=1", "model.init_from=null"]
    return load_config(RunConfig, ROOT / size.config, fixed + list(overrides))


def make_model(config: RunConfig, size: RunSize) -> CausalVideoDiT:
    """The run's student with random weights."""
    return CausalVideoDiT(**student_settings(config.model, size.channels))


def make_trainer(config: RunConfig, size: RunSize, accelerator: Accelerator, work_dir: Path) -> Trainer:
    """The run's trainer on random latents, with a teacher of random weights if the config has foresight."""
    codec = build_codec(config.codec)
    with torch.device("meta"):
        student = make_model(config, size)
    source, teacher_width = None, 0
    if config.foresight is not None:
        generator = torch.Generator(accelerator.device).manual_seed(1)
        source = build_foresight(config, student, codec, generator)
        teacher_width = source.teacher.feature_dim
    return Trainer(
        build_objective(config, size.channels, teacher_width),
        config.train,
        accelerator=accelerator,
        codec=codec.to(accelerator.device),
        train_set=RandomLatents(config, size),
        run_dir=work_dir,
        seed=config.seed,
        generators={"noise": torch.Generator(accelerator.device).manual_seed(0)},
        config_yaml="",
        foresight=source,
    )


def write_teacher(size: RunSize, folder: Path) -> str:
    """The override that names a random teacher of the student's architecture in `folder`.

    It is loaded as a run's teacher is, which decides its precision.
    """
    make_model(read_config(size), size).save_pretrained(folder / "transformer")
    return f"foresight.teacher.checkpoint={folder / 'transformer'}"


def num_frames(config: RunConfig) -> int:
    """Latent frames of a training clip; random latents have no codec that would shorten it."""
    blocks = {
        "video_folder": config.data.video_folder,
        "scenes": config.data.scenes,
        "latent_shards": config.data.latent_shards,
    }
    block = blocks[config.data.kind]
    assert block is not None
    return block.num_frames


def _flops_ratio(trainers: dict[str, Trainer], size: RunSize) -> float:
    """What training.estimate says of the same two steps."""
    flops = {}
    for name, trainer in trainers.items():
        student = trainer.objective.student
        tokens = student.tokens_per_frame(size.latent_size, size.latent_size)
        clip = estimate.ClipSize(trainer.train_set[0]["latents"].shape[0], tokens, 0)
        teacher = trainer.foresight.teacher if trainer.foresight is not None else None
        flops[name] = estimate.estimate_step(
            trainer.objective, teacher, trainer.codec, trainer.config, clip, num_processes=1
        ).flops
    return flops[FORESIGHT] / flops[PLAIN]
