"""Whether a video decodes to its end, and whether random access gives the frames that a sequential decode gives.

A frame got by random access is recognised by its picture, so that a reader which is off by some frames is
caught, and the reason says which frame came for which.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from video_mirai.data.decord_video import open_decord
from video_mirai.data.pyav_video import open_pyav
from video_mirai.data.sequential_decode import SequentialDecode, decode_sequentially, shrink
from video_mirai.data.video_list import USABLE
from video_mirai.data.video_protocol import OpenVideo, UnreadableVideo
from video_mirai.data.video_reader import available_backend

NEEDS_TRANSCODE, BAD = "needs-transcode", "bad"

NEIGHBOURHOOD = 300  # frames before and after: where a frame that was not asked for is looked for
SAME_ERROR = 1.0  # mean squared grey levels; decoders differ by 0.3 on 10-bit files, by nothing on others
FOREIGN_ERROR = 64.0  # more than this from every frame near it: a broken picture
CLIP_FRAMES = 8  # frames that every second read asks for; the others ask for one
MAX_KEY_FRAMES = 8  # around which is read
ROUNDING_SECONDS = 1e-3  # Matroska's unit of time

OpenReader = Callable[[Path], AbstractContextManager[OpenVideo]]
# Each alone: a reader that has once fallen back on another one would hide what decord gets wrong in a fresh process.
OPENERS: dict[str, OpenReader] = {"decord": open_decord, "pyav": open_pyav}


class Comparison(NamedTuple):
    """wrong: what differs without a word from the reader; refused: the first error that it raised, empty for none."""

    wrong: list[str]
    refused: str


class VideoCheck(NamedTuple):
    """verdict: "ok", "needs-transcode" or "bad"; reason: "kind: detail", empty for ok; decoded: None for bad."""

    verdict: str
    reason: str
    decoded: SequentialDecode | None


def check_video(path: Path, backend: str = "decord", seed: int = 0, num_positions: int = 16) -> VideoCheck:
    """Decodes a whole file and compares random access with it, at seeded positions and around key frames.

    Memory: 1 KiB a frame. Damage is never raised, but ends in the verdict.

    Args:
        backend: of `video_reader.open_video`; what the training will read with.
        num_positions: random ones, besides the first frame, the last and those around key frames.
    """
    try:
        decoded = decode_sequentially(path)
    except UnreadableVideo as error:
        return VideoCheck(BAD, error.reason, None)
    clips = _clips(decoded, random.Random(seed), num_positions)
    used = available_backend(backend)
    compared = compare_random_access(path, OPENERS[used], decoded, clips)
    if used == "decord" and compared.refused and not compared.wrong:
        compared = compare_random_access(path, open_pyav, decoded, clips)  # as `open_video` does
    problems = [problem for problem in (*compared.wrong, compared.refused) if problem]
    if problems:
        return VideoCheck(NEEDS_TRANSCODE, "; ".join(problems), decoded)
    return VideoCheck(USABLE, "", decoded)


def compare_random_access(
    path: Path, open_reader: OpenReader, decoded: SequentialDecode, clips: Iterable[range]
) -> Comparison:
    """What a reader gives otherwise than the sequential decode: frames, their number, their times."""
    wrong_frames: dict[int, str] = {}
    tried: set[int] = set()
    wrong: list[str] = []
    refused = ""
    try:
        with ExitStack() as stack:
            video = stack.enter_context(open_reader(path))
            wrong = list(_wrong_times(decoded, video.timestamps))
            num_frames = min(decoded.facts.frames, len(video.timestamps))
            for clip in clips:
                asked = range(clip.start, min(clip.stop, num_frames))
                if not asked:
                    continue
                try:
                    frames = video.read(asked)
                except UnreadableVideo as error:
                    refused = refused or f"random access: cannot give frame {asked[0]} ({_placeless(path, error)})"
                    stack.close()
                    video = stack.enter_context(open_reader(path))  # this one may refuse everything from now on
                    continue
                tried.update(asked)
                wrong_frames |= _wrong_frames(decoded.pictures, asked, frames)
    except UnreadableVideo as error:
        refused = refused or f"random access: cannot open it ({_placeless(path, error)})"
    if wrong_frames:
        share = f"({len(wrong_frames)} of {len(tried)} frames tried are wrong)"
        wrong.insert(0, f"random access: gives {wrong_frames[min(wrong_frames)]} {share}")
    return Comparison(wrong, refused)


def match_picture(pictures: np.ndarray, picture: np.ndarray, index: int, same_error: float = SAME_ERROR) -> int | None:
    """Number of the frame that a picture shows: `index` where it fits as well as any, None where none near it fits.

    Args:
        pictures: (N, side, side) uint8, the frames as they are.
        picture: (side, side) uint8, what was got for frame `index`.
        same_error: mean squared grey levels by which another frame must fit better to be taken.
    """
    first = max(0, index - NEIGHBOURHOOD)
    near = pictures[first : index + NEIGHBOURHOOD + 1].astype(np.float32)
    errors = np.square(near - picture.astype(np.float32)).mean((1, 2))  # (M,)
    if errors.min() > FOREIGN_ERROR:
        return None
    if errors[index - first] <= errors.min() + same_error:
        return index
    return first + int(errors.argmin())


def tolerated_seconds(seconds: np.ndarray) -> float:
    """By how much two lists of presentation times (N,) may differ: a quarter of a frame, or what rounding costs."""
    return max(float(np.median(np.diff(seconds))) / 4, ROUNDING_SECONDS) if len(seconds) > 1 else ROUNDING_SECONDS


def _clips(decoded: SequentialDecode, generator: random.Random, num_positions: int) -> list[range]:
    """Frame numbers to read at once, in random order: first, last, beside key frames, and anywhere."""
    num_frames = decoded.facts.frames
    later_key_frames = [number for number in decoded.key_frames if number > 0]
    key_frames = generator.sample(later_key_frames, min(MAX_KEY_FRAMES, len(later_key_frames)))
    beside = (number + offset for number in key_frames for offset in (-2, -1, 0, 1))
    anywhere = (generator.randrange(num_frames) for _ in range(num_positions))
    starts = sorted({number for number in (0, num_frames - 1, *beside, *anywhere) if 0 <= number < num_frames})
    generator.shuffle(starts)
    # A single frame is sought; those that follow it are decoded one after the other.
    lengths = (1 + (CLIP_FRAMES - 1) * (turn % 2) for turn in range(len(starts)))
    return [range(start, min(start + length, num_frames)) for start, length in zip(starts, lengths, strict=True)]


def _wrong_times(decoded: SequentialDecode, timestamps: np.ndarray) -> Iterator[str]:
    if len(timestamps) != decoded.facts.frames:
        yield f"frame count: {len(timestamps)} by random access, {decoded.facts.frames} when played"
    if decoded.seconds is None:
        yield "timestamps: the file has none"
        return
    if (np.diff(decoded.seconds) < 0).any():
        yield "timestamps: they go back"
    num_frames = min(decoded.facts.frames, len(timestamps))
    errors = np.abs(timestamps[:num_frames] - decoded.seconds[:num_frames])
    wrong = ~(errors <= tolerated_seconds(decoded.seconds))  # NaN counts as wrong
    if wrong.any():
        frame = int(wrong.argmax())
        given, truth = timestamps[frame], decoded.seconds[frame]
        yield f"timestamps: frame {frame} is at {given:.3f} s by random access, {truth:.3f} s when played"


def _wrong_frames(pictures: np.ndarray, asked: Sequence[int], frames: np.ndarray) -> dict[int, str]:
    """What was given in place of each frame that is not the one asked for."""
    wrong = {}
    for number, frame in zip(asked, frames, strict=True):
        given = match_picture(pictures, shrink(frame), number)
        if given is None:
            wrong[number] = f"a picture like no frame near it where {number} was asked for"
        elif given != number:
            wrong[number] = f"frame {given} where {number} was asked for"
    return wrong


def _placeless(path: Path, error: UnreadableVideo) -> str:
    """A reader's reason without the time of day, its source line and the file's folder: the same in every run."""
    reason = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", error.reason)
    return reason.replace(str(path.absolute()), path.name).replace(str(path), path.name)
