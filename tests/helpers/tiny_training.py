"""A run that trains in milliseconds: two small layers, 8-frame scenes of 16 x 16 pixels."""

from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from video_mirai import build
from video_mirai.config import RunConfig, load_config
from video_mirai.training.trainer import Trainer, start_accelerator

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = REPOSITORY / "configs" / "train" / "scenes_tiny.yaml"
TINY_FORESIGHT = REPOSITORY / "configs" / "train" / "scenes_tiny_foresight.yaml"


def tiny_config(output_dir: Path, *overrides: str, base: Path = TINY) -> RunConfig:
    """scenes_tiny without validation, tracker and regular checkpoints."""
    quiet = [
        f"output_dir={output_dir}",
        "train.batch_size=4",
        "train.num_steps=6",
        "train.log_every=1",
        "train.tracker=none",
        "train.checkpoint_every=0",
        "validation.every_steps=0",
    ]
    return load_config(RunConfig, base, quiet + list(overrides))


def make_trainer(config: RunConfig) -> Trainer:
    """A fresh trainer, as in a new process."""
    forget_accelerator()
    accelerator = start_accelerator(config.train, build.run_dir(config))
    build.run_dir(config).mkdir(parents=True, exist_ok=True)
    return build.build_trainer(config, build.plan_run(config, accelerator.device), accelerator)


def forget_accelerator() -> None:
    """Accelerate keeps its settings in class attributes; another precision needs them gone."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


def next_batches(trainer: Trainer, count: int) -> list:
    """The first batches that the trainer would see."""
    with trainer._batches() as batches:
        return [next(batches) for _ in range(count)]


def student_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies."""
    return {name: value.clone() for name, value in trainer.objective.student.state_dict().items()}


def assert_same_tensors(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Equal names and equal bits."""
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, f"{len(different)} of {len(left)} differ, first {different[:3]}"
