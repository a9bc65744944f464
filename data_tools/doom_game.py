"""One clip of ViZDoom gameplay: the game without display or HUD, and the scripted agent that plays it."""

from __future__ import annotations

import math
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

TICS_PER_SECOND = 35
WARM_UP_SECONDS = (1.0, 6.0)  # played before frame 0: every scenario starts its episodes in the same few poses
MANOEUVRE_SECONDS = (1.0, 4.0)
LONGEST_TURN_SECONDS = 6.0  # a turn away from a wall, which ends when the view is open
WALL_DEPTH = 10.0  # ViZDoom's depth buffer runs from 0 to 255; nearer, a wall's texture fills the picture
OPEN_DEPTH = 20.0
STUCK_UNITS_PER_TIC = 0.5  # map units; the slowest walk makes about 2
NATIVE_SIZES = ((160, 120), (320, 240), (640, 480), (800, 600), (1280, 960), (1600, 1200))


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
    """Motion per tic: forward and strafe in the game's speed units, turn in degrees; right is positive."""

    name: str
    forward: float
    strafe: float
    turn: float


class Recording(NamedTuple):
    frames: list[np.ndarray]
    actions: list[dict[str, Any]]


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
    # Else all workers share one file in the working folder.
    game.set_doom_config_path(str(scratch / "vizdoom.ini"))
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
    """Crop the centre of the screen to the frame's aspect, then average areas down to (height, width, 3)."""
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
        self.seeks_open_view = False
        self.last_position: tuple[float, float] | None = None

    def next_move(self, x: float, y: float, depth_ahead: float) -> Manoeuvre:
        """The motion to hold until the next frame, given the position (map units) and the depth ahead."""
        position = (x, y)
        moved = math.dist(position, self.last_position) if self.last_position else math.inf
        stuck = bool(self.move.forward or self.move.strafe) and moved < STUCK_UNITS_PER_TIC * self.skip
        if stuck or (self.move.forward > 0 and depth_ahead < WALL_DEPTH):
            self.hold(self.turn_away(), (LONGEST_TURN_SECONDS, LONGEST_TURN_SECONDS))
            self.seeks_open_view = True
        elif self.frames_left == 0 or (self.seeks_open_view and depth_ahead > OPEN_DEPTH):
            self.hold(self.any_manoeuvre(depth_ahead), MANOEUVRE_SECONDS)
            self.seeks_open_view = False
        self.frames_left -= 1
        self.last_position = position
        return self.move

    def hold(self, move: Manoeuvre, seconds: tuple[float, float]) -> None:
        self.move = move
        self.frames_left = max(1, round(self.generator.uniform(*seconds) * TICS_PER_SECOND / self.skip))
        self.last_position = None

    def turn_away(self) -> Manoeuvre:
        side = self.generator.choice((-1, 1))
        return Manoeuvre("turn_left" if side < 0 else "turn_right", 0.0, 0.0, side * self.generator.uniform(0.8, 1.4))

    def any_manoeuvre(self, depth_ahead: float) -> Manoeuvre:
        draw = self.generator
        side = draw.choice((-1, 1))
        suffix = "left" if side < 0 else "right"
        choices = (
            Manoeuvre("forward", draw.uniform(6, 14), 0.0, 0.0),
            Manoeuvre(f"curve_{suffix}", draw.uniform(6, 14), 0.0, side * draw.uniform(0.3, 0.9)),
            Manoeuvre(f"turn_{suffix}", 0.0, 0.0, side * draw.uniform(0.4, 1.2)),
            Manoeuvre(f"strafe_{suffix}", 0.0, side * draw.uniform(5, 10), 0.0),
        )
        walks = depth_ahead > WALL_DEPTH
        return draw.choices(choices, weights=(6, 5, 2, 1) if walks else (0, 0, 2, 1))[0]


def import_vizdoom() -> Any:
    """The vizdoom module; imported late, because only the extra `demo` installs it."""
    try:
        import vizdoom
    except ImportError as error:
        raise ValueError(f"vizdoom is not installed ({error}); install the extra: pip install -e '.[demo]'.") from error
    return vizdoom
