"""Reading video: VideoFolder's random access against a plain sequential decode of the same frames."""

import os
import time
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from benchmarks.measure import Findings, Timed, ratios, take_turns
from benchmarks.sizes import LoaderSize, Sizes
from video_mirai.data.batch_stream import BatchStream, LoaderConfig
from video_mirai.data.loader import EpochSampler
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_reader import available_backend
from video_mirai.media import VideoWriter

GROUP = "Loader"
PLAIN, BARE = "PyAV in order, to RGB, one thread", "PyAV in order, no RGB, one thread"
AT_KEY_FRAMES = "VideoFolder, pyav, clips that start at key frames, one worker"
LEAST_SHARE = 0.8  # of the plain decode's clips a second
LINEAR = 0.9  # of as many times the speed as there are workers


def measure_loader(sizes: Sizes, work_dir: Path) -> Findings:
    """Clips a second of every size, by backend, and by one worker or one for each core."""
    findings = Findings()
    for size in sizes.loaders:
        label = f"{size.width}x{size.height}, key frame every {size.key_frame_every}"
        measure_size(size, label, sizes, work_dir / label, findings)
    return findings


def measure_size(size: LoaderSize, label: str, sizes: Sizes, folder: Path, findings: Findings) -> None:
    """Adds the rows of one size; the clips tile the videos, but for those that start at key frames or drawn places."""
    videos = write_videos(folder, size)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    backends = list(dict.fromkeys(["pyav", available_backend("decord")]))
    ours = {backend: f"VideoFolder, {backend}, one worker" for backend in backends}
    many = f"VideoFolder, {backends[0]}, {cores} workers"
    tiled = size.clip_frames
    variants: dict[str, Timed] = {name: loader_epoch(folder, size, backend, 1, tiled) for backend, name in ours.items()}
    variants[AT_KEY_FRAMES] = loader_epoch(folder, size, backends[0], 1, size.key_frame_every)
    repeated = {number: f"VideoFolder, pyav, {number} clips a place, one worker" for number in size.clips_per_place}
    variants |= {name: repeated_epoch(folder, size, backends[0], number) for number, name in repeated.items()}
    variants |= {PLAIN: lambda: decode_all(videos, to_rgb=True), BARE: lambda: decode_all(videos, to_rgb=False)}
    if cores > 1:
        variants[many] = loader_epoch(folder, size, backends[0], cores, tiled)
    turns = take_turns(variants, sizes.repetitions, min(sizes.warmup, 1), f"loader, {label}")
    clips = dict.fromkeys(variants, size.videos * size.clips_per_video)
    clips[AT_KEY_FRAMES] = size.videos * clips_at_key_frames(size)
    rates = {name: [clips[name] / elapsed for elapsed in seconds] for name, seconds in turns.items()}
    for name, values in rates.items():
        findings.add(GROUP, f"{label}: {name}", values, "clips/s")
        findings.series[f"{label}: {name}, clips/s"] = values
    findings.add(GROUP, f"{label}: frames decoded for each of a clip", [decoded_per_frame(size)], "x")
    for number in repeated:
        findings.add(GROUP, f"{label}: the same, {number} clips a place", [decoded_at_places(size, number)], "x")
    for backend, name in ours.items():
        values = ratios(rates[name], rates[PLAIN])
        at_least = LEAST_SHARE if size.target and backend == backends[0] else None
        findings.add(GROUP, f"{label}: VideoFolder, {backend} / PyAV to RGB", values, "x", at_least=at_least)
    at_least = LEAST_SHARE if size.target else None
    for name in (AT_KEY_FRAMES, *repeated.values()):
        values = ratios(rates[name], rates[PLAIN])
        findings.add(GROUP, f"{label}: {name} / PyAV to RGB", values, "x", at_least=at_least)
    for name in (ours[backends[0]], *repeated.values()):
        findings.add(GROUP, f"{label}: {name} / PyAV, no RGB", ratios(rates[name], rates[BARE]), "x")
    if cores > 1:
        speedup = ratios(rates[many], rates[ours[backends[0]]])
        name = f"{label}: {cores} workers / one worker"
        findings.add(GROUP, name, speedup, "x", at_least=LINEAR * cores if size.target else None)


def decoded_per_frame(size: LoaderSize) -> float:
    """A clip is decoded from the key frame before it, so on average more than its own frames are."""
    starts = np.arange(size.clips_per_video) * size.clip_frames
    return float(np.mean(starts % size.key_frame_every + size.clip_frames)) / size.clip_frames


def decoded_at_places(size: LoaderSize, clips_per_place: int) -> float:
    """The expected value for places that are drawn, each of which is decoded from the key frame before it."""
    clip_frames = clips_per_place * size.clip_frames
    starts = np.arange(size.clips_per_video * size.clip_frames - clip_frames + 1)
    return float(np.mean(starts % size.key_frame_every + clip_frames)) / clip_frames


def write_videos(folder: Path, size: LoaderSize) -> list[Path]:
    """H.264; a moving pattern and some grain, so that the decoder has work to do."""
    rows = np.arange(size.height)[None, :, None, None]
    columns = np.arange(size.width)[None, None, :, None]
    colours = np.arange(3)[None, None, None, :]
    paths = []
    for number in range(size.videos):
        generator = np.random.default_rng(number)
        paths.append(folder / f"{number:02d}.mp4")
        with VideoWriter(paths[-1], fps=size.key_frame_every) as writer:  # its key frames are a second apart
            for moment in range(size.clips_per_video * size.clip_frames):
                waves = np.sin((columns + (2 + number) * moment) / 17) + np.cos((rows - 3 * moment) / 23 + colours)
                grain = generator.normal(0, 4, size=(1, size.height, size.width, 1))
                writer.append(np.clip(128 + 50 * waves + grain, 0, 255).astype(np.uint8))
    return paths


def clips_at_key_frames(size: LoaderSize) -> int:
    """Of one video."""
    return 1 + (size.clips_per_video - 1) * size.clip_frames // size.key_frame_every


def loader_epoch(folder: Path, size: LoaderSize, backend: str, num_workers: int, stride_frames: int) -> Timed:
    """Every clip once, in random order, resized, in batches.

    stride_frames: from the start of a clip to that of the next.
    """
    dataset = VideoFolder(
        folder,
        size.clip_frames,
        height=size.clip_pixels,
        width=size.clip_pixels,
        split="all",
        stride_seconds=stride_frames / size.key_frame_every,
        backend=backend,
        on_bad="raise",
    )
    in_one = size.clips_per_video if stride_frames == size.clip_frames else clips_at_key_frames(size)
    expected = size.videos * in_one
    if len(dataset) != expected or expected % size.batch:
        raise RuntimeError(f"{len(dataset)} clips were cut where {expected} were meant, a multiple of {size.batch}.")
    return timed_epoch(dataset, EpochSampler(expected, size.batch, seed=0), num_workers)


def repeated_epoch(folder: Path, size: LoaderSize, backend: str, clips_per_place: int) -> Timed:
    """As many clips as tile the videos, by one worker, from places that are drawn."""
    dataset = VideoFolder(
        folder,
        size.clip_frames,
        height=size.clip_pixels,
        width=size.clip_pixels,
        split="all",
        clips_per_video=size.clips_per_video,
        clips_per_place=clips_per_place,
        backend=backend,
        on_bad="raise",
    )
    batch = max(size.batch, clips_per_place)
    return timed_epoch(dataset, EpochSampler(len(dataset), batch, seed=0, clips_per_place=clips_per_place), 1)


def timed_epoch(dataset: VideoFolder, sampler: EpochSampler, num_workers: int) -> Timed:
    """Reads an epoch, in order of the sampler; starting the workers doesn't count."""

    def run() -> float:
        with BatchStream(dataset, sampler, LoaderConfig(num_workers=num_workers)) as batches:
            next(batches)  # now the workers run, and are as far ahead as they will be at the end
            start = time.perf_counter()
            for _ in islice(batches, sampler.steps_per_epoch):
                pass
            return time.perf_counter() - start

    return run


def decode_all(videos: list[Path], *, to_rgb: bool) -> float:
    """Seconds to decode every frame, file by file; pictures are converted as quickly as PyAV can in one thread."""
    converter = VideoReformatter()
    one_thread = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}  # before, there was no choice
    start = time.perf_counter()
    for path in videos:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                if to_rgb:
                    converter.reformat(frame, format="rgb24", **one_thread).to_ndarray()
    return time.perf_counter() - start
