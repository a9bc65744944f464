"""What foresight costs: the trainer's own optimiser step, with and without teacher and predictor."""

from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from benchmarks.measure import Findings, ratios, take_turns, timed
from benchmarks.sizes import ClipSize, Sizes
from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.loader import collate_clips
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import PixelsCodec
from video_mirai.models.predictor import ForesightPredictor
from video_mirai.models.teachers import DiTTeacher, TeacherConfig
from video_mirai.objectives.flow_matching import Objective, ObjectiveConfig
from video_mirai.objectives.foresight import ForesightConfig, ForesightSource
from video_mirai.training import estimate
from video_mirai.training.optimizers import OptimizerConfig
from video_mirai.training.trainer import TrainConfig, Trainer, start_accelerator

GROUP = "Foresight"
PLAIN, FORESIGHT = "teacher forcing", "teacher forcing with foresight"
HISTORY_SIGMA_MAX = 0.1
TEACHER_SIGMA = 0.1
RATIO_AT_MOST = 1.4


class RandomLatents:
    """A set of clips of random latents."""

    fps = 10.0

    def __init__(self, size: ClipSize) -> None:
        shape = (size.batch, size.frames, size.channels, size.latent_size, size.latent_size)
        self._clips = torch.randn(shape)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, key: int | ClipKey) -> VideoSample:
        index = key.index if isinstance(key, ClipKey) else key
        return VideoSample(latents=self._clips[index], name=f"random {index}", index=index)


def measure_foresight(sizes: Sizes, device: torch.device, work_dir: Path, *, compiled: bool) -> Findings:
    """Seconds of Trainer.train_step: teacher, forward, backward, clipping, Muon and AdamW, moving average."""
    config = TrainConfig(
        batch_size=sizes.clip.batch, tracker="none", compile=compiled, optimizer=OptimizerConfig(kind="muon")
    )
    accelerator = start_accelerator(config, work_dir)
    if accelerator.device.type != device.type:
        raise ValueError(
            f"Accelerate runs on {accelerator.device}, not on {device}; for a CPU set ACCELERATE_USE_CPU=1."
        )
    trainers = {
        PLAIN: make_trainer(sizes.clip, config, accelerator, work_dir, with_foresight=False),
        FORESIGHT: make_trainer(sizes.clip, config, accelerator, work_dir, with_foresight=True),
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
        findings.add(GROUP, "with foresight / without, counted FLOPs", [_flops_ratio(trainers, sizes.clip)], "x")
    findings.series |= {f"{name}{suffix}": seconds for name, seconds in turns.items()}
    return findings


def make_model(size: ClipSize) -> CausalVideoDiT:
    """The demo's architecture with random weights; no text."""
    return CausalVideoDiT(
        patch_size=(1, 1, 1),
        num_attention_heads=size.width // size.head_dim,
        attention_head_dim=size.head_dim,
        in_channels=size.channels,
        out_channels=size.channels,
        text_dim=None,
        ffn_dim=4 * size.width,
        num_layers=size.num_layers,
        prediction_type="data",
        attention_backend="matmul",
    )


def make_trainer(
    size: ClipSize, config: TrainConfig, accelerator: Accelerator, work_dir: Path, *, with_foresight: bool
) -> Trainer:
    """A trainer that differs in foresight alone."""
    torch.manual_seed(0)
    student = make_model(size)
    settings, predictor, source = None, None, None
    if with_foresight:
        teacher_config = TeacherConfig(layer=size.teacher_layer, sigma=TEACHER_SIGMA)
        settings = ForesightConfig(
            student_layer=size.student_layer, predictor_blocks=size.predictor_blocks, teacher=teacher_config
        )
        # Loaded like a run's teacher (build.build_foresight): frozen, in the precision of the forward pass.
        make_model(size).save_pretrained(work_dir / "teacher")
        frozen = CausalVideoDiT.from_pretrained(work_dir / "teacher", torch_dtype=torch.bfloat16)
        frozen.to(accelerator.device)
        generator = torch.Generator(accelerator.device).manual_seed(1)
        teacher = DiTTeacher(frozen, teacher_config.layer, teacher_config.sigma, generator)
        source = ForesightSource(teacher, tuple(settings.window), chunk_frames=1)
        heads = size.width // size.head_dim
        predictor = ForesightPredictor(size.width, teacher.feature_dim, heads, settings.predictor_blocks)
    objective_config = ObjectiveConfig(
        kind="teacher_forcing", loss_weighting="data", history_sigma_max=HISTORY_SIGMA_MAX
    )
    return Trainer(
        Objective(student, objective_config, predictor, settings),
        config,
        accelerator=accelerator,
        codec=PixelsCodec(),
        train_set=RandomLatents(size),
        run_dir=work_dir,
        seed=0,
        generators={"noise": torch.Generator(accelerator.device).manual_seed(0)},
        config_yaml="",
        foresight=source,
    )


def _flops_ratio(trainers: dict[str, Trainer], size: ClipSize) -> float:
    """What training.estimate says of the same two steps."""
    clip = estimate.ClipSize(size.frames, size.latent_size**2, 0)
    flops = {}
    for name, trainer in trainers.items():
        teacher = make_model(size) if trainer.foresight is not None else None
        flops[name] = estimate.estimate_step(
            trainer.objective, teacher, trainer.codec, trainer.config, clip, num_processes=1
        ).flops
    return flops[FORESIGHT] / flops[PLAIN]
