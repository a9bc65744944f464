"""What the model card of an export says about its run: the config in words, how it was started, its metrics."""

from pathlib import Path

from video_mirai.config import DataConfig, RunConfig
from video_mirai.export_folder import CODEC, CONFIG_FILE, TRANSFORMER
from video_mirai.training.model_card import CardFacts
from video_mirai.training.tracking import METRICS_FILE, read_metrics, read_starts


def card_facts(config: RunConfig, run: Path, step: int) -> CardFacts:
    """What the model card of an export says, besides its cost."""
    model, objective = config.model, config.objective
    facts = {
        "Weights": f"moving average of the student, a diffusers `CausalVideoDiT` in `{TRANSFORMER}/`",
        "Size": f"{model.num_layers} layers of {model.num_attention_heads} x {model.attention_head_dim}",
        "Objective": f"{objective.kind}, chunks of {objective.chunk_frames} latent frames",
        "Foresight": _foresight_in_words(config),
        "Data": _data_in_words(config.data),
        "Codec": f"{config.codec.kind}, in `{CODEC}/`",
        "Batch": f"{config.train.batch_size} clips a step",
        "Seed": f"{config.seed}; every stream of random numbers derives from it",
        "Every setting": f"`{CONFIG_FILE}`",
    }
    metrics = [line for line in read_metrics(run) if line["step"] <= step] if (run / METRICS_FILE).is_file() else []
    is_causal = objective.kind != "bidirectional"
    return CardFacts(config.name, config.license, is_causal, step, facts, read_starts(run), metrics)


def _data_in_words(config: DataConfig) -> str:
    chosen = {"video_folder": config.video_folder, "latent_shards": config.latent_shards}.get(config.kind)
    if chosen is None:
        assert config.scenes is not None
        return f"synthetic scenes of {config.scenes.num_sprites} sprites, clips of {config.scenes.num_frames} frames"
    return (
        f"{config.kind} `{chosen.root}`, split {chosen.split} (seed {chosen.seed}), clips of {chosen.num_frames} frames"
    )


def _foresight_in_words(config: RunConfig) -> str:
    if config.foresight is None:
        return "none"
    foresight = config.foresight
    teacher = foresight.teacher
    source = f"{'untrained ' if teacher.untrained else ''}{teacher.kind} {teacher.checkpoint}".rstrip()
    future = ", shuffled future" if foresight.shuffle_future else ""
    return (
        f"weight {foresight.weight}, window {foresight.window} ({foresight.fuse}), student layers "
        f"{foresight.student_layers}, teacher {source} at layer {teacher.layer:g}{future}; predictor and teacher not "
        f"included"
    )
