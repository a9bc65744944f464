"""The recipe of the checkpoints that ship under assets/checkpoints: an hour and a half on two cores, resumable."""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from _cli import make_parser, run_script
from _stages import ROOT, Stage, launched, run_stages

if TYPE_CHECKING:
    import torch

SEED = 0
LICENSE = "apache-2.0"
CODEC, TEACHER, CAUSAL = "doom_codec", "doom_teacher", "doom_causal"

STUDY = Path("configs/study/occlusion.yaml")
STUDY_OUT = Path("runs/study/occlusion")
STUDY_SEED = 1
OCCLUSION = {  # shipped name: the study's run
    "occlusion_teacher": "teachers/noncausal",
    "occlusion_baseline": f"runs/baseline/seed{STUDY_SEED}",
    "occlusion_foresight": f"runs/foresight/seed{STUDY_SEED}",
}


def main() -> None:
    """Parse, train what is not trained yet, write the checkpoints in half precision."""
    options = parse_options()
    if options.only != "occlusion":
        make_doom(options.out, options.to)
    if options.only != "doom":
        make_occlusion(options.out, options.to)


def parse_options() -> argparse.Namespace:
    parser = make_parser(
        "doom: records Doom clips with seed 0 and trains, from random weights, the codec, the non-causal teacher and\n"
        "the causal model that ./scripts/demo.sh starts from.\n"
        f"occlusion: teacher, baseline and foresight, seed {STUDY_SEED}, of {STUDY}, trained in {STUDY_OUT}.\n"
        "Finished stages are skipped, interrupted ones resumed.",
        "python scripts/make_assets.py --only occlusion",
    )
    parser.add_argument("--only", choices=("doom", "occlusion"), help="default: both")
    parser.add_argument("--out", type=Path, default=Path("runs/assets"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--to", type=Path, default=Path("assets/checkpoints"), metavar="DIR", help="default: %(default)s"
    )
    return parser.parse_args()


def make_doom(out: Path, to: Path) -> None:
    """Codec, teacher and causal model of Doom."""
    run_stages(doom_stages(out))
    ship_codec(out / "codec", to / CODEC)
    for run, name in (("doom_teacher", TEACHER), ("doom", CAUSAL)):
        ship_model(out / run / "export", to / name)
    print(f"\nDone: {', '.join((CODEC, TEACHER, CAUSAL))} in {to}")


def make_occlusion(out: Path, to: Path) -> None:
    """Three models of the first study, trained where and as it trains them; its committed results stay as they are."""
    run_stages(occlusion_stages(out))
    for name, run in OCCLUSION.items():
        ship_study_run(ROOT / STUDY_OUT / run, to / name)
    print(f"\nDone: {', '.join(OCCLUSION)} in {to}")


def occlusion_stages(out: Path) -> list[Stage]:
    """The teacher, then both students at the same time."""
    study = ("scripts/study.py", "--config", f"{STUDY}", f"results={out / 'occlusion_results'}", "--jobs")
    students = (*study, f"train/[bf]*/seed{STUDY_SEED}")  # baseline and foresight
    return [
        Stage("Train the non-causal teacher of the occlusions", (*study, "teacher/noncausal"), None),
        Stage("Train the baseline and the student with foresight", students, None),
    ]


def doom_stages(out: Path) -> list[Stage]:
    """Record, codec, latents, teacher, causal model."""
    videos, latents, codec = out / "videos", out / "latents", out / "codec"
    data = (f"data.latent_shards.root={latents}", f"codec.path={codec}")
    common = (f"output_dir={out}", *data, f"seed={SEED}", f"license={LICENSE}")
    return [
        Stage(
            "Record Doom videos",
            ("data_tools/record_doom.py", "--out", f"{videos}", "--clips=80", "--frames=120", f"--seed={SEED}"),
            videos / "dataset.json",
        ),
        Stage(
            "Train the codec",
            (
                "scripts/train_codec.py",
                "--config=configs/codec/doom64.yaml",
                f"data.root={videos}",
                f"output_dir={codec}",
            ),
            codec / "config.json",
        ),
        Stage(
            "Encode the videos",
            ("data_tools/encode_latents.py", "--videos", f"{videos}", "--codec", f"{codec}", "--out", f"{latents}"),
            None,
        ),
        launched(
            "Train the non-causal teacher",
            out / "doom_teacher" / "export",
            "scripts/train_video.py",
            "--config=configs/train/doom_teacher.yaml",
            *common,
        ),
        launched(
            "Train the causal model",
            out / "doom" / "export",
            "scripts/train_video.py",
            "--config=configs/train/doom.yaml",
            *common,
        ),
    ]


def ship_codec(trained: Path, target: Path) -> None:
    """Copy a trained codec with its weights in fp16, without its large picture; its report names the rounded codec."""
    copy_anew(trained, target)
    (target / "report.png").unlink(missing_ok=True)
    fingerprint = halve_codec(target)
    report = json.loads((target / "report.json").read_text())
    (target / "report.json").write_text(json.dumps(report | {"fingerprint": fingerprint}, indent=2) + "\n")


def ship_model(export: Path, target: Path) -> None:
    """Copy an export with its weights in bf16 and its codec's in fp16: half the size, and training widens them."""
    import torch

    copy_anew(export, target)
    halve_model(target, torch.bfloat16)
    halve_codec(target / "codec")


def ship_study_run(run: Path, target: Path) -> None:
    """Export the end of a run of pixels under its shipped name, with its weights in fp16."""
    import torch

    from video_mirai.build import export_checkpoint

    with TemporaryDirectory() as scratch:
        copy_anew(export_checkpoint(run, None, Path(scratch), name=target.name, license=LICENSE), target)
    halve_model(target, torch.float16)


def halve_model(export: Path, dtype: "torch.dtype") -> None:
    """Rewrite an export's weights in two bytes each, which load as fp32."""
    from video_mirai.models.causal_dit import CausalVideoDiT

    folder = export / "transformer"
    config = (folder / "config.json").read_bytes()
    # Read so, the parts that Wan keeps in fp32 stay so; a cast afterwards would not spare them.
    CausalVideoDiT.from_pretrained(folder, torch_dtype=dtype).save_pretrained(folder)
    (folder / "config.json").write_bytes(config)  # without the path of this machine, which loading adds


def halve_codec(folder: Path) -> str:
    """Rewrite a codec's weights in fp16, which load as fp32; its new fingerprint."""
    from video_mirai.models.codecs import load_codec

    codec = load_codec(folder)
    codec.autoencoder.half()
    codec.save_pretrained(folder)
    return load_codec(folder).fingerprint()


def copy_anew(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


if __name__ == "__main__":
    run_script(main)
