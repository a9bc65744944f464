"""Record ViZDoom gameplay as H.264 clips with the action of every frame.

A scripted agent holds one manoeuvre (turn, walk, strafe, walk in a curve) for one to four seconds and then takes another, so
that the camera moves smoothly and the next frames can be predicted from the last ones. Every clip has a game and a random
generator of its own, seeded from (seed, scenario, clip): neither the number of workers nor the other clips change it.

    OUT/<scenario>/clip_00000.mp4     the frames
    OUT/<scenario>/clip_00000.jsonl   line i: the action held from frame i to frame i+1, and the pose frame i shows
    OUT/dataset.json                  settings, seeds, scenarios, licence; written last, so its presence means complete
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v2 as imageio
import numpy as np
from PIL import Image
from tqdm import tqdm

TICS_PER_SECOND = 35
WARM_UP_SECONDS = (1.0, 6.0)  # played before frame 0: every scenario starts its episodes in the same few poses
MANOEUVRE_SECONDS = (1.0, 4.0)
WALL_DEPTH = 16.0  # ViZDoom's depth buffer runs from 0 to 255; below this a wall's texture fills the picture
STUCK_UNITS_PER_TIC = 0.5  # map units; walking makes about 8
MAX_ATTEMPTS = 20
NATIVE_SIZES = ((160, 120), (320, 240), (640, 480), (800, 600), (1280, 960), (1600, 1200))
LICENCE = (
    "Game frames show Freedoom assets (BSD-3-Clause, the Freedoom project) rendered by ViZDoom (MIT) in the scenarios that ship "
    "with the ViZDoom package."
)


@dataclass(frozen=True)
class RecordSettings:
    """What is recorded; the same settings give the same frames and actions."""

    scenarios: tuple[str, ...] = ("health_gathering", "my_way_home", "defend_the_center")
    clips: int = 60
    frames: int = 128
    width: int = 64
    height: int = 64
    skip: int = 4
    seed: int = 0

    @property
    def fps(self) -> float:
        return TICS_PER_SECOND / self.skip


class Manoeuvre(NamedTuple):
    """Motion per tic: forward and strafe (right is positive) in the game's speed units, turn in degrees (right is positive)."""

    name: str
    forward: float
    strafe: float
    turn: float


class Recording(NamedTuple):
    frames: list[np.ndarray]
    actions: list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        width, height = parse_size(options.size)
        settings = RecordSettings(
            tuple(options.scenarios), options.clips, options.frames, width, height, options.skip, options.seed
        )
        check_settings(settings)
        record_dataset(settings, options.out, options.workers)
    except (ValueError, OSError) as error:
        print(f"record_doom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("record_doom: interrupted; run the same command again to record the whole data set", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    default = RecordSettings()
    parser = argparse.ArgumentParser(
        description="Record ViZDoom gameplay as H.264 clips with the action of every frame.",
        epilog="Example: python data_tools/record_doom.py --out data/doom --clips 60 --frames 128 --size 64x64 --workers 2",
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


def import_vizdoom() -> Any:
    """The vizdoom module; imported late, because only the extra `demo` installs it."""
    try:
        import vizdoom
    except ImportError as error:
        raise ValueError(f"vizdoom is not installed ({error}); install the extra: pip install -e '.[demo]'.") from error
    return vizdoom


def record_dataset(settings: RecordSettings, out: Path, workers: int) -> None:
    """Record every clip, then write dataset.json; a complete data set of the same settings is left as it is."""
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}.")
    described = describe(settings)
    index_path = out / "dataset.json"
    if index_path.exists():
        if json.loads(index_path.read_text()) != described:
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
    # ViZDoom makes a folder of its own where it runs, hence the working folder; spawn: it must not inherit the parent's threads.
    with (
        tempfile.TemporaryDirectory(prefix="record_doom_") as scratch,
        ProcessPoolExecutor(
            min(workers, len(jobs)), multiprocessing.get_context("spawn"), initializer=os.chdir, initargs=(scratch,)
        ) as pool,
    ):
        futures = [pool.submit(record_clip, *job) for job in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="clip", desc="recording"):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    index_path.write_text(json.dumps(described, indent=2) + "\n")


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
    """Play one clip and write its mp4 and jsonl; an episode that ends early is thrown away and another one is played."""
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


def play_clip(settings: RecordSettings, scenario: str, seed: int) -> Recording:
    """Frames (height, width, 3) uint8 and actions of one episode; fewer than asked for when the episode ends."""
    generator = random.Random(seed)
    frames: list[np.ndarray] = []
    actions: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="record_doom_") as scratch:
        game = start_game(settings, scenario, seed, Path(scratch))
        warm_up_frames = round(generator.uniform(*WARM_UP_SECONDS) * settings.fps)
        agent = Agent(generator, settings.skip)
        for index in range(warm_up_frames + settings.frames):
            state = game.get_state()
            if state is None:  # the episode is over
                break
            x, y, angle = (float(value) for value in state.game_variables)
            move = agent.next_move(x, y, centre_depth(state.depth_buffer))
            if index >= warm_up_frames:
                frames.append(fit_frame(state.screen_buffer, settings.width, settings.height))
                pose = {"x": round(x, 3), "y": round(y, 3), "angle": round(angle, 3)}
                actions.append({"frame": len(actions), **move._asdict(), **pose})
            game.make_action([move.forward, move.strafe, move.turn], settings.skip)
        game.close()
    return Recording(frames, actions)


def start_game(settings: RecordSettings, scenario: str, seed: int, scratch: Path) -> Any:
    vizdoom = import_vizdoom()
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{scenario}.cfg"))
    game.set_doom_config_path(
        str(scratch / "vizdoom.ini")
    )  # else one file in the working folder, shared by all workers
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(vizdoom.ScreenResolution.__members__["RES_{}X{}".format(*native_size(settings))])
    game.set_depth_buffer_enabled(True)
    for hide in (
        game.set_render_hud,
        game.set_render_weapon,
        game.set_render_crosshair,
        game.set_render_messages,
        game.set_render_decals,
        game.set_render_particles,
        game.set_render_screen_flashes,
    ):
        hide(False)
    button, variable = vizdoom.Button, vizdoom.GameVariable
    game.set_available_buttons(
        [button.MOVE_FORWARD_BACKWARD_DELTA, button.MOVE_LEFT_RIGHT_DELTA, button.TURN_LEFT_RIGHT_DELTA]
    )
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
    game.set_episode_timeout(0)
    game.set_seed(seed)
    game.add_game_args("+sv_cheats 1")
    game.init()
    game.send_game_command("god")  # the agent neither fights nor eats: it would die within seconds in most scenarios
    return game


def native_size(settings: RecordSettings) -> tuple[int, int]:
    """Smallest native size with two pixels for one, so that area resizing has something to average."""
    for width, height in NATIVE_SIZES:
        if width >= 2 * settings.width and height >= 2 * settings.height:
            return width, height
    return NATIVE_SIZES[-1]


def centre_depth(depth: np.ndarray) -> float:
    height, width = depth.shape
    return float(np.median(depth[height // 3 : height // 2, width // 3 : width - width // 3]))


def fit_frame(screen: np.ndarray, width: int, height: int) -> np.ndarray:
    """Centre crop (native height, native width, 3) to the frame's aspect, then average areas down to (height, width, 3)."""
    native_height, native_width = screen.shape[:2]
    scale = min(native_width / width, native_height / height)
    left = (native_width - width * scale) / 2
    top = (native_height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return np.asarray(Image.fromarray(screen).resize((width, height), Image.Resampling.BOX, box=box))


class Agent:
    """Holds one manoeuvre at a time; turns away from walls and from whatever stops it."""

    def __init__(self, generator: random.Random, skip: int) -> None:
        self.generator = generator
        self.skip = skip
        self.frames_left = 0
        self.move = Manoeuvre("turn_right", 0.0, 0.0, 0.0)
        self.last_position: tuple[float, float] | None = None

    def next_move(self, x: float, y: float, depth_ahead: float) -> Manoeuvre:
        """The motion to hold until the next frame, given the pose (map units) and the depth in the middle of the view."""
        position = (x, y)
        walks = bool(self.move.forward or self.move.strafe)
        moved = math.dist(position, self.last_position) if self.last_position else math.inf
        facing_wall = depth_ahead < WALL_DEPTH
        stuck = walks and moved < STUCK_UNITS_PER_TIC * self.skip
        if stuck or (facing_wall and self.move.forward > 0):
            self.hold(self.turn_away())
        elif self.frames_left == 0:
            # A turn that still looks at a wall goes on.
            self.hold(self.move if facing_wall and self.move.turn else self.any_manoeuvre())
        self.frames_left -= 1
        self.last_position = position
        return self.move

    def hold(self, move: Manoeuvre) -> None:
        seconds = self.generator.uniform(*MANOEUVRE_SECONDS)
        self.move = move
        self.frames_left = max(1, round(seconds * TICS_PER_SECOND / self.skip))
        self.last_position = None

    def turn_away(self) -> Manoeuvre:
        side = self.generator.choice((-1, 1))
        return Manoeuvre("turn_left" if side < 0 else "turn_right", 0.0, 0.0, side * self.generator.uniform(0.8, 1.4))

    def any_manoeuvre(self) -> Manoeuvre:
        draw = self.generator
        side = draw.choice((-1, 1))
        suffix = "left" if side < 0 else "right"
        choices = (
            Manoeuvre("forward", draw.uniform(12, 25), 0.0, 0.0),
            Manoeuvre(f"curve_{suffix}", draw.uniform(12, 25), 0.0, side * draw.uniform(0.3, 0.9)),
            Manoeuvre(f"turn_{suffix}", 0.0, 0.0, side * draw.uniform(0.4, 1.2)),
            Manoeuvre(f"strafe_{suffix}", 0.0, side * draw.uniform(8, 18), 0.0),
        )
        return draw.choices(choices, weights=(3, 4, 2, 1))[0]


def write_clip(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Write H.264, yuv420p, nearly lossless, with a key frame every 12 frames, under the final name only when whole."""
    partial = path.with_name(f".{path.stem}.partial.mp4")
    quality = ["-crf", "14", "-g", "12", "-flags", "+cgop", "-threads", "1"]
    with imageio.get_writer(
        partial,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="error",
        ffmpeg_params=quality,
    ) as writer:
        for frame in frames:
            writer.append_data(frame)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
