"""Metrics of scenes whose state is known: where the sprites are, which they are, and whether they survive an occlusion.

The truth has K sprites of different identities in every frame; a reading has at most M per frame, in any order. Per
frame they are matched by the least total distance (Hungarian algorithm); identity takes no part in the matching, so
that a swap shows. Units: pixels, frames, pixels per frame. Three kinds of true sprite, by the share of its ink that
shows: at least CLEARLY_VISIBLE must be read; less than HIDDEN_BELOW must not; between the two, both are right, and no
error is taken there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from video_mirai.data.scenes import HIDDEN_BELOW, bounce
from video_mirai.evaluation.bootstrap import mean_over_rows

CLEARLY_VISIBLE = 0.5
FREEZE_MIN_STEP = 0.25  # px; a true sprite slower than this says nothing about freezing
FREEZE_RATIO = 0.25  # a sprite is frozen when it moves less than this share of the true step


class TrueState(NamedTuple):
    """position (T, K, 2); identity (K,), all different; visible_fraction (T, K) in [0, 1]."""

    position: np.ndarray
    identity: np.ndarray
    visible_fraction: np.ndarray


class ReadState(NamedTuple):
    """position (T, M, 2), NaN where nothing was read; identity (T, M), -1 there."""

    position: np.ndarray
    identity: np.ndarray


class Walls(NamedTuple):
    """Lowest and highest (x, y) of a position, pixels."""

    low: np.ndarray
    high: np.ndarray


class Occlusion(NamedTuple):
    """One passage of a sprite out of clear sight and back.

    sprite: its number k. hidden_from: first hidden frame. emerges_from, emerges_by: first frame after hiding in which
    it may, and in which it must, be read. reemerged: a sprite of the same identity was read again after its longest
    absence.
    delay: frames after emerges_by (positive) or before emerges_from (negative) at which it was, 0 between them; NaN if
        it was not.
    distance: pixels between reading and truth in that frame; NaN if it was not.
    replaced: it did not, and a sprite of another identity was read in its place.
    """

    sprite: int
    hidden_from: int
    emerges_from: int
    emerges_by: int
    reemerged: bool
    delay: float
    distance: float
    replaced: bool


class SceneMetrics(NamedTuple):
    """Metrics of one clip; NaN where the clip has no case to judge.

    position_error: mean distance of matched, clearly visible sprites. missing_share: share of the clearly visible
    (frame, sprite) pairs without a match. first_step_beyond: see the function. velocity_error, count_error: means of
    the functions'.
    identity_persistence: share of the clearly visible pairs whose match has the right identity. identity_switches:
    changes of identity along the matched tracks. frozen_share: see the function. reemerged_share, replaced_share: of
    num_occlusions.
    reemergence_delay: mean |delay|; reemergence_distance: mean distance, both of those that re-emerged.
    wall_penetration: mean depth over all readings.
    """

    position_error: float
    missing_share: float
    first_step_beyond: int
    velocity_error: float
    count_error: float
    identity_persistence: float
    identity_switches: int
    frozen_share: float
    num_occlusions: int
    reemerged_share: float
    replaced_share: float
    reemergence_delay: float
    reemergence_distance: float
    wall_penetration: float


class StateCurves(NamedTuple):
    """One clip frame by frame, (T,) each; NaN in a frame that has no case to judge.

    position_error: mean distance of matched, clearly visible sprites. identity_persistence: share of the clearly
    visible sprites whose match has the right identity. on_track: 1 before `first_step_beyond`, 0 from it on.
    """

    position_error: np.ndarray
    identity_persistence: np.ndarray
    on_track: np.ndarray


def scene_metrics(truth: TrueState, read: ReadState, walls: Walls, *, radius: float, patience: int) -> SceneMetrics:
    """All metrics of one clip.

    Args:
        radius: r of "first step beyond r px", pixels.
        patience: frames after it must have emerged in which a sprite may still re-emerge.
    """
    matched = match_sprites(truth, read)
    errors = position_errors(truth, matched)
    judged = ~np.isnan(errors)
    occlusions = find_occlusions(truth, read, matched, patience)
    return SceneMetrics(
        position_error=_mean(errors[np.isfinite(errors)]),
        missing_share=_mean(np.isinf(errors[judged])),
        first_step_beyond=first_step_beyond(errors, radius),
        velocity_error=_mean(velocity_errors(truth, matched)),
        count_error=_mean(np.abs(count_errors(truth, read))),
        identity_persistence=_mean((matched.identity == truth.identity)[judged]),
        identity_switches=count_switches(truth, matched),
        frozen_share=frozen_share(truth, matched),
        num_occlusions=len(occlusions),
        reemerged_share=_mean(np.array([occlusion.reemerged for occlusion in occlusions])),
        replaced_share=_mean(np.array([occlusion.replaced for occlusion in occlusions])),
        reemergence_delay=_mean(np.array([abs(occlusion.delay) for occlusion in occlusions])),
        reemergence_distance=_mean(np.array([occlusion.distance for occlusion in occlusions])),
        wall_penetration=_mean(wall_penetration(read, walls)),
    )


def state_curves(truth: TrueState, matched: ReadState, *, radius: float) -> StateCurves:
    """The state of one clip over time.

    Args:
        matched: by `match_sprites`. radius: as in `scene_metrics`.
    """
    errors = position_errors(truth, matched)
    right = np.where(np.isnan(errors), np.nan, matched.identity == truth.identity)
    return StateCurves(
        position_error=mean_over_rows(np.where(np.isfinite(errors), errors, np.nan).T),
        identity_persistence=mean_over_rows(right.T),
        on_track=(np.arange(len(errors)) < first_step_beyond(errors, radius)).astype(np.float64),
    )


def match_sprites(truth: TrueState, read: ReadState) -> ReadState:
    """The reading in the true sprites' order: position (T, K, 2), identity (T, K); hidden sprites match nothing."""
    _check(truth, read)
    num_frames, num_sprites = truth.visible_fraction.shape
    position = np.full((num_frames, num_sprites, 2), np.nan)
    identity = np.full((num_frames, num_sprites), -1, dtype=np.int64)
    for frame in range(num_frames):
        sprites = np.flatnonzero(truth.visible_fraction[frame] >= HIDDEN_BELOW)
        readings = np.flatnonzero(read.identity[frame] >= 0)
        offsets = truth.position[frame, sprites][:, None] - read.position[frame, readings]  # (sprites, readings, 2)
        rows, columns = linear_sum_assignment(np.linalg.norm(offsets, axis=-1))
        position[frame, sprites[rows]] = read.position[frame, readings[columns]]
        identity[frame, sprites[rows]] = read.identity[frame, readings[columns]]
    return ReadState(position, identity)


def position_errors(truth: TrueState, matched: ReadState) -> np.ndarray:
    """(T, K) distances, pixels: NaN where the sprite isn't clearly visible, inf where it is but nothing matches it."""
    distance = np.linalg.norm(matched.position - truth.position, axis=-1)
    distance[np.isnan(distance)] = np.inf
    return np.where(truth.visible_fraction >= CLEARLY_VISIBLE, distance, np.nan)


def first_step_beyond(errors: np.ndarray, radius: float) -> int:
    """First frame in which a clearly visible sprite is over radius pixels off, or missing; T if there is none."""
    beyond = np.flatnonzero((errors > radius).any(axis=1))  # NaN > radius is False
    return int(beyond[0]) if len(beyond) else len(errors)


def velocity_errors(truth: TrueState, matched: ReadState) -> np.ndarray:
    """Length of the difference of steps from frame to frame, read minus true, pixels per frame: (T - 1, K).

    Both are finite differences, so that a bounce between two frames is no error. NaN where the sprite isn't clearly
    visible and matched in both frames.
    """
    true_step, read_step = _steps(truth, matched)
    return np.linalg.norm(read_step - true_step, axis=-1)


def frozen_share(truth: TrueState, matched: ReadState) -> float:
    """Share of true steps of at least FREEZE_MIN_STEP whose match moves under FREEZE_RATIO of it; NaN without any."""
    true_step, read_step = (np.linalg.norm(step, axis=-1) for step in _steps(truth, matched))
    judged = (true_step >= FREEZE_MIN_STEP) & ~np.isnan(read_step)
    return _mean((read_step < FREEZE_RATIO * true_step)[judged])


def count_errors(truth: TrueState, read: ReadState) -> np.ndarray:
    """(T,) sprites read too many (positive) or too few (negative); partly visible ones may be read or not."""
    count = (read.identity >= 0).sum(axis=1)
    fewest = (truth.visible_fraction >= CLEARLY_VISIBLE).sum(axis=1)
    most = (truth.visible_fraction >= HIDDEN_BELOW).sum(axis=1)
    return np.maximum(count - most, 0) + np.minimum(count - fewest, 0)


def count_switches(truth: TrueState, matched: ReadState) -> int:
    """Changes of identity along the matched tracks, from one clearly visible frame to the next; gaps are skipped."""
    switches = 0
    clear = truth.visible_fraction >= CLEARLY_VISIBLE
    for k, track in enumerate(matched.identity.T):
        seen = track[(track >= 0) & clear[:, k]]
        switches += int((seen[1:] != seen[:-1]).sum())
    return switches


def wall_penetration(read: ReadState, walls: Walls) -> np.ndarray:
    """Pixels by which every reading lies beyond a wall: (number of readings,), 0 inside."""
    position = read.position[read.identity >= 0]
    depth = np.maximum(walls.low - position, position - walls.high)
    return np.linalg.norm(np.clip(depth, 0, None), axis=-1)


def find_occlusions(truth: TrueState, read: ReadState, matched: ReadState, patience: int) -> list[Occlusion]:
    """What came back from behind the bar (or another sprite), where and when; one entry for every true passage."""
    occlusions = []
    for k in range(len(truth.identity)):
        present = (read.identity == truth.identity[k]).any(axis=1)
        for last_seen, hidden_from, emerges_from, emerges_by in _passages(truth.visible_fraction[:, k]):
            last = min(emerges_by + patience, len(present) - 1)
            back = _end_of_longest_absence(present, last_seen + 1, last)
            delay, distance, replaced = np.nan, np.nan, False
            if back is None:
                around = matched.identity[emerges_from : last + 1, k]
                replaced = bool(((around >= 0) & (around != truth.identity[k])).any())
            else:
                delay = float(max(back - emerges_by, 0) + min(back - emerges_from, 0))
                candidates = read.position[back, read.identity[back] == truth.identity[k]]
                distance = float(np.linalg.norm(candidates - truth.position[back, k], axis=-1).min())
            occlusions.append(
                Occlusion(k, hidden_from, emerges_from, emerges_by, back is not None, delay, distance, replaced)
            )
    return occlusions


def copy_last_state(position: np.ndarray, identity: np.ndarray, num_frames: int) -> ReadState:
    """Baseline: the state (K, 2), (K,) of the last known frame, repeated."""
    return ReadState(np.tile(position, (num_frames, 1, 1)), np.tile(identity, (num_frames, 1)))


def constant_velocity_state(
    position: np.ndarray, velocity: np.ndarray, identity: np.ndarray, num_frames: int, walls: Walls
) -> ReadState:
    """Baseline: straight on from the last known frame, with elastic bounces; the result starts one frame after it.

    With the true position and velocity (K, 2) this is the truth itself; with last_motion of a reading it is a fair
    baseline.
    """
    inside = np.clip(position, walls.low, walls.high)
    motion = bounce(inside, velocity, np.arange(1, num_frames + 1), walls.low, walls.high)
    return ReadState(motion.position, np.tile(identity, (num_frames, 1)))


def last_motion(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position (K, 2) in the last frame and velocity (K, 2) of tracks (T, K, 2) with NaN where a sprite wasn't seen.

    Velocity: between the last two frames next to each other in which the sprite was seen (0 if there are none). A
    sprite that the last frame doesn't show is carried on from where it was last seen; one that was never seen stays
    NaN.
    """
    num_frames, num_sprites = position.shape[:2]
    latest = np.full((num_sprites, 2), np.nan)
    velocity = np.zeros((num_sprites, 2))
    for k in range(num_sprites):
        seen = np.flatnonzero(~np.isnan(position[:, k, 0]))
        pairs = seen[1:][np.diff(seen) == 1]
        if len(pairs):
            velocity[k] = position[pairs[-1], k] - position[pairs[-1] - 1, k]
        if len(seen):
            latest[k] = position[seen[-1], k] + velocity[k] * (num_frames - 1 - seen[-1])
    return latest, velocity


def hide_occluded(state: ReadState, span: tuple[float, float] | None, sprite_size: float) -> ReadState:
    """A baseline's state without the sprites whose box shows less than HIDDEN_BELOW of its width beside the bar."""
    if span is None:
        return state
    left = state.position[..., 0] - sprite_size / 2
    covered = np.minimum(left + sprite_size, span[1]) - np.maximum(left, span[0])
    hidden = 1 - covered / sprite_size < HIDDEN_BELOW
    return ReadState(np.where(hidden[..., None], np.nan, state.position), np.where(hidden, -1, state.identity))


def _passages(visible_fraction: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Of every occlusion: last clear frame, first hidden one, first that may, first that must show the sprite again."""
    clear = np.flatnonzero(visible_fraction >= CLEARLY_VISIBLE)
    for last_seen, emerges_by in pairwise(clear.tolist()):
        hidden = last_seen + 1 + np.flatnonzero(visible_fraction[last_seen + 1 : emerges_by] < HIDDEN_BELOW)
        if len(hidden):
            yield last_seen, int(hidden[0]), int(hidden[-1]) + 1, emerges_by


def _end_of_longest_absence(present: np.ndarray, first: int, last: int) -> int | None:
    """Frame that ends the longest absence in first..last, both included; None if that absence lasts, or none begins."""
    longest, end, run = 0, None, 0
    for frame in range(first, last + 1):
        if not present[frame]:
            run += 1
            continue
        if run > longest:
            longest, end = run, frame
        run = 0
    return None if run > longest else end


def _steps(truth: TrueState, matched: ReadState) -> tuple[np.ndarray, np.ndarray]:
    """True and read step (T - 1, K, 2), pixels; the read one is NaN unless both frames clearly show the sprite."""
    clear = truth.visible_fraction >= CLEARLY_VISIBLE
    both = (clear[1:] & clear[:-1])[..., None]
    return np.diff(truth.position, axis=0), np.where(both, np.diff(matched.position, axis=0), np.nan)


def _mean(values: np.ndarray) -> float:
    """Mean without NaN; NaN when nothing is left."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def _check(truth: TrueState, read: ReadState) -> None:
    frames = {len(truth.position), len(truth.visible_fraction), len(read.position), len(read.identity)}
    if len(frames) > 1:
        raise ValueError(
            f"truth has {len(truth.position)} frames, the reading has {len(read.position)}; compare the same frames."
        )
    if len(np.unique(truth.identity)) < len(truth.identity):
        raise ValueError(f"identity={truth.identity.tolist()}: two sprites are the same; persistence is undefined.")
