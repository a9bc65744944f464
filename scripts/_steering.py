"""What steers a rollout of a model with a context: classes and actions, for all frames or for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _texts import ScheduledText, TextFormat

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from video_mirai.build import LoadedRun

CLASS, ACTIONS, TEXT = "class", "actions", "text"


class Steering(NamedTuple):
    """What the command line says, at most one of: a class for all frames, a file with a line for every generated frame,
    texts with the frame that each begins at.
    """

    label: str | None
    actions: Path | None
    texts: list[ScheduledText]
    text_encoder: Path | None


class ContextKind(NamedTuple):
    """kind: "none", "class", "actions" or "text"; names: of the classes, or of the actions."""

    kind: str
    names: tuple[str, ...]
    text: TextFormat | None = None


class FrameContexts:
    """The context of every frame, those of the history first; lines are read when their frame's turn comes.

    Behind the last frame asked for its context is repeated: rollouts come in whole chunks.
    """

    def __init__(self, history: Tensor, lines: Iterator[Tensor], num_frames: int, batch_size: int, name: str) -> None:
        """history: (F, L, D); lines: (L, D) each, num_frames of them are needed; name: of where they come from."""
        self._history = history
        self._lines = lines
        self._num_frames = num_frames
        self._batch_size = batch_size
        self._name = name
        self._lines_read = 0
        self._last: Tensor | None = None

    def __call__(self, first_frame: int, num_frames: int) -> Tensor:
        """(batch_size, num_frames, L, D); first_frame has to go on where the last call ended."""
        import torch

        frames = [self._of(number) for number in range(first_frame, first_frame + num_frames)]
        return torch.stack(frames)[None].expand(self._batch_size, -1, -1, -1)

    def _of(self, frame: int) -> Tensor:
        if frame < len(self._history):
            return self._history[frame]
        assert frame == len(self._history) + self._lines_read or self._lines_read == self._num_frames
        if self._lines_read < self._num_frames:
            self._last = next(self._lines, None)
            if self._last is None:
                raise ValueError(
                    f"{self._name} ends after {self._lines_read} frames, and {self._num_frames} are to be generated."
                )
            self._lines_read += 1
        assert self._last is not None
        return self._last


def context_kind(run: LoadedRun, split: str) -> ContextKind:
    """What the run's model was trained with; classes, and actions in latents, are read from its data."""
    from video_mirai.build import build_data_set
    from video_mirai.data.latent_header import CONTEXT
    from video_mirai.data.latent_shards import LatentShards
    from video_mirai.data.video_folder import VideoFolder

    folder = run.config.data.video_folder if run.config.data.kind == "video_folder" else None
    if run.model.config.text_dim is None:
        return ContextKind("none", ())
    if folder is not None and folder.context == ACTIONS:
        return ContextKind(ACTIONS, tuple(folder.actions))
    data = build_data_set(run.config.data, split=split)
    assert isinstance(data, VideoFolder | LatentShards), "scenes have no context"
    if folder is not None:
        return ContextKind(folder.context, data.class_names)
    assert isinstance(data, LatentShards)
    if data.context == ACTIONS:
        return ContextKind(ACTIONS, tuple(data.samples[0].header.context_from.split(",")))
    text = None
    if data.context == TEXT:
        header = data.samples[0].header
        text = TextFormat(header.arrays[CONTEXT].shape[0], header.context_from)
    return ContextKind(data.context, data.class_names, text)


def check_steering(kind: ContextKind, steering: Steering, num_frames: int) -> None:
    """ValueError where the command line asks for what the model cannot do."""
    if sum((steering.label is not None, steering.actions is not None, bool(steering.texts))) > 1:
        raise ValueError("of --class, --actions and --text more than one is given; choose one.")
    if steering.texts and kind.text is None:
        raise ValueError(f"--text: this model's context is {kind.kind!r}.")
    if bool(steering.texts) != (steering.text_encoder is not None):
        raise ValueError("--text and --text-encoder go together.")
    if steering.label is not None:
        if kind.kind != CLASS:
            raise ValueError(f"--class {steering.label}: this model's context is {kind.kind!r}.")
        _class_number(steering.label, kind.names)
    if steering.actions is not None:
        if kind.kind not in (CLASS, ACTIONS):
            raise ValueError(f"--actions {steering.actions}: this model's context is {kind.kind!r}.")
        _check_length(steering.actions, num_frames)


def steer(
    kind: ContextKind,
    steering: Steering,
    known: Tensor | None,
    history_frames: int,
    num_frames: int,
    batch_size: int,
    device: torch.device,
) -> Tensor | FrameContexts | None:
    """The context as a rollout takes it.

    known: what the history's source knows, as History.context has it.
    history_frames, num_frames: given and to generate; a context for each frame goes with a codec that packs none.
    Raises:
        ValueError: nothing says what the context is.
    """
    import torch

    if kind.kind == "none":
        return None
    if steering.label is not None:
        known = _one_hot(_class_number(steering.label, kind.names), len(kind.names))[None]
    known = known.to(device) if known is not None else None
    if steering.actions is not None:
        lines = (line.to(device) for line in read_lines(steering.actions, kind))
        if known is None:
            past = torch.zeros(history_frames, 1, len(kind.names), device=device)
        else:
            past = known.expand(history_frames, -1, -1) if known.ndim == 3 else known[0, :history_frames]
        return FrameContexts(past, lines, num_frames, batch_size, f"--actions {steering.actions}")
    if known is not None and known.ndim == 3:
        return known.expand(batch_size, -1, -1)
    if known is None or known.shape[1] < history_frames + num_frames:
        raise ValueError(_advice(kind, 0 if known is None else known.shape[1] - history_frames, num_frames))
    return FrameContexts(known[0, :history_frames], iter(known[0, history_frames:]), num_frames, batch_size, "history")


def _advice(kind: ContextKind, num_known: int, num_frames: int) -> str:
    names = f" ({', '.join(kind.names)})" if kind.names else ""
    options = {
        CLASS: "give --class NAME or --actions FILE",
        ACTIONS: "give --actions FILE",
        TEXT: "give --text and --text-encoder",
    }
    return (
        f"this model's context is {kind.kind!r}{names}, and the history knows it for {max(0, num_known)} of the "
        f"{num_frames} frames to come; {options[kind.kind]}."
    )


def known_actions(
    fields: tuple[str, ...],
    video: Path,
    times: np.ndarray,
    fps: float,
    start: int,
    history_frames: int,
    *,
    to_the_end: bool,
) -> Tensor | None:
    """(1, frames, 1, A) from `clip.jsonl` beside `clip.mp4`, or None: of the history, or of all that follows as well.

    times: (N,) seconds of the file's frames; the history starts at frame `start`.
    """
    from video_mirai.data.clip_context import ACTIONS_SUFFIX, ActionContext
    from video_mirai.data.video_folder import clip_indices, count_starts, frame_before
    from video_mirai.data.video_list import VideoFile

    num_frames = history_frames
    if to_the_end:
        num_frames = int((times[-1] - times[start]) * fps) + 1
        num_frames -= count_starts(times, num_frames, fps) == 0
    if not fields or not num_frames or not video.with_suffix(ACTIONS_SUFFIX).is_file():
        return None
    indices = [frame_before(times, start, fps), *clip_indices(times, start, num_frames, fps)]
    return ActionContext(fields)(VideoFile(video, video.name, video.name), indices, len(times))[None]


def read_lines(path: Path, kind: ContextKind) -> Iterator[Tensor]:
    """(1, D) for every line of a .jsonl file, read one by one, so that it may be a pipe.

    A line is {"class": name} for classes, and for actions {name: number, ...}, as record_doom.py writes them; a "frame"
    in it has to be the line's number, from 0. Raises ValueError that names the line.
    """
    import torch

    from video_mirai.data.clip_context import parse_action

    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(line for line in file if line.strip()):
            try:
                if kind.kind == CLASS:
                    yield _one_hot(_class_number(_label_in(line), kind.names), len(kind.names))
                else:
                    yield torch.tensor([parse_action(line, kind.names, number)], dtype=torch.float32)
            except ValueError as error:
                raise ValueError(f"{path}, line {number + 1}: {error}") from error


def _label_in(line: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(entry, dict) or CLASS not in entry:
        raise ValueError(f'no "{CLASS}"')
    return str(entry[CLASS])


def _class_number(label: str, names: tuple[str, ...]) -> int:
    if label in names:
        return names.index(label)
    raise ValueError(f"class {label!r} is unknown; known: {', '.join(names)}.")


def _one_hot(number: int, count: int) -> Tensor:
    """(1, count)."""
    import torch

    return torch.eye(count)[number : number + 1]


def _check_length(path: Path, num_frames: int) -> None:
    """ValueError for an ordinary file with too few lines; a pipe is only known while it is read."""
    if not path.exists():
        raise FileNotFoundError(f"--actions {path}: no such file.")
    if not path.is_file():
        return
    with path.open("rb") as file:
        found = sum(1 for _ in islice((line for line in file if line.strip()), num_frames))
    if found < num_frames:
        raise ValueError(f"--actions {path} has {found} lines, and {num_frames} frames are to be generated.")
