"""The whole of video_mirai on one machine: record, encode, train with and without foresight, roll out, evaluate."""

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from _cli import make_parser, run_script

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "assets" / "checkpoints"
CODEC, TEACHER, CAUSAL = "doom_codec", "doom_teacher", "doom_causal"
LAUNCH = ["-m", "accelerate.commands.launch", "--num_processes=1", "--num_machines=1", "--mixed_precision=no"]


class Stage(NamedTuple):
    """One command, and the file that it leaves behind when it is done."""

    title: str
    command: list[str]
    done: Path


def main() -> None:
    options = parse_options()
    out = Path(options.out)
    if options.fresh and out.exists():
        shutil.rmtree(out)
    warm = not options.from_scratch
    if warm:
        check_assets()
        print(f"Demo: fine-tunes the small checkpoints that ship under {ASSETS.relative_to(ROOT)}/, with and without")
        print("foresight, on video that it records now. --from-scratch trains codec and teacher too.\n")
    else:
        print("Demo from scratch: no shipped checkpoint is used; codec, teacher and both students start from noise.\n")
    stages = list(warm_stages(out, options) if warm else scratch_stages(out, options))
    minutes = [run_stage(number, len(stages), stage) for number, stage in enumerate(stages, 1)]
    print(f"\nDone in {sum(minutes):.1f} minutes. Look at the report: {out / 'report' / 'report.html'}")


def parse_options() -> argparse.Namespace:
    parser = make_parser(
        "Records Doom clips, fine-tunes a causal video model with and without foresight, rolls both out far beyond "
        "the training length, and writes a report. Finished stages are skipped when it is run again.",
        "./scripts/demo.sh",
    )
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="where everything goes (default: %(default)s)")
    parser.add_argument("--from-scratch", action="store_true", help="use no shipped checkpoint: the longer road")
    parser.add_argument("--fresh", action="store_true", help="delete what an earlier run left in DIR first")
    parser.add_argument("--clips", type=int, default=30, help="videos recorded per scenario (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=None, help="training steps of each student")
    parser.add_argument("--seed", type=int, default=1, help="of the recording and of both trainings")
    return parser.parse_args()


def check_assets() -> None:
    missing = [name for name in (CODEC, TEACHER, CAUSAL) if not (ASSETS / name).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"shipped checkpoints are missing: {', '.join(missing)} in {ASSETS}; restore them from git, or use "
            "--from-scratch."
        )


def warm_stages(out: Path, options: argparse.Namespace) -> Iterator[Stage]:
    """From the shipped codec, teacher and causal model."""
    yield record(out, options)
    yield encode(out, ASSETS / CODEC)
    common = run_overrides(out, ASSETS / CODEC, options)
    config = "configs/train/doom_finetune.yaml"
    yield train("baseline", "Train the causal student, without foresight", config, out, common)
    yield train("foresight", "Train the same student with foresight", "configs/train/doom_finetune_foresight.yaml", out, common)
    yield evaluate(out, options)


def scratch_stages(out: Path, options: argparse.Namespace) -> Iterator[Stage]:
    """Everything from random weights."""
    yield record(out, options)
    codec = out / "codec"
    yield script(
        "Train the codec",
        ["scripts/train_codec.py", "--config", "configs/codec/doom64.yaml", f"data.root={out / 'videos'}", f"out={codec}"],
        codec / "config.json",
    )
    yield encode(out, codec)
    common = run_overrides(out, codec, options)
    yield train("teacher", "Train the non-causal teacher", "configs/train/doom_scratch_teacher.yaml", out, common)
    yield train("baseline", "Train the causal student, without foresight", "configs/train/doom_scratch.yaml", out, common)
    foresight = [*common, f"foresight.teacher.checkpoint={out / 'teacher'}"]
    yield train("foresight", "Train the same student with foresight", "configs/train/doom_scratch_foresight.yaml", out, foresight)
    yield evaluate(out, options)


def record(out: Path, options: argparse.Namespace) -> Stage:
    videos = out / "videos"
    command = ["data_tools/record_doom.py", "--out", str(videos), "--clips", str(options.clips), "--seed", str(options.seed)]
    return script("Record Doom videos", command, videos / "dataset.json")


def encode(out: Path, codec: Path) -> Stage:
    latents = out / "latents"
    command = ["data_tools/encode_latents.py", "--videos", str(out / "videos"), "--codec", str(codec), "--out", str(latents)]
    return script("Encode them with the codec", command, latents / "done")


def run_overrides(out: Path, codec: Path, options: argparse.Namespace) -> list[str]:
    overrides = [
        f"output_dir={out}",
        f"data.latent_folder.root={out / 'latents'}",
        f"codec.path={codec}",
        f"seed={options.seed}",
    ]
    return overrides + ([f"train.num_steps={options.steps}"] if options.steps is not None else [])


def train(name: str, title: str, config: str, out: Path, overrides: list[str]) -> Stage:
    command = ["scripts/train_video.py", "--config", config, f"name={name}", *overrides]
    return Stage(title, [*LAUNCH, *command], out / name / "export" / "run.yaml")


def evaluate(out: Path, options: argparse.Namespace) -> Stage:
    report = out / "report"
    command = [
        "scripts/evaluate.py",
        "--config=configs/eval/doom.yaml",
        f"data.video_folder.root={out / 'videos'}",
        f"models.baseline={out / 'baseline'}",
        f"models.foresight={out / 'foresight'}",
        f"seed={options.seed}",
        f"out={report}",
    ]
    return Stage("Roll out and evaluate", [*LAUNCH, *command], report / "report.html")


def script(title: str, command: list[str], done: Path) -> Stage:
    return Stage(title, command, done)


def run_stage(number: int, total: int, stage: Stage) -> float:
    """Run it unless it is done; the minutes it took."""
    print(f"[{number}/{total}] {stage.title}", flush=True)
    if stage.done.exists():
        print(f"      done before: {stage.done} is there.", flush=True)
        return 0.0
    shown = [part for part in stage.command if part not in LAUNCH]
    print(f"      {'accelerate launch' if len(shown) < len(stage.command) else 'python'} {shlex.join(shown)}", flush=True)
    start = time.perf_counter()
    result = subprocess.run([sys.executable, *stage.command], cwd=ROOT, check=False)
    if result.returncode:
        raise OSError(f"stage {number} ({stage.title}) failed with exit code {result.returncode}; see above.")
    return (time.perf_counter() - start) / 60


if __name__ == "__main__":
    run_script(main)
