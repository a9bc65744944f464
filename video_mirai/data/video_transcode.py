"""Rewrites a video as H.264 that random access reads right, without touching the original."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import numpy as np

from video_mirai.data.sequential_decode import SequentialDecode
from video_mirai.data.video_check import VideoCheck, check_video, match_picture, tolerated_seconds

CRF = 17  # visually lossless
DEFAULT_GOP_FRAMES = 30  # where the file doesn't say its frame rate
TIME_BASE = "1/90000"  # seconds; whole for the usual frame rates, 29.97 among them
LOSSY_ERROR = 16.0  # mean squared grey levels of a shrunk picture that one more encoding may cost
COMPARED_FRAMES = 64


class TranscodeFailed(ValueError):
    """The rewritten file could not be made, or is not the same video; the message is the reason, without a path."""


def transcode(source: Path, target: Path, decoded: SequentialDecode, timeout_seconds: float | None = None) -> None:
    """Writes the frames of `source` into `target`, an .mp4 that is there whole or not at all; folders are made.

    H.264 with a closed GOP of about a second and no B-frames: the order of the file is the order shown, so no edit list
    is needed. Every frame keeps its number, and its time after the first, also with a variable frame rate, so that what
    is known about frames of the original (captions, shots, actions) stays right. No sound; odd sizes lose a line.

    Args:
        decoded: of the source.
    Raises: TranscodeFailed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.stem}.unfinished.mp4")
    try:
        _run_ffmpeg(source, unfinished, round(decoded.facts.fps or DEFAULT_GOP_FRAMES), timeout_seconds)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def check_transcoded(target: Path, source: SequentialDecode, backend: str, seed: int = 0) -> VideoCheck:
    """The check of a rewritten file; TranscodeFailed where it is not the source's video, or no better than it."""
    check = check_video(target, backend, seed)
    if check.decoded is None or check.reason:
        raise TranscodeFailed(check.reason)
    if len(check.decoded.pictures) != len(source.pictures):
        raise TranscodeFailed(f"it has {len(check.decoded.pictures)} frames instead of {len(source.pictures)}")
    compared = random.Random(seed).sample(range(len(source.pictures)), min(COMPARED_FRAMES, len(source.pictures)))
    for number in sorted(compared):
        if match_picture(check.decoded.pictures, source.pictures[number], number, LOSSY_ERROR) != number:
            raise TranscodeFailed(f"frame {number} is not the original's")
    if source.seconds is not None and check.decoded.seconds is not None and (np.diff(source.seconds) >= 0).all():
        errors = np.abs(check.decoded.seconds - source.seconds)
        if errors.max() > tolerated_seconds(source.seconds):
            raise TranscodeFailed(f"frame {int(errors.argmax())} is shown at another time than in the original")
    return check


def _run_ffmpeg(source: Path, target: Path, gop_frames: int, timeout_seconds: float | None) -> None:
    import imageio_ffmpeg

    frames = ["-map", "0:v:0", "-map_metadata", "-1", "-fps_mode", "passthrough", "-enc_time_base", TIME_BASE]
    filters = ["-vf", "setpts=PTS-STARTPTS,crop=trunc(iw/2)*2:trunc(ih/2)*2"]
    quality = ["-c:v", "libx264", "-crf", str(CRF), "-pix_fmt", "yuv420p", "-threads", "1"]
    gop = ["-g", str(max(1, gop_frames)), "-bf", "0", "-flags", "+cgop", "-movflags", "+faststart"]
    quiet = ["-nostdin", "-y", "-loglevel", "error"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, "-i", f"file:{source}", *frames, *filters, *quality, *gop]
    try:
        done = subprocess.run([*command, f"file:{target}"], capture_output=True, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise TranscodeFailed(f"ffmpeg took more than {timeout_seconds:g} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise TranscodeFailed(f"ffmpeg failed ({said[0]})")
