"""What split_scenes and filter_clips do with the pieces of one file, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from contact_sheet import fit_picture
from video_mirai.data.clip_quality import SIDE, ClipQuality, measure_quality
from video_mirai.data.frame_stream import piece_frames, piece_seconds, stream_frames
from video_mirai.data.shots import HEIGHT, METHODS, WIDTH, Scores, shots_between
from video_mirai.data.video_protocol import OpenVideo, UnreadableVideo
from video_mirai.data.video_reader import open_video

FrameRange = tuple[int, int | None]  # first_frame, end_frame as a manifest has them


class SplitTask(NamedTuple):
    path: Path
    ranges: list[FrameRange]
    backend: str
    method: str
    threshold: float
    device: str


class MeasureTask(NamedTuple):
    path: Path
    ranges: list[FrameRange]
    backend: str


class Shot(NamedTuple):
    first_frame: int
    end_frame: int
    seconds: float


class Measured(NamedTuple):
    frames: range
    seconds: float
    quality: ClipQuality


class Finding(NamedTuple):
    """value: what was found out about a piece; problem: why nothing was, else empty."""

    value: Any
    problem: str


def find_shots(task: SplitTask) -> list[Finding]:
    """For each piece a list of Shot, in frame numbers of the file."""
    scores = _scores(task.method, task.device)

    def look(video: OpenVideo, frames: range) -> list[Shot]:
        found = shots_between(scores(stream_frames(video, frames, HEIGHT, WIDTH)), task.threshold)
        inside = [frames[first:end] for first, end in found]
        return [Shot(shot.start, shot.stop, piece_seconds(video.timestamps, shot)) for shot in inside]

    return _look_at_pieces(task.path, task.ranges, task.backend, look)


def measure_pieces(task: MeasureTask) -> list[Finding]:
    """For each piece a Measured."""

    def look(video: OpenVideo, frames: range) -> Measured:
        quality = measure_quality(stream_frames(video, frames, SIDE, SIDE), len(frames))
        return Measured(frames, piece_seconds(video.timestamps, frames), quality)

    return _look_at_pieces(task.path, task.ranges, task.backend, look)


def take_pictures(task: MeasureTask) -> list[Finding]:
    """For each piece the frame in its middle, as `fit_picture` makes it."""

    def look(video: OpenVideo, frames: range) -> np.ndarray:
        return fit_picture(video.read([frames[len(frames) // 2]])[0])

    return _look_at_pieces(task.path, task.ranges, task.backend, look)


@lru_cache
def _scores(method: str, device: str) -> Scores:
    return METHODS[method].load(device)


def _look_at_pieces(
    path: Path, ranges: list[FrameRange], backend: str, look: Callable[[OpenVideo, range], Any]
) -> list[Finding]:
    torch.set_num_threads(1)  # one process a core; and sums do not depend on how many cores there are
    try:
        with open_video(path, backend) as video:
            return [_look_at_piece(path, video, frame_range, look) for frame_range in ranges]
    except UnreadableVideo as error:
        return [Finding(None, f"unreadable: {error.reason}")] * len(ranges)


def _look_at_piece(
    path: Path, video: OpenVideo, frame_range: FrameRange, look: Callable[[OpenVideo, range], Any]
) -> Finding:
    try:
        return Finding(look(video, piece_frames(path, len(video.timestamps), *frame_range)), "")
    except UnreadableVideo as error:
        return Finding(None, f"unreadable: {error.reason}")
