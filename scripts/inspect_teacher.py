"""How much of the future is in a teacher's features? The table to choose foresight's teacher layer and sigma with."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import make_parser, run_script

if TYPE_CHECKING:
    from torch import Tensor

    from video_mirai.build import LoadedRun
    from video_mirai.models.causal_dit import CausalVideoDiT

SIGMAS = (0.0, 0.1, 0.3, 0.5, 0.7)


def main() -> None:
    """Parse, measure, print."""
    options = parse_options()

    # Below, because these imports take seconds and --help needs none.
    from video_mirai.build import load_run

    if options.frames < 2:
        raise ValueError(f"--frames {options.frames} leaves no future; give at least 2.")
    if options.clips < 2:
        raise ValueError(f"--clips {options.clips}: two are needed, one for the other's future.")
    run = load_run(options.teacher)
    latents = validation_latents(run, options)
    count, frames = latents.shape[:2]
    kept = frames // 2
    table = future_sensitivity(run.model, latents, kept, options.seed)
    print(f"1 - cosine between features of the first {kept} frames, before and after the frames that follow were taken")
    print(f"from another clip ({count} clips of {frames} frames); 0 = the features don't know the future.\n")
    print("| layer | " + " | ".join(f"sigma {sigma}" for sigma in SIGMAS) + " |")
    print("|---" * (len(SIGMAS) + 1) + "|")
    for layer, row in enumerate(table.tolist(), 1):
        print(f"| {layer} | " + " | ".join(f"{value:.4f}" for value in row) + " |")


def parse_options() -> argparse.Namespace:
    parser = make_parser(
        "How much a teacher's features change when the future is replaced, by layer and noise level.",
        "python scripts/inspect_teacher.py --teacher asset:occlusion_teacher --frames 24\n"
        "  python scripts/inspect_teacher.py --teacher asset:doom_teacher --latents runs/demo/latents",
    )
    parser.add_argument("--teacher", required=True, help="run folder, export, or asset:<name>")
    parser.add_argument(
        "--latents", type=Path, help="folder of encoded clips (data_tools/encode_latents.py); default: its own data"
    )
    parser.add_argument("--frames", type=int, default=12, help="of a clip (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=24, help="at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    return parser.parse_args()


def validation_latents(run: "LoadedRun", options: argparse.Namespace) -> "Tensor":
    """(B, F, C, H, W) of clips that the teacher was not trained on, from --latents or from its own data.

    Raises:
        ValueError, OSError: that data is not here, of another codec, or of one clip.
    """
    from video_mirai.build import build_data_set
    from video_mirai.config import DataConfig
    from video_mirai.data.latent_shards import LatentShards, LatentShardsConfig
    from video_mirai.data.loader import collate_clips

    data = run.config.data
    if options.latents is not None:
        data = DataConfig(kind="latent_shards", latent_shards=LatentShardsConfig(str(options.latents)))
    clips = build_data_set(data, split="val", num_frames=options.frames)
    if isinstance(clips, LatentShards):
        clips.require_codec(run.codec.fingerprint())
    if len(clips) < 2:
        raise ValueError(f"the validation split has {len(clips)} clips; two are needed.")
    batch = collate_clips([clips[index] for index in range(min(options.clips, len(clips)))])
    return batch["latents"] if "latents" in batch else run.codec.encode(batch["video"])


def future_sensitivity(model: "CausalVideoDiT", latents: "Tensor", kept_frames: int, seed: int) -> "Tensor":
    """Mean 1 - cosine between features of the kept frames with the true and with another clip's future.

    Args:
        latents: (B, F, C, H, W), B >= 2; clip b gets the future of clip b - 1.

    Returns:
        (layers, sigmas).
    """
    import torch
    from torch.nn import functional

    from video_mirai.flow.path import interpolate

    spliced = torch.cat([latents[:, :kept_frames], latents.roll(1, dims=0)[:, kept_frames:]], dim=1)
    layers = range(1, model.config.num_layers + 1)
    columns = []
    for sigma in SIGMAS:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        sigmas = torch.full(latents.shape[:2], sigma)
        with torch.no_grad():
            true, other = (
                model(interpolate(clip, noise, sigmas), sigmas, capture=tuple(layers)).hidden
                for clip in (latents, spliced)
            )
        kept_tokens = kept_frames * model.tokens_per_frame(*latents.shape[-2:])
        cosine = [
            functional.cosine_similarity(true[layer][:, :kept_tokens], other[layer][:, :kept_tokens], dim=-1).mean()
            for layer in layers
        ]
        columns.append(1 - torch.stack(cosine))
    return torch.stack(columns, dim=1)


if __name__ == "__main__":
    run_script(main)
