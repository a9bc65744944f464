"""The README.md of an export: what the Hub reads, and what a person wants to know about a model."""

from typing import NamedTuple

from huggingface_hub import ModelCardData

from video_mirai.training.tracking import Start

TAGS = ["video-generation", "autoregressive", "causal", "video_mirai"]
MAIN_METRICS = ("validation/loss", "validation/data_loss", "validation/rollout_psnr", "validation/copy_last_psnr")


class CardFacts(NamedTuple):
    """What a run knows about itself.

    facts: {what: its description}, in order.
    starts: every start and resume of the training.
    metrics: logged lines of the run, up to the exported step.
    """

    name: str
    license: str
    is_causal: bool
    step: int
    facts: dict[str, str]
    starts: list[Start]
    metrics: list[dict[str, float]]


def render_card(card: CardFacts, proof: list[str]) -> str:
    """Markdown with YAML in front; proof: the lines of `prove_export`."""
    kind = "causal video model" if card.is_causal else "bidirectional teacher (it sees the future: not for rollouts)"
    data = ModelCardData(
        license=card.license,
        library_name="diffusers",
        pipeline_tag="image-to-video" if card.is_causal else None,
        tags=TAGS if card.is_causal else [tag for tag in TAGS if tag not in ("autoregressive", "causal")],
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {card.name}",
        f"A {kind}, trained by video_mirai for {card.step} steps.",
        "\n".join(f"- {what}: {text}" for what, text in card.facts.items()),
        "## Use",
        _usage(card.is_causal),
        "## Commands",
        _commands(card.starts),
        "## Metrics",
        _metrics(card),
        "## Cost",
        "Read off the exported files, and compared with the same student built without foresight:",
        "\n".join(f"- {line}" for line in proof),
    ]
    return "\n\n".join(sections) + "\n"


def _usage(is_causal: bool) -> str:
    load = "from video_mirai.build import load_run\n\nrun = load_run(FOLDER)  # model, codec, settings, config"
    if not is_causal:
        return f"```python\n{load}\n```"
    pipeline = (
        "from diffusers.utils import export_to_video\n"
        "from video_mirai.pipeline import VideoMiraiPipeline\n\n"
        "pipe = VideoMiraiPipeline.from_pretrained(FOLDER)\n"
        "frames = pipe(history, num_frames=48, seed=0).frames[0]  # history: PIL images, an array, or None\n"
        'export_to_video(frames, "long.mp4", fps=round(pipe.fps))'
    )
    return (
        f"```python\n{pipeline}\n```\n\nor, for everything of the run (not from the Hub),\n\n```python\n{load}\n```\n\n"
        f"or `python scripts/rollout.py --checkpoint FOLDER --history clip.mp4 --frames 600 --out long.mp4`."
    )


def _commands(starts: list[Start]) -> str:
    if not starts:
        return "Not recorded."
    lines = [
        f"- from step {start.step}, {start.processes} process{'es' if start.processes > 1 else ''}, "
        f"video_mirai {start.video_mirai}, torch {start.torch}: `{start.command}`"
        for start in starts
    ]
    return "\n".join(lines)


def _metrics(card: CardFacts) -> str:
    rows = [line for line in card.metrics if "validation/loss" in line]
    if not rows:
        return "No validation was run."
    last, best = rows[-1], min(rows, key=lambda line: line["validation/loss"])
    names = [name for name in MAIN_METRICS if name in last]
    table = [
        f"| averaged weights, held-out clips | last (step {last['step']}) | best loss (step {best['step']}) |",
        "|---|---|---|",
        *(f"| {name} | {last[name]:.4g} | {best[name]:.4g} |" for name in names),
    ]
    return "\n".join(table)
