"""Encode every video of a folder with a codec, so that training reads latents instead of videos.

    OUT/<path of the video>.safetensors     latents (F, C, h, w), and a header: codec, frame rate, size, source

Run it again after adding videos, or after an interruption: files that are there already and fit are left alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from video_mirai.data.latent_folder import SUFFIX, LatentHeader, read_header, write_latents
from video_mirai.data.video_folder import clip_indices, count_starts
from video_mirai.data.video_list import VideoFile, list_videos
from video_mirai.data.video_reader import OpenVideo, UnreadableVideo, fit_frames, open_video
from video_mirai.models.codecs import Codec, load_codec

DTYPES = {"float16": torch.float16, "float32": torch.float32}
FRAMES_PER_READ = 256


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        encode_folder(options)
    except (ValueError, OSError) as error:
        print(f"encode_latents: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("encode_latents: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Encode every video of a folder with a codec; resumable.",
        epilog="Example: python data_tools/encode_latents.py --videos data/doom --codec data/codec --out data/latents",
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder or manifest of videos")
    parser.add_argument("--codec", type=Path, required=True, help="folder of the codec")
    parser.add_argument("--out", type=Path, required=True, help="folder for the latents")
    parser.add_argument("--height", type=int, default=64, help="frames are resized and cropped (default: %(default)s)")
    parser.add_argument("--width", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--fps", type=float, help="resample in time; default: every frame of the file")
    parser.add_argument(
        "--clip-frames",
        type=int,
        help="codecs that compress in time: frames encoded together, 1 + a multiple of the factor (e.g. 81)",
    )
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float16", help="default: %(default)s")
    parser.add_argument("--backend", default="decord", help="decord or pyav (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.05,
        help="unreadable videos are named and left out; fail when they are more than this share (default: %(default)s)",
    )
    return parser


def encode_folder(options: argparse.Namespace) -> None:
    """Encodes what is not there yet; ValueError when too many videos are bad or the settings don't fit the codec."""
    codec = load_codec(options.codec).to(options.device)
    check_options(options, codec)
    videos = list_videos(options.videos)
    pieces = [video for video in videos if video.name != video.source]
    if pieces:
        raise ValueError(
            f"{options.videos} lists pieces of videos (the first: {pieces[0].name}), which are not encoded yet; "
            f"train from the videos, or list whole files."
        )
    fingerprint = codec.fingerprint()
    bad: list[UnreadableVideo] = []
    num_kept = num_encoded = 0
    with tqdm(videos, desc="encoding", unit="video") as progress:
        for video in progress:
            target = options.out / f"{video.name}{SUFFIX}"
            if is_done(target, video, fingerprint, codec, options):
                num_kept += 1
                continue
            try:
                latents, fps = encode_video(video.path, codec, options)
            except UnreadableVideo as error:
                bad.append(error)
                progress.write(f"skipping {error}", file=sys.stderr)
                continue
            header = LatentHeader(
                codec=fingerprint,
                fps=fps,
                height=options.height,
                width=options.width,
                name=video.name,
                source_bytes=os.path.getsize(video.path),
                num_frames=len(latents),
                segment_frames=segment_frames(codec, options),
                resampled=options.fps is not None,
            )
            write_latents(target, latents.to(DTYPES[options.dtype]), header)
            num_encoded += 1
    print(f"{options.out}: {num_encoded} videos encoded, {num_kept} were there, {len(bad)} unreadable")
    if len(bad) > options.max_bad_fraction * len(videos):
        raise ValueError(
            f"{len(bad)} of {len(videos)} videos cannot be read (--max-bad-fraction {options.max_bad_fraction:g}); "
            f"the first: {bad[0]}"
        )


def check_options(options: argparse.Namespace, codec: Codec) -> None:
    codec.check_video(torch.empty(1, 1, 3, options.height, options.width))
    if options.fps is not None and options.fps <= 0:
        raise ValueError(f"--fps {options.fps} must be positive.")
    if codec.temporal_factor == 1 and options.clip_frames is not None:
        raise ValueError("--clip-frames is for codecs that compress in time; this one works frame by frame.")
    if codec.temporal_factor > 1:
        if options.clip_frames is None:
            raise ValueError(f"this codec packs {codec.temporal_factor} frames into one: --clip-frames is needed.")
        codec.num_latent_frames(options.clip_frames)


def segment_frames(codec: Codec, options: argparse.Namespace) -> int:
    return 0 if options.clip_frames is None else codec.num_latent_frames(options.clip_frames)


def is_done(target: Path, video: VideoFile, fingerprint: str, codec: Codec, options: argparse.Namespace) -> bool:
    """Whether the target was made from this very video with these very settings."""
    if not target.is_file() or not video.path.is_file():
        return False
    try:
        header = read_header(target)
    except ValueError:
        return False  # damaged, or not ours: made anew
    return (
        header.codec == fingerprint
        and (header.height, header.width) == (options.height, options.width)
        and header.name == video.name
        and header.source_bytes == os.path.getsize(video.path)
        and header.segment_frames == segment_frames(codec, options)
        and header.resampled == (options.fps is not None)
        and options.fps in (None, header.fps)
    )


def encode_video(path: Path, codec: Codec, options: argparse.Namespace) -> tuple[Tensor, float]:
    """Latents (F, C, h, w) on the CPU of a whole video, and its frame rate; reads and encodes part by part."""
    with open_video(path, options.backend) as video:
        indices = frame_indices(video.timestamps, options.fps)
        step = options.clip_frames or FRAMES_PER_READ
        # A last part that is too short cannot be encoded by a codec that compresses in time.
        end = len(indices) - len(indices) % step if options.clip_frames else len(indices)
        if end == 0:
            raise UnreadableVideo(path, f"too short ({len(indices)} frames; --clip-frames {options.clip_frames})")
        parts = [encode_frames(video, indices[first : first + step], codec, options) for first in range(0, end, step)]
        fps = options.fps if options.fps is not None else video.info.fps
    return torch.cat(parts), fps


def frame_indices(timestamps: np.ndarray, fps: float | None) -> list[int]:
    """All frames, or those nearest to regular times for as long as the video lasts."""
    if fps is None:
        return list(range(len(timestamps)))
    num_frames = int(timestamps[-1] * fps) + 2
    while count_starts(timestamps, num_frames, fps) == 0:
        num_frames -= 1
    return clip_indices(timestamps, 0, num_frames, fps)


def encode_frames(video: OpenVideo, indices: Sequence[int], codec: Codec, options: argparse.Namespace) -> Tensor:
    frames = fit_frames(video.read(indices), options.height, options.width)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return codec.encode(pixels[None].to(options.device))[0].cpu()


if __name__ == "__main__":
    sys.exit(main())
