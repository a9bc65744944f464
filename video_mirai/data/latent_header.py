"""What a sample of a latent shard says about itself, and what of it samples must share to be trained on together."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from sys import intern
from types import NoneType
from typing import Any

import numpy as np

from video_mirai.data.video_folder import RATE_TOLERANCE

FORMAT = 1
CONTEXTS = ("none", "text", "class", "actions")
SHARED = ("codec", "height", "width", "segment_frames", "context", "context_from")
FLOATS = ("float16", "float32")
LATENTS, TIMES, CONTEXT = "latents", "times", "context"


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """sha256: of the array's numbers in order, without the .npy header."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LatentHeader:
    """Header of one sample: a video, or a piece of one.

    name, source, first_frame, end_frame: as in VideoFile; the source decides the split.
    source_bytes: size of the video file.
    caption: what the video is said to show. label: its class, with context "class".
    codec: fingerprint of the codec. height, width, fps: of what was encoded, after resizing and resampling.
    resampled: whether fps was asked for.
    segment_frames: 0 where every latent frame belongs to one video frame; else the sample is a row of segments of so
        many latent frames, each encoded for itself, and clips start where segments do.
    context: "none", "text", "class" or "actions". context_from: fingerprint of the text encoder, names of the actions.
    actions_sha256: of the file that the actions come from.
    arrays: by name: latents (F, C, h, w); times (F,), seconds since the first frame; context, (L, D) for text and
        (F, 1, D) for actions.
    """

    name: str
    source: str
    source_bytes: int
    codec: str
    height: int
    width: int
    fps: float
    arrays: Mapping[str, ArrayInfo]
    resampled: bool = False
    segment_frames: int = 0
    first_frame: int = 0
    end_frame: int | None = None
    caption: str | None = None
    label: str | None = None
    context: str = "none"
    context_from: str = ""
    actions_sha256: str | None = None

    @property
    def num_frames(self) -> int:
        """Latent frames."""
        return self.arrays[LATENTS].shape[0]

    def conflict(self, other: LatentHeader) -> str | None:
        """The first thing in which samples of one data set must agree and these don't."""
        for name in SHARED:
            if getattr(self, name) != getattr(other, name):
                return name
        return "fps" if abs(self.fps / other.fps - 1) > RATE_TOLERANCE else None

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def to_bytes(self) -> bytes:
        return json.dumps(self.to_dict(), sort_keys=True).encode() + b"\n"


def describe(array: np.ndarray) -> ArrayInfo:
    numbers = np.ascontiguousarray(array, stored_dtype(array.dtype))
    return ArrayInfo(array.shape, array.dtype.name, hashlib.sha256(numbers.data).hexdigest())


TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "source": (str,),
    "source_bytes": (int,),
    "codec": (str,),
    "height": (int,),
    "width": (int,),
    "fps": (float, int),
    "arrays": (dict,),
    "resampled": (bool,),
    "segment_frames": (int,),
    "first_frame": (int,),
    "end_frame": (int, NoneType),
    "caption": (str, NoneType),
    "label": (str, NoneType),
    "context": (str,),
    "context_from": (str,),
    "actions_sha256": (str, NoneType),
}
LEAST = {"source_bytes": 0, "height": 1, "width": 1, "segment_frames": 0, "first_frame": 0}
NUM_AXES = {"text": 2, "actions": 3}  # of the context


def parse_header(text: bytes) -> LatentHeader:
    """The header that `to_bytes` wrote; ValueError with the reason, which the caller completes with the file."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a header is not JSON ({error})") from error
    return header_from(entry)


def header_from(entry: Any) -> LatentHeader:
    """The header in a JSON value; ValueError with the reason."""
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise ValueError(f"a header is not one of this project, in format {FORMAT}")
    for field in fields(LatentHeader):
        if field.name not in entry:
            raise ValueError(f"a header lacks {field.name!r}")
        if type(entry[field.name]) not in TYPES[field.name]:
            raise ValueError(f"a header has {field.name}={_short(entry[field.name])}")
    for name, least in LEAST.items():
        if entry[name] < least:
            raise ValueError(f"a header has {name}={_short(entry[name])}")
    if not _is_rate(entry["fps"]):
        raise ValueError(f"a header has fps={_short(entry['fps'])}")
    if entry["context"] not in CONTEXTS:
        raise ValueError(f"a header has context={_short(entry['context'])}")
    if entry["end_frame"] is not None and entry["end_frame"] <= entry["first_frame"]:
        raise ValueError(f"a header has end_frame={entry['end_frame']}")
    values = {field.name: entry[field.name] for field in fields(LatentHeader)}
    values |= {
        "fps": float(entry["fps"]),
        "arrays": _parse_arrays(entry["arrays"], entry["context"]),
        "codec": intern(entry["codec"]),  # the same in 100,000 samples
        "context_from": intern(entry["context_from"]),
    }
    return LatentHeader(**values)


def _parse_arrays(entry: dict[str, Any], context: str) -> dict[str, ArrayInfo]:
    expected = {LATENTS, TIMES} | ({CONTEXT} if context in NUM_AXES else set())
    if set(entry) != expected:
        raise ValueError(f"a header lists the arrays {_short(sorted(entry))}, not {sorted(expected)}")
    arrays = {intern(name): _parse_array(name, info) for name, info in entry.items()}
    num_frames = arrays[LATENTS].shape[0]
    wrong = [
        name
        for name, info, axes, dtypes in (
            (LATENTS, arrays[LATENTS], 4, FLOATS),
            (TIMES, arrays[TIMES], 1, ("float64",)),
            (CONTEXT, arrays.get(CONTEXT), NUM_AXES.get(context, 0), FLOATS),
        )
        if info is not None and (len(info.shape) != axes or info.dtype not in dtypes)
    ]
    if arrays[TIMES].shape != (num_frames,):
        wrong.append(TIMES)
    if context == "actions" and arrays[CONTEXT].shape[0] != num_frames:
        wrong.append(CONTEXT)
    if wrong:
        raise ValueError(f"a header has {wrong[0]} of {arrays[wrong[0]].dtype} {arrays[wrong[0]].shape}")
    return arrays


def _parse_array(name: str, info: Any) -> ArrayInfo:
    if not isinstance(info, dict) or set(info) != {"shape", "dtype", "sha256"}:
        raise ValueError(f"a header describes {name} as {_short(info)}")
    shape = info["shape"]
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"a header has {name} of shape {_short(shape)}")
    if not isinstance(info["dtype"], str) or not isinstance(info["sha256"], str):
        raise ValueError(f"a header describes {name} as {_short(info)}")
    return ArrayInfo(tuple(shape), intern(info["dtype"]), info["sha256"])


def _is_rate(value: float) -> bool:
    try:
        return math.isfinite(value) and value > 0
    except OverflowError:  # an integer beyond what a float holds
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def stored_dtype(dtype: str | np.dtype) -> np.dtype:
    """As it lies in the file, whatever the machine."""
    return np.dtype(dtype).newbyteorder("<")
