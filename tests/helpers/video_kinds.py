"""Small video files of many kinds whose frames carry their number as a bar code, and ways of damaging them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

WIDTH, HEIGHT = 96, 64
NUM_FRAMES, FPS, GOP = 40, 10, 12
BITS_WIDE, BITS_HIGH = 4, 2  # black or white fields, one a bit
DARK, BRIGHT = 16, 235

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "18")
B_FRAMES = ("-bf", "3", "-x264-params", "b-adapt=0:scenecut=0")
OPEN_GOP = ("-bf", "3", "-x264-params", f"open-gop=1:keyint={GOP}:min-keyint={GOP}:b-adapt=0:scenecut=0")
# Ten frames at 10 a second, then a frame after 0.45 s, and so on.
UNEVEN = ("-vf", "settb=1/1000,setpts=N*100+floor(N/10)*350", "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-g", str(GOP), "-r", "25")
KINDS = {
    "plain.mp4": (*X264, "-g", str(GOP), "-bf", "0"),
    "b_frames.mp4": (*X264, "-g", str(GOP), *B_FRAMES),
    "long_gop.mp4": (*X264, "-g", "1000", "-x264-params", "scenecut=0"),
    "variable_rate.mp4": (*X264, "-g", str(GOP), "-bf", "0", *UNEVEN),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-crf", "10", "-b:v", "0", "-g", str(GOP), "-deadline", "realtime"),
    "late.mkv": (*X264, "-g", str(GOP), "-output_ts_offset", "5"),
    "open_gop.mp4": (*X264, *OPEN_GOP),
    "open_gop.mkv": (*X264, *OPEN_GOP),
    "no_b_frames.ts": (*X264, "-g", str(GOP), "-bf", "0"),
    "b_frames.ts": (*X264, "-g", str(GOP), *B_FRAMES),
    "mpeg2.mpg": (*MPEG2, "-vf", "settb=1/25,setpts=N,fps=25"),
    # Frames are repeated to make 25 a second; not every one has a time of its own, and those in between go back.
    # With fewer threads, as on a machine with one core, the encoder gives other times.
    "mpeg2_sparse_times.mpg": (*MPEG2, "-threads", "4"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2", "-g", str(GOP)),
    "flash.mp4": (*X264, "-g", str(GOP), "-bf", "0", "-f", "flv"),
    "no_times.mp4": (*X264, "-g", str(GOP), "-f", "h264"),  # a bare stream, whatever its name says
}


def write_kind(folder: Path, kind: str) -> Path:
    """One of KINDS, of NUM_FRAMES frames, or "edit_list.mp4", which starts with frame 16, or "rotated.mp4"."""
    path = folder / kind
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "edit_list.mp4":
        run_ffmpeg("-ss", "1.55", "-i", write_kind(folder / "whole", "b_frames.mp4"), "-c", "copy", path)
    elif kind == "rotated.mp4":
        run_ffmpeg("-display_rotation", "90", "-i", write_kind(folder / "upright", "plain.mp4"), "-c", "copy", path)
    else:
        raw = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-")
        frames = b"".join(bar_code(number).tobytes() for number in range(NUM_FRAMES))
        run_ffmpeg(*raw, "-pix_fmt", "yuv420p", *KINDS[kind], path, frames=frames)
    return path


def write_sound(path: Path) -> Path:
    run_ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path)
    return path


def run_ffmpeg(*arguments: str | Path, frames: bytes = b"") -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, input=frames, check=True)


def bar_code(number: int) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8."""
    bits = [BRIGHT if number >> bit & 1 else DARK for bit in range(BITS_WIDE * BITS_HIGH)]
    fields = np.array(bits, np.uint8).reshape(BITS_HIGH, BITS_WIDE)
    return fields.repeat(HEIGHT // BITS_HIGH, 0).repeat(WIDTH // BITS_WIDE, 1)


def numbers(pictures: np.ndarray) -> list[int]:
    """The numbers in upright pictures (N, h, w) or (N, h, w, 3), of any size."""
    grey = pictures.reshape(*pictures.shape[:3], -1).mean(3)
    height, width = grey.shape[1] // BITS_HIGH, grey.shape[2] // BITS_WIDE
    centres = grey[:, height // 2 :: height, width // 2 :: width] > 128
    return [int(sum(1 << bit for bit, is_set in enumerate(picture.flat) if is_set)) for picture in centres]


def truncate(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damage(path: Path, share: float = 0.5) -> Path:
    """Noise in place of a twentieth of the file, from a share of its length on."""
    content = bytearray(path.read_bytes())
    first, length = int(len(content) * share), len(content) // 20
    content[first : first + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(content)
    return path
