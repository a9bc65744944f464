"""Train a video model: a causal student, with or without foresight, or a bidirectional teacher."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import add_config_arguments, log_to_stderr, make_parser, run_script

if TYPE_CHECKING:
    from accelerate import Accelerator

    from video_mirai.build import RunPlan
    from video_mirai.config import RunConfig
    from video_mirai.training.trainer import Trainer

DESCRIPTION = """Train a video model: a causal student, with or without foresight, or a bidirectional teacher.

Start it with plain python for one process, or with accelerate launch for any number. Writes RUN = output_dir/name:
metrics.jsonl, tracker/, validation/, checkpoints/, and at the end export/, which rollout and evaluation read."""
EXAMPLE = "accelerate launch scripts/train_video.py --config configs/train/scenes_tiny.yaml train.num_steps=200"


def main() -> None:
    """Parse, plan, train, export."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print config, sizes and costs, and leave")
    arguments = parser.parse_intermixed_args()

    # Below, because these imports take seconds and --help needs none.
    from video_mirai import build
    from video_mirai.config import RunConfig, load_config, save_config
    from video_mirai.training.checkpoint import CheckpointFailed
    from video_mirai.training.tracking import record_start
    from video_mirai.training.trainer import TrainingDiverged, start_accelerator

    config = load_config(RunConfig, arguments.config, arguments.overrides)
    run_dir = build.run_dir(config)
    accelerator = start_accelerator(config.train, run_dir)
    log_to_stderr(is_main_process=accelerator.is_main_process)
    plan = build.plan_run(config, accelerator.device)
    if arguments.dry_run:
        accelerator.print(describe(config, plan, accelerator))
        return
    accelerator.print(describe_processes(accelerator))
    trainer = build.build_trainer(config, plan, accelerator)
    resume(trainer, config.resume, accelerator)
    if accelerator.is_main_process:
        run_dir.mkdir(parents=True, exist_ok=True)
        save_config(config, run_dir / "run.yaml")
        record_start(run_dir, trainer.step, sys.argv, accelerator.num_processes)
    accelerator.wait_for_everyone()
    try:
        finished = trainer.fit(config.train.num_steps)
    except (TrainingDiverged, CheckpointFailed, OSError) as error:
        raise SystemExit(f"error: {last_words(trainer, error)}") from error  # exit code 1
    if not finished:
        accelerator.print(f"stopped by a signal at step {trainer.step}, saved; to go on:\n  {resume_command(sys.argv)}")
        accelerator.end_training()
        return
    folder = build.export_run(config, trainer)
    accelerator.print(f"exported to {folder}")
    accelerator.end_training()


def resume(trainer: "Trainer", wish: str, accelerator: "Accelerator") -> None:
    """Load the checkpoint that `resume` names: "auto" (the newest whole one, if any), "none" or a folder."""
    from video_mirai.training.checkpoint import list_checkpoints

    saved = list_checkpoints(trainer.run_dir)
    if wish == "none" and saved:
        raise ValueError(
            f"{trainer.run_dir} already holds checkpoints up to {saved[-1].name}; go on with resume=auto, "
            f"choose another name=..., or remove the folder."
        )
    if wish == "none" or (wish == "auto" and not saved):
        return
    folder = newest_on_main_process(trainer.run_dir, accelerator) if wish == "auto" else Path(wish)
    later = [checkpoint.name for checkpoint in saved if checkpoint.name > folder.name]
    if wish != "auto" and later and folder.resolve().parent == saved[0].resolve().parent:
        raise ValueError(
            f"{trainer.run_dir} holds later checkpoints ({', '.join(later)}), which resume=auto would go on from "
            f"next time; move them away first, or choose another name=..."
        )
    trainer.load(folder)
    accelerator.print(f"resumed from {folder} at step {trainer.step}")
    for line in changed_since(folder, trainer.config_yaml):
        accelerator.print(f"resuming with a changed setting: {line}")


def newest_on_main_process(run_dir: Path, accelerator: "Accelerator") -> Path:
    """The newest whole checkpoint; one process reads all checksums, the others take its word."""
    import torch
    from accelerate.utils import broadcast

    from video_mirai.training.checkpoint import list_checkpoints, newest_whole_checkpoint

    saved = list_checkpoints(run_dir)
    error, number = None, -1
    if accelerator.is_main_process:
        try:
            number = saved.index(newest_whole_checkpoint(run_dir))
        except ValueError as caught:
            error = caught
    number = int(broadcast(torch.tensor(number, device=accelerator.device)))
    if number < 0:
        raise error if error is not None else ValueError(f"no checkpoint in {run_dir} is whole.")
    return saved[number]


def changed_since(checkpoint: Path, config_yaml: str) -> list[str]:
    """Settings in which a run differs from its checkpoint, but for those that change where and how it is kept."""
    from video_mirai.config import changed_settings

    changes = changed_settings((checkpoint / "run.yaml").read_text(encoding="utf-8"), config_yaml)
    return [line for key, line in changes.items() if key not in ("name", "output_dir", "resume", "license")]


def last_words(trainer: "Trainer", error: Exception) -> str:
    """What went wrong, and from where the run can go on."""
    from video_mirai.training.checkpoint import list_checkpoints

    saved = list_checkpoints(trainer.run_dir)
    kept = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint had been written yet"
    return f"{' '.join(str(error).split()).rstrip('.')}; training stopped at step {trainer.step}, {kept}."


def resume_command(words: list[str]) -> str:
    """The command line that started this run, without a wish to resume from elsewhere."""
    return shlex.join(["python", *(word for word in words if not word.startswith("resume="))])


def describe_processes(accelerator: "Accelerator") -> str:
    """How many processes there really are; on CPUs how many threads, because accelerate launch sets one by default."""
    import torch

    count, kind = accelerator.num_processes, accelerator.distributed_type.value
    line = f"{count} process{'es' if count > 1 else ''} on {accelerator.device.type} (Accelerate: {kind})"
    if accelerator.device.type != "cpu":
        return line
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    line += f", {threads} thread{'s' if threads > 1 else ''} each"
    if count * threads < cores:
        line += f"; this machine has {cores} cores: accelerate launch --num_cpu_threads_per_process={cores // count}"
    return line


def describe(config: "RunConfig", plan: "RunPlan", accelerator: "Accelerator") -> str:
    """The resolved config, and what a step costs."""
    from video_mirai.config import config_to_yaml
    from video_mirai.training.estimate import ClipSize, count_parameters, estimate_step, readable, teacher_parameters

    student, shape = plan.objective.student, plan.shape
    clip = ClipSize(shape.frames, student.tokens_per_frame(shape.height, shape.width), shape.context_tokens)
    step = estimate_step(plan.objective, plan.teacher, plan.codec, config.train, clip, accelerator.num_processes)
    parameters = {
        "student": count_parameters(student),
        "predictor": count_parameters(plan.objective.predictor),
        "teacher": teacher_parameters(plan.teacher),
        "codec": count_parameters(plan.codec),
    }
    lines = [config_to_yaml(config).rstrip(), "---", f"processes          {describe_processes(accelerator)}"]
    lines += [f"{name + ' parameters':<21}{readable(count)}" for name, count in parameters.items()]
    lines += [
        f"latents of a clip    {shape.frames} frames x {shape.channels} x {shape.height} x {shape.width}",
        f"tokens per step      {readable(step.tokens)}",
        f"FLOPs per step       {readable(step.flops)}FLOP (student {readable(step.student_flops)}, "
        f"predictor {readable(step.predictor_flops)}, teacher {readable(step.teacher_flops)}; codec not counted)",
        f"memory per process   {readable(step.state_bytes)}B weights and optimiser, unsharded "
        f"+ about {readable(step.activation_bytes)}B activations",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
