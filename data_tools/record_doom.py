"""Record ViZDoom gameplay as H.264 clips with the action of every frame.

A scripted agent holds one manoeuvre (turn, walk, strafe, walk in a curve) for one to four seconds and then takes
another, so that the camera moves smoothly and the next frames can be predicted from the last ones. Every clip has a
game and a random generator of its own, seeded from (seed, scenario, clip): neither the number of workers nor the other
clips change it.

    OUT/<scenario>/clip_00000.mp4     the frames
    OUT/<scenario>/clip_00000.jsonl   line i: the action held from frame i to frame i+1, and the pose frame i shows
    OUT/dataset.json                  settings, seeds, scenarios, licence; written last, so its presence means complete
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from tqdm import tqdm

from doom_game import NATIVE_SIZES, RecordSettings, import_vizdoom, play_clip
from tool_cli import run_tool

MAX_ATTEMPTS = 20
LICENCE = (
    "Game frames show Freedoom assets (BSD-3-Clause, the Freedoom project) rendered by ViZDoom (MIT) in scenarios that "
    "ship with its package."
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    return run_tool("record_doom", lambda: record(options), "run the same command again to record the whole data set")


def record(options: argparse.Namespace) -> None:
    """Records what is asked for; ValueError for settings that cannot be."""
    width, height = parse_size(options.size)
    settings = RecordSettings(
        tuple(options.scenarios), options.clips, options.frames, width, height, options.skip, options.seed
    )
    check_settings(settings)
    record_dataset(settings, options.out, options.workers)


def build_parser() -> argparse.ArgumentParser:
    default = RecordSettings()
    parser = argparse.ArgumentParser(
        description="Record ViZDoom gameplay as H.264 clips with the action of every frame.",
        epilog="Example: python data_tools/record_doom.py --out data/doom --clips 60 --frames 128 --size 64x64",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips and dataset.json")
    parser.add_argument(
        "--scenarios", nargs="+", default=list(default.scenarios), metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument("--clips", type=int, default=default.clips, help="clips per scenario (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=default.frames, help="frames per clip (default: %(default)s)")
    parser.add_argument(
        "--size", default=f"{default.width}x{default.height}", help="WIDTHxHEIGHT, even (default: %(default)s)"
    )
    parser.add_argument(
        "--skip",
        type=int,
        default=default.skip,
        help="game tics per frame; the frame rate is 35 / skip (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    return parser


def parse_size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise ValueError(f"--size {text!r} is not WIDTHxHEIGHT; for example 64x64.")
    return int(parts[0]), int(parts[1])


def check_settings(settings: RecordSettings) -> None:
    known = known_scenarios()
    unknown = [name for name in settings.scenarios if name not in known]
    if unknown:
        raise ValueError(f"unknown scenario {unknown[0]!r}; this ViZDoom has: {', '.join(known)}.")
    if len(set(settings.scenarios)) < len(settings.scenarios):
        raise ValueError(f"a scenario is named twice: {' '.join(settings.scenarios)}.")
    largest = NATIVE_SIZES[-1]
    if (
        settings.width % 2
        or settings.height % 2
        or not (2 <= settings.width <= largest[0])
        or not (2 <= settings.height <= largest[1])
    ):
        raise ValueError(
            f"--size {settings.width}x{settings.height}: both must be even, 2x2 to {largest[0]}x{largest[1]}."
        )
    for name, value in (("--clips", settings.clips), ("--frames", settings.frames), ("--skip", settings.skip)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def known_scenarios() -> list[str]:
    vizdoom = import_vizdoom()
    return sorted(path.stem for path in Path(vizdoom.scenarios_path).glob("*.cfg"))


def record_dataset(settings: RecordSettings, out: Path, workers: int) -> None:
    """Record every clip, then write dataset.json; a complete data set of the same settings is left as it is."""
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}.")
    described = describe(settings)
    index_path = out / "dataset.json"
    if index_path.exists():
        if json.loads(index_path.read_text())["settings"] != described["settings"]:
            raise ValueError(
                f"{index_path} was recorded with other settings; choose another --out or remove that folder."
            )
        print(f"{out}: already recorded with these settings.")
        return
    for scenario in settings.scenarios:
        (out / scenario).mkdir(parents=True, exist_ok=True)
    jobs = [
        (settings, scenario, clip, out.resolve()) for clip in range(settings.clips) for scenario in settings.scenarios
    ]
    with (
        tempfile.TemporaryDirectory(prefix="record_doom_") as scratch,
        ProcessPoolExecutor(
            min(workers, len(jobs)),
            multiprocessing.get_context("spawn"),
            initializer=enter_own_folder,
            initargs=(scratch,),
        ) as pool,
    ):
        futures = [pool.submit(record_clip, *job) for job in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="clip", desc="recording"):
                future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError("a recording process died; run the same command again.") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    index_path.write_text(json.dumps(described, indent=2) + "\n")


def enter_own_folder(parent: str) -> None:
    """A working folder for this process alone: ViZDoom makes a folder there, and dies where another just did."""
    os.chdir(tempfile.mkdtemp(dir=parent))


def describe(settings: RecordSettings) -> dict[str, Any]:
    files = [
        {"file": f"{scenario}/{clip_name(clip)}.mp4", "seed": clip_seed(settings.seed, scenario, clip)}
        for scenario in settings.scenarios
        for clip in range(settings.clips)
    ]
    described = {
        "tool": "record_doom",
        "vizdoom": import_vizdoom().__version__,
        "fps": settings.fps,
        "licence": LICENCE,
        "settings": asdict(settings),
        "clips": files,
    }
    return json.loads(json.dumps(described))  # as it reads back from the file: tuples are lists


def clip_name(clip: int) -> str:
    return f"clip_{clip:05d}"


def clip_seed(seed: int, scenario: str, clip: int, attempt: int = 0) -> int:
    digest = hashlib.sha256(f"{seed}/{scenario}/{clip}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def record_clip(settings: RecordSettings, scenario: str, clip: int, out: Path) -> None:
    """Play one clip and write its mp4 and jsonl; an episode that ends early is thrown away, another is played."""
    for attempt in range(MAX_ATTEMPTS):
        recording = play_clip(settings, scenario, clip_seed(settings.seed, scenario, clip, attempt))
        if len(recording.frames) == settings.frames:
            break
    else:
        raise ValueError(
            f"{scenario}: {MAX_ATTEMPTS} episodes all ended within {settings.frames} frames; use fewer --frames."
        )
    target = out / scenario / clip_name(clip)
    write_clip(target.with_suffix(".mp4"), recording.frames, settings.fps)
    target.with_suffix(".jsonl").write_text("".join(json.dumps(action) + "\n" for action in recording.actions))


def write_clip(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Write H.264, yuv420p, nearly lossless, with a key frame every 12 frames, under the final name only when whole."""
    partial = path.with_name(f".{path.stem}.partial.mp4")
    quality = ["-crf", "14", "-g", "12", "-flags", "+cgop", "-threads", "1"]
    writer: Any = imageio.get_writer(
        partial,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="error",
        ffmpeg_params=quality,
    )
    with writer:
        for frame in frames:
            writer.append_data(frame)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
