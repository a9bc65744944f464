"""Conditioning that needs no text encoder: the class that a folder's name gives, or recorded actions frame by frame."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from video_mirai.data.captions import folder_label
from video_mirai.data.video_list import VideoFile
from video_mirai.data.video_reader import UnreadableVideo

ACTIONS_SUFFIX = ".jsonl"


class ClipContext(Protocol):
    """Makes the context of a clip.

    class_names: what the entries of a class context stand for; empty for other contexts.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __call__(self, file: VideoFile, frames: Sequence[int], num_frames: int) -> Tensor:
        """Context of the clip that shows frames[1:] of a file of num_frames.

        frames: numbers in the file, ascending; the first is the frame before the clip, or again the clip's first.
        """
        ...


class ClassContext:
    """(1, num_classes) one-hot; the classes are the folders' labels, sorted."""

    def __init__(self, listed: Sequence[VideoFile]) -> None:
        """listed: all videos, of every split, so that each split numbers the classes alike."""
        self.class_names = tuple(sorted({folder_label(file) for file in listed}))
        if len(self.class_names) < 2:
            raise ValueError(
                f"context='class' needs videos in at least two folders, one for each class; all {len(listed)} lie in "
                f"{self.class_names[0]!r}."
            )

    def __call__(self, file: VideoFile, frames: Sequence[int], num_frames: int) -> Tensor:
        context = torch.zeros(1, len(self.class_names))
        context[0, self.class_names.index(folder_label(file))] = 1
        return context


class ActionContext:
    """(T, 1, num_fields): for every frame of the clip, what was done on the way to it from the frame before."""

    class_names: tuple[str, ...] = ()

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)

    def __call__(self, file: VideoFile, frames: Sequence[int], num_frames: int) -> Tensor:
        actions = read_actions(file.path, self.fields, num_frames)
        return torch.from_numpy(actions_on_the_way(actions, frames)).float()[:, None]


def actions_on_the_way(actions: np.ndarray, frames: Sequence[int]) -> np.ndarray:
    """(T, A): the mean action between each two of T + 1 frames; zero between a frame and itself.

    actions: (N, A), row i held from frame i to frame i+1. They are rates (degrees per tic, speed), and the mean of a
    rate does not depend on how many frames a clip leaves out, as the sum would.
    """
    still = np.zeros(actions.shape[1])
    return np.stack([actions[first:last].mean(0) if first < last else still for first, last in pairwise(frames)])


def read_actions(video: Path, fields: Sequence[str], num_frames: int) -> np.ndarray:
    """(lines, len(fields)) float64 from `clip.jsonl` beside `clip.mp4`: line i is what was done from frame i to i+1.

    Raises UnreadableVideo, naming the line: no such file, no JSON, a field that is missing or no finite number, a line
    whose "frame" is not its place, or another number of lines than num_frames or, without the last, one less.
    """
    path = video.with_suffix(ACTIONS_SUFFIX)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UnreadableVideo(video, f"no actions beside it ({path.name})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableVideo(video, f"its actions cannot be read ({path.name}: {error})") from error
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) not in (num_frames, num_frames - 1):
        raise UnreadableVideo(video, f"{path.name} has {len(lines)} actions for {num_frames} frames")
    actions = np.zeros((len(lines), len(fields)))
    for number, line in enumerate(lines):
        try:
            actions[number] = parse_action(line, fields, number)
        except ValueError as error:
            raise UnreadableVideo(video, f"{path.name}, line {number + 1}: {error}") from error
    return actions


def parse_action(line: str, fields: Sequence[str], number: int) -> list[float]:
    """The fields' values in line `number`; ValueError saying what is wrong with it."""
    try:
        action = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(action, dict):
        raise ValueError("not an object")
    if action.get("frame", number) != number:
        raise ValueError(f"says frame {action['frame']!r}, expected {number}")
    for field in fields:
        if not _is_finite_number(action.get(field)):
            raise ValueError(f"no finite number {field!r}; it has {', '.join(action)}")
    return [float(action[field]) for field in fields]


def _is_finite_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


CONTEXTS: dict[str, Callable[[Sequence[VideoFile], Sequence[str]], ClipContext | None]] = {
    "none": lambda listed, actions: None,
    "class": lambda listed, actions: ClassContext(listed),
    "actions": lambda listed, actions: ActionContext(actions),
}
