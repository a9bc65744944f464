"""Reading video: VideoFolder's random access through decord against a plain sequential decode of the same frames."""

import time
from itertools import islice
from pathlib import Path

import av
import numpy as np

from benchmarks.measure import Findings, Timed, ratios, take_turns
from benchmarks.sizes import LoaderSize, Sizes
from video_mirai.data.loader import EpochSampler, make_loader
from video_mirai.data.video_folder import VideoFolder
from video_mirai.media import write_video

GROUP = "Loader"
OURS, PLAIN = "VideoFolder, decord, one worker", "PyAV, every frame in order, one thread"


def measure_loader(sizes: Sizes, work_dir: Path) -> Findings:
    """Clips a second; the clips tile the videos, so that both read the same frames."""
    size = sizes.loader
    folder = work_dir / "videos"
    videos = write_videos(folder, size)
    clips = size.videos * size.clips_per_video
    variants: dict[str, Timed] = {OURS: loader_epoch(folder, size), PLAIN: lambda: decode_all(videos)}
    turns = take_turns(variants, sizes.repetitions, min(sizes.warmup, 1), "loader")
    findings = Findings()
    rates = {name: [clips / elapsed for elapsed in seconds] for name, seconds in turns.items()}
    what = f"clips of {size.clip_frames} frames, {size.width}x{size.height}"
    for name, values in rates.items():
        findings.add(GROUP, f"{name}: {what}", values, "clips/s")
    findings.add(GROUP, "VideoFolder / PyAV, clips/s", ratios(rates[OURS], rates[PLAIN]), "x")
    findings.series |= {f"{name}, clips/s": values for name, values in rates.items()}
    return findings


def write_videos(folder: Path, size: LoaderSize) -> list[Path]:
    """H.264 with one key frame a second; a moving pattern and some grain, so that the decoder has work to do."""
    rows = np.arange(size.height)[None, :, None, None]
    columns = np.arange(size.width)[None, None, :, None]
    times = np.arange(size.clips_per_video * size.clip_frames)[:, None, None, None]
    colours = np.arange(3)[None, None, None, :]
    paths = []
    for number in range(size.videos):
        generator = np.random.default_rng(number)
        waves = np.sin((columns + (2 + number) * times) / 17) + np.cos((rows - 3 * times) / 23 + colours)
        grain = generator.normal(0, 4, size=(len(times), size.height, size.width, 1))
        frames = np.clip(128 + 50 * waves + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:02d}.mp4")
        write_video(paths[-1], frames, size.fps)
    return paths


def loader_epoch(folder: Path, size: LoaderSize) -> Timed:
    """Every clip once, in random order, resized, in batches; starting the worker doesn't count."""
    dataset = VideoFolder(
        folder,
        size.clip_frames,
        height=size.clip_pixels,
        width=size.clip_pixels,
        split="all",
        stride_seconds=size.clip_frames / size.fps,
        on_bad="raise",
    )
    expected = size.videos * size.clips_per_video
    if len(dataset) != expected or expected % size.batch:
        raise RuntimeError(f"{len(dataset)} clips were cut where {expected} were meant, a multiple of {size.batch}.")
    num_batches = expected // size.batch

    def run() -> float:
        batches = iter(make_loader(dataset, EpochSampler(expected, size.batch, seed=0), num_workers=1))
        next(batches)  # now the worker runs, and is as far ahead as it will be at the end
        start = time.perf_counter()
        for _ in islice(batches, num_batches):
            pass
        return time.perf_counter() - start

    return run


def decode_all(videos: list[Path]) -> float:
    """Seconds to decode every frame to RGB, file by file."""
    start = time.perf_counter()
    for path in videos:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")
    return time.perf_counter() - start
