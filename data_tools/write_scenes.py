"""Write synthetic scenes as H.264 clips with the known state of every frame.

OUT/clip_00000.mp4     the frames
OUT/clip_00000.jsonl   line i: the sprites of frame i, back to front: identity, name, position and velocity (pixels,
                       pixels per frame; x to the right, y downwards), share of the ink that shows
OUT/dataset.json       settings, identities, clips; written last, so its presence means complete
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tool_cli import run_tool
from video_mirai.data.batch import VideoSample
from video_mirai.data.scenes import SPLITS, Scenes, ScenesConfig
from video_mirai.data.sprites import PALETTE, SPRITE_SETS
from video_mirai.media import write_video

EXAMPLE = "Example: python data_tools/write_scenes.py --out data/scenes --clips 200 --frames 64 --occluder-width 10"


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    if_interrupted = "run the same command again to write the whole data set"
    return run_tool("write_scenes", lambda: write_dataset(scenes_from(options), options.out), if_interrupted)


def build_parser() -> argparse.ArgumentParser:
    default = ScenesConfig()
    parser = argparse.ArgumentParser(
        description="Write synthetic scenes as H.264 clips with the known state of every frame.", epilog=EXAMPLE
    )
    shown = "default: %(default)s"
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips and dataset.json")
    parser.add_argument("--clips", type=int, default=100, help=shown)
    parser.add_argument("--frames", type=int, default=64, help=f"per clip; {shown}")
    parser.add_argument("--size", default=f"{default.width}x{default.height}", help=f"WIDTHxHEIGHT; {shown}")
    parser.add_argument("--sprites", choices=sorted(SPRITE_SETS), default=default.sprites, help=shown)
    parser.add_argument("--num-sprites", type=int, default=default.num_sprites, help=shown)
    parser.add_argument("--sprite-size", type=float, default=default.sprite_size, help=f"pixels; {shown}")
    parser.add_argument("--min-speed", type=float, default=default.min_speed, help=f"pixels per frame; {shown}")
    parser.add_argument("--max-speed", type=float, default=default.max_speed, help=f"pixels per frame; {shown}")
    parser.add_argument(
        "--max-angle", type=float, default=default.max_angle, help=f"of the motion to the horizontal, degrees; {shown}"
    )
    parser.add_argument(
        "--occluder-width", type=int, default=default.occluder_width, help=f"of the bar, pixels; 0 for none; {shown}"
    )
    parser.add_argument(
        "--colours", nargs="+", choices=list(PALETTE), default=list(default.colours), metavar="NAME", help=shown
    )
    parser.add_argument("--fps", type=float, default=default.fps, help=shown)
    parser.add_argument("--seed", type=int, default=default.seed, help=shown)
    parser.add_argument("--split", choices=list(SPLITS), default=default.split, help=f"other clips each; {shown}")
    return parser


def scenes_from(options: argparse.Namespace) -> Scenes:
    parts = options.size.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--size {options.size!r} is not WIDTHxHEIGHT; for example 32x32.")
    return Scenes(
        options.clips,
        options.frames,
        height=int(parts[1]),
        width=int(parts[0]),
        num_sprites=options.num_sprites,
        sprites=options.sprites,
        sprite_size=options.sprite_size,
        min_speed=options.min_speed,
        max_speed=options.max_speed,
        max_angle=options.max_angle,
        occluder_width=options.occluder_width,
        colours=options.colours,
        fps=options.fps,
        seed=options.seed,
        split=options.split,
    )


def write_dataset(scenes: Scenes, out: Path) -> None:
    """Write every clip, then dataset.json; a complete data set of the same settings is left as it is."""
    described = describe(scenes)
    index_path = out / "dataset.json"
    if index_path.exists():
        if json.loads(index_path.read_text()) != described:
            raise ValueError(f"{index_path} has other settings; choose another --out or remove that folder.")
        print(f"{out}: already written with these settings.")
        return
    out.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(len(scenes)), unit="clip", desc="writing"):
        sample = scenes[index]
        target = out / clip_name(index)
        write_video(target.with_suffix(".mp4"), sample["video"], scenes.fps)
        lines = state_lines(sample, scenes.identity_names)
        target.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    index_path.write_text(json.dumps(described, indent=2) + "\n")


def state_lines(sample: VideoSample, identity_names: Sequence[str]) -> list[dict[str, Any]]:
    """One JSON object per frame."""
    state = {name: values.tolist() for name, values in sample["state"].items()}
    lines = []
    for frame, (positions, velocities, shown) in enumerate(
        zip(state["position"], state["velocity"], state["visible_fraction"], strict=True)
    ):
        sprites = [
            {
                "identity": identity,
                "name": identity_names[identity],
                "x": round(x, 4),
                "y": round(y, 4),
                "velocity_x": round(velocity_x, 4),
                "velocity_y": round(velocity_y, 4),
                "visible_fraction": round(fraction, 4),
            }
            for identity, (x, y), (velocity_x, velocity_y), fraction in zip(
                state["identity"], positions, velocities, shown, strict=True
            )
        ]
        lines.append({"frame": frame, "sprites": sprites})
    return lines


def describe(scenes: Scenes) -> dict[str, Any]:
    described = {
        "tool": "write_scenes",
        "fps": scenes.fps,
        "settings": asdict(scenes.config),
        "identities": scenes.identity_names,
        "clips": [{"file": f"{clip_name(index)}.mp4"} for index in range(len(scenes))],
    }
    return json.loads(json.dumps(described))  # as it reads back from the file: tuples are lists


def clip_name(index: int) -> str:
    return f"clip_{index:05d}"


if __name__ == "__main__":
    sys.exit(main())
