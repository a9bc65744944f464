"""The whole of video_mirai on one machine: record, encode, train with and without foresight, roll out, evaluate."""

import argparse
import json
import shutil
from pathlib import Path

from _cli import make_parser, run_script
from _stages import ROOT, Stage, launched, run_stages

CHECKPOINTS = Path("assets/checkpoints")
MIN_CLIPS = 40  # per scenario; fewer leave too few held-out videos for configs/eval/doom.yaml
ASSETS_SEED = 0  # scripts/make_assets.py's
CODEC, TEACHER, CAUSAL = "doom_codec", "doom_teacher", "doom_causal"


def main() -> None:
    """Parse, say what will happen, run the stages."""
    options = parse_options()
    check_options(options)
    if options.fresh and options.out.exists():
        shutil.rmtree(options.out)
    remember_options(options)
    if options.from_scratch:
        print("Demo from scratch: codec, teacher and both students start from random weights.")
        stages = scratch_stages(options)
    else:
        check_assets()
        print(
            f"Demo: fine-tunes the small checkpoints that ship in {CHECKPOINTS}/, with and without foresight, on video"
        )
        print("that it records now. --from-scratch uses none of them: the longer road.")
        stages = warm_stages(options)
    minutes = run_stages(stages)
    print(f"\nDone, {minutes:.1f} minutes of work. Open the report: {options.out / 'report' / 'report.html'}")


def parse_options() -> argparse.Namespace:
    parser = make_parser(
        "Records Doom clips, fine-tunes a causal video model with and without foresight, rolls both out far\n"
        "beyond the training length and writes a report. Finished stages are skipped when it runs again.",
        "./scripts/demo.sh",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: runs/demo, with --from-scratch runs/demo_scratch"
    )
    parser.add_argument("--from-scratch", action="store_true", help="use no shipped checkpoint")
    parser.add_argument("--fresh", action="store_true", help="first delete what an earlier run left in DIR")
    parser.add_argument(
        "--clips", type=int, default=MIN_CLIPS, help="videos recorded per scenario (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, help="training steps of each student (default: the config's)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of recording, training and rollouts (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.out is None:
        options.out = Path("runs/demo_scratch" if options.from_scratch else "runs/demo")
    return options


def check_options(options: argparse.Namespace) -> None:
    """ValueError for options whose evaluation would fail, or flatter."""
    if options.clips < MIN_CLIPS:
        raise ValueError(
            f"--clips {options.clips} leaves too few held-out videos to evaluate on; give at least {MIN_CLIPS}."
        )
    if options.seed == ASSETS_SEED and not options.from_scratch:
        raise ValueError(
            f"--seed {ASSETS_SEED} records the very videos that the shipped checkpoints were trained on; take another."
        )


def remember_options(options: argparse.Namespace) -> None:
    """Write down what DIR is made with; ValueError when it was begun with something else.

    Finished stages are skipped by what lies in DIR, so another recipe there would show the first one's results.
    """
    chosen = {name: getattr(options, name) for name in ("from_scratch", "clips", "steps", "seed")}
    note = options.out / "demo.json"
    if note.is_file() and (found := json.loads(note.read_text())) != chosen:
        different = ", ".join(f"{name}={found.get(name)}" for name in chosen if found.get(name) != chosen[name])
        raise ValueError(f"{options.out} was made with {different}; choose another --out, or start anew with --fresh.")
    options.out.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(chosen) + "\n")


def check_assets() -> None:
    """FileNotFoundError when a shipped checkpoint is not there."""
    missing = [name for name in (CODEC, TEACHER, CAUSAL) if not (ROOT / CHECKPOINTS / name).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{CHECKPOINTS}/ lacks {', '.join(missing)}; restore them with git, or use --from-scratch."
        )


def warm_stages(options: argparse.Namespace) -> list[Stage]:
    """From the shipped codec, teacher and causal model."""
    codec = CHECKPOINTS / CODEC
    return [
        record(options),
        encode(options, codec),
        train(options, codec, "baseline", "Fine-tune the causal student", "doom_finetune"),
        train(options, codec, "foresight", "Fine-tune the same student with foresight", "doom_finetune_foresight"),
        evaluate(options),
    ]


def scratch_stages(options: argparse.Namespace) -> list[Stage]:
    """Everything from random weights."""
    codec = options.out / "codec"
    teacher = f"foresight.teacher.checkpoint={options.out / 'teacher'}"
    return [
        record(options),
        train_codec(options, codec),
        encode(options, codec),
        train(options, codec, "teacher", "Train the non-causal teacher", "doom_scratch_teacher"),
        train(options, codec, "baseline", "Train the causal student", "doom_scratch"),
        train(options, codec, "foresight", "Train the student with foresight", "doom_scratch_foresight", teacher),
        evaluate(options),
    ]


def record(options: argparse.Namespace) -> Stage:
    videos = options.out / "videos"
    command = ("data_tools/record_doom.py", "--out", videos, "--clips", options.clips, "--seed", options.seed)
    return Stage("Record Doom videos", as_words(command), videos / "dataset.json")


def train_codec(options: argparse.Namespace, codec: Path) -> Stage:
    videos = options.out / "videos"
    command = ("scripts/train_codec.py", "--config", "configs/codec/doom64_quick.yaml", f"data.root={videos}")
    return Stage("Train the codec", as_words((*command, f"output_dir={codec}")), codec / "config.json")


def encode(options: argparse.Namespace, codec: Path) -> Stage:
    videos, latents = options.out / "videos", options.out / "latents"
    command = ("data_tools/encode_latents.py", "--videos", videos, "--codec", codec, "--out", latents)
    return Stage("Encode the videos", as_words(command), None)


def train(options: argparse.Namespace, codec: Path, name: str, title: str, config: str, *overrides: str) -> Stage:
    steps = () if options.steps is None else (f"train.num_steps={options.steps}",)
    return launched(
        title,
        options.out / name / "export",
        "scripts/train_video.py",
        f"--config=configs/train/{config}.yaml",
        f"name={name}",
        f"output_dir={options.out}",
        f"data.latent_shards.root={options.out / 'latents'}",
        f"codec.path={codec}",
        f"seed={options.seed}",
        *steps,
        *overrides,
    )


def evaluate(options: argparse.Namespace) -> Stage:
    report = options.out / "report"
    return launched(
        "Roll out and evaluate",
        report / "report.html",
        "scripts/evaluate.py",
        "--config=configs/eval/doom.yaml",
        f"data.video_folder.root={options.out / 'videos'}",
        f"models.baseline={options.out / 'baseline'}",
        f"models.foresight={options.out / 'foresight'}",
        f"seed={options.seed}",
        f"out={report}",
    )


def as_words(command: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(map(str, command))


if __name__ == "__main__":
    run_script(main)
