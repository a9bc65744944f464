"""The recipe of the checkpoints that ship under assets/checkpoints: an hour on two cores, resumable."""

import argparse
import json
import shutil
from pathlib import Path

from _cli import make_parser, run_script
from _stages import Stage, launched, run_stages

SEED = 0
LICENSE = "license=apache-2.0"
CODEC, TEACHER, CAUSAL = "doom_codec", "doom_teacher", "doom_causal"


def main() -> None:
    """Parse, train what is not trained yet, write the checkpoints in half precision."""
    options = parse_options()
    run_stages(stages(options.out))
    ship_codec(options.out / "codec", options.to / CODEC)
    for run, name in (("doom_teacher", TEACHER), ("doom", CAUSAL)):
        ship_model(options.out / run / "export", options.to / name)
    print(f"\nDone: {', '.join((CODEC, TEACHER, CAUSAL))} in {options.to}")


def parse_options() -> argparse.Namespace:
    parser = make_parser(
        "Records Doom clips with seed 0 and trains, from random weights, the codec, the non-causal teacher and the\n"
        "causal model that ./scripts/demo.sh starts from. Finished stages are skipped, interrupted ones resumed.",
        "python scripts/make_assets.py",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/assets"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--to", type=Path, default=Path("assets/checkpoints"), metavar="DIR", help="default: %(default)s"
    )
    return parser.parse_args()


def stages(out: Path) -> list[Stage]:
    """Record, codec, latents, teacher, causal model."""
    videos, latents, codec = out / "videos", out / "latents", out / "codec"
    data = (f"output_dir={out}", f"data.latent_shards.root={latents}", f"codec.path={codec}", f"seed={SEED}", LICENSE)
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
            *data,
        ),
        launched(
            "Train the causal model",
            out / "doom" / "export",
            "scripts/train_video.py",
            "--config=configs/train/doom.yaml",
            *data,
        ),
    ]


def ship_codec(trained: Path, target: Path) -> None:
    """Copy a trained codec with its weights in fp16; its report then names the rounded codec."""
    copy_anew(trained, target)
    fingerprint = halve_codec(target)
    report = json.loads((target / "report.json").read_text())
    (target / "report.json").write_text(json.dumps(report | {"fingerprint": fingerprint}, indent=2) + "\n")


def ship_model(export: Path, target: Path) -> None:
    """Copy an export with its weights in bf16 and its codec's in fp16: half the size, and training widens them."""
    import torch

    from video_mirai.models.causal_dit import CausalVideoDiT

    copy_anew(export, target)
    # Read in bf16, the parts that Wan keeps in fp32 stay so; a cast afterwards would not spare them.
    model = CausalVideoDiT.from_pretrained(export / "transformer", torch_dtype=torch.bfloat16)
    model.save_pretrained(target / "transformer")
    halve_codec(target / "codec")


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
