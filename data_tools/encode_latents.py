"""Encode every video of a folder or a manifest with a codec, so that training reads latents instead of videos.

    OUT/shard-000000.tar          latents, and where asked for text embeddings or actions: a webdataset shard
    OUT/shard-000000.index.json   what lies where in it, and its checksum

Run it again after adding videos, or after an interruption: samples that are there already and fit are left alone, and
what is new goes into new shards. A shard is there whole or not at all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from isolated_pool import Outcome, run_isolated
from latent_encoding import (
    HIGHEST_RATE,
    EncodeSettings,
    EncodeTask,
    encode_on_one_thread,
    is_made_as_planned,
    planned_header,
    shared_header,
)
from shard_plan import (
    SHARD_NAME,
    ShardPlan,
    check_others,
    find_samples,
    locked,
    plan_shards,
    remove_superseded,
    tidy,
)
from tool_cli import check_device, run_tool
from video_mirai.data.captions import CAPTIONS, with_captions
from video_mirai.data.latent_header import FLOATS
from video_mirai.data.latent_index import list_shards, open_shard, verify_shard
from video_mirai.data.latent_writer import write_shard
from video_mirai.data.video_list import VideoFile, list_videos
from video_mirai.data.video_reader import READERS, available_backend
from video_mirai.models.codecs import Codec, load_codec


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    work = verify if options.verify else encode_folder
    return run_tool("encode_latents", lambda: work(options), "run the same command again to go on")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Encode every video of a folder or a manifest with a codec into latent shards; resumable.",
        epilog="Example: python data_tools/encode_latents.py --videos data/doom --codec data/codec --out data/latents",
    )
    shown = "default: %(default)s"
    parser.add_argument("--videos", type=Path, help="folder or manifest of videos")
    parser.add_argument("--codec", type=Path, help="folder of the codec")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument(
        "--verify", action="store_true", help="encode nothing: read all of --out and name what is damaged"
    )
    parser.add_argument("--height", type=int, default=64, help=f"frames are resized and cropped ({shown})")
    parser.add_argument("--width", type=int, default=64, help=f"({shown})")
    parser.add_argument("--fps", type=float, help="resample in time; default: every frame of the file")
    parser.add_argument(
        "--clip-frames",
        type=int,
        help="codecs that compress in time: frames encoded together, 1 + a multiple of the factor (e.g. 81)",
    )
    parser.add_argument("--dtype", choices=FLOATS, default=FLOATS[0], help=shown)
    add_conditioning(parser)
    parser.add_argument("--samples-per-shard", type=int, default=64, help=f"videos in a shard ({shown})")
    parser.add_argument("--backend", choices=sorted(READERS), default="decord", help=shown)
    parser.add_argument("--device", default="cpu", help=shown)
    parser.add_argument(
        "--processes",
        type=int,
        help="videos encoded side by side, one thread each; the result does not depend on it (default: one per core on "
        "the CPU, except with a text encoder, which each process loads; else 1)",
    )
    parser.add_argument(
        "--timeout", type=float, default=3600.0, metavar="SECONDS",
        help="with several processes: a video that takes longer is unreadable (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.05,
        help=f"unreadable videos are named and left out; fail when they are more than this share ({shown})",
    )
    return parser


def add_conditioning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--captions",
        choices=list(CAPTIONS),
        default="none",
        help="stored with the samples: from clip.txt or clip.json beside clip.mp4, the manifest, or the folder's name "
        "(default: %(default)s)",
    )
    context = parser.add_mutually_exclusive_group()
    context.add_argument(
        "--text-encoder",
        type=Path,
        metavar="DIR",
        help="folder of a text encoder and its tokenizer (extra hf): the captions' embeddings become the context",
    )
    context.add_argument("--classes", action="store_true", help="the folder's name, one-hot, becomes the context")
    context.add_argument(
        "--actions", nargs="+", default=[], metavar="NAME", help="numbers of clip.jsonl that become the context"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=512, help="of a caption, longer ones are cut (default: %(default)s)"
    )


def encode_folder(options: argparse.Namespace) -> None:
    """Encodes what is not there yet; ValueError when too many videos are bad or the settings don't fit the codec."""
    settings = settings_from(options)
    codec = load_codec(options.codec)
    check_settings(settings, codec, options)
    videos = with_known_captions(list_videos(options.videos), options.captions)
    shared = shared_header(settings, codec)
    options.out.mkdir(parents=True, exist_ok=True)
    with locked(options.out):
        tidy(options.out)
        found = find_samples(options.out)
        check_others(found, videos, shared)
        planned = {video.name: planned_header(video, shared) for video in videos}
        kept = {
            name
            for name, header in planned.items()
            if name in found.samples and is_made_as_planned(found.samples[name].header, header, settings.dtype)
        }
        todo = [video for video in videos if video.name not in kept]
        outdated = sum(video.name in found.samples for video in todo)
        if outdated:
            print(
                f"{options.out}: {outdated} videos were encoded otherwise before, or have changed; they are encoded "
                f"anew, and their old shards removed when all is done.",
                file=sys.stderr,
            )
        plans = plan_shards(todo, planned, settings, found, options.out, options.samples_per_shard)
        bad = encode_all(plans, options)
        remove_superseded(options.out, found, {video.name for video in todo})
    others = len(found.samples.keys() - planned.keys())
    print(
        f"{options.out}: {len(todo) - len(bad)} videos encoded, {len(kept)} were there, {len(bad)} unreadable"
        + (f", {others} not in {options.videos} left as they were" if others else "")
    )
    if len(bad) > options.max_bad_fraction * len(videos):
        raise ValueError(
            f"{len(bad)} of {len(videos)} videos cannot be read (--max-bad-fraction {options.max_bad_fraction:g}); "
            f"the first: {bad[0]}"
        )


def settings_from(options: argparse.Namespace) -> EncodeSettings:
    if options.videos is None or options.codec is None:
        raise ValueError("--videos and --codec are needed, except with --verify.")
    context = "none"
    if options.text_encoder is not None:
        context = "text"
    elif options.classes:
        context = "class"
    elif options.actions:
        context = "actions"
    return EncodeSettings(
        codec=options.codec,
        height=options.height,
        width=options.width,
        fps=options.fps,
        clip_frames=options.clip_frames,
        dtype=options.dtype,
        backend=available_backend(options.backend),
        device=options.device,
        context=context,
        text_encoder=options.text_encoder,
        max_tokens=options.max_tokens,
        actions=tuple(options.actions),
    )


def check_settings(settings: EncodeSettings, codec: Codec, options: argparse.Namespace) -> None:
    """ValueError for what cannot be, or does not fit the codec."""
    for name in ("height", "width", "samples_per_shard", "max_tokens", "processes", "timeout"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} {value:g} must be positive.")
    if not 0 <= options.max_bad_fraction <= 1:
        raise ValueError(f"--max-bad-fraction {options.max_bad_fraction:g} must be from 0 to 1.")
    if settings.fps is not None and not 0 < settings.fps <= HIGHEST_RATE:
        raise ValueError(f"--fps {settings.fps:g} must be above 0 and at most {HIGHEST_RATE:g}.")
    check_device(settings.device)
    codec.check_video(torch.empty(1, 1, 3, settings.height, settings.width))
    if codec.temporal_factor == 1 and settings.clip_frames is not None:
        raise ValueError("--clip-frames is for codecs that compress in time; this one works frame by frame.")
    if codec.temporal_factor > 1:
        if settings.clip_frames is None:
            raise ValueError(f"this codec packs {codec.temporal_factor} frames into one: --clip-frames is needed.")
        if settings.clip_frames < 1:
            raise ValueError(f"--clip-frames {settings.clip_frames} must be positive.")
        codec.num_latent_frames(settings.clip_frames)
        if settings.context == "actions":
            raise ValueError("--actions, one row for each frame, don't go with a codec that packs several into one.")
    if settings.context == "text" and options.captions == "none":
        raise ValueError("--text-encoder needs captions: --captions sidecar, manifest or folder.")


def with_known_captions(videos: Sequence[VideoFile], captions: str) -> list[VideoFile]:
    """The videos with their captions; how many have none is said, and ValueError where all of them lack one."""
    captioned = [video._replace(caption=CAPTIONS[captions](video)) for video in videos]
    lacking = [video.name for video in captioned if not video.caption]
    if captions != "none" and len(lacking) == len(captioned):
        with_captions(videos, captions)  # says what it looked for
    if captions != "none" and lacking:
        print(f"{len(lacking)} of {len(videos)} videos have no caption and count as the empty text; the first: "
              f"{lacking[0]}", file=sys.stderr)  # fmt: skip
    return [video._replace(caption=video.caption or "") if captions != "none" else video for video in captioned]


def encode_all(plans: Sequence[ShardPlan], options: argparse.Namespace) -> list[str]:
    """Encodes all videos and writes each shard as soon as its last one is done; returns what could not be read."""
    tasks = [task for plan in plans for task in plan.tasks]
    owners = [plan for plan in plans for _ in plan.tasks]
    num_left = {plan.number: len(plan.tasks) for plan in plans}
    bad: dict[int, str] = {}
    try:
        with tqdm(total=len(tasks), desc="encoding", unit="video") as progress:
            for outcome in outcomes_of(tasks, options):
                if reason := reason_of(outcome, tasks[outcome.number]):
                    bad[outcome.number] = reason
                    tasks[outcome.number].part.unlink(missing_ok=True)
                    progress.write(f"skipping {reason}", file=sys.stderr)
                plan = owners[outcome.number]
                num_left[plan.number] -= 1
                if num_left[plan.number] == 0:
                    join_parts(plan, options.out)
                progress.update()
    finally:
        for task in tasks:
            task.part.unlink(missing_ok=True)
    return [bad[number] for number in sorted(bad)]


def outcomes_of(tasks: Sequence[EncodeTask], options: argparse.Namespace) -> Iterator[Outcome]:
    """The outcome of every task, as they come."""
    one_each = options.device == "cpu" and options.text_encoder is None
    processes = options.processes or ((os.cpu_count() or 1) if one_each else 1)
    if processes == 1:
        for number, task in enumerate(tasks):
            yield Outcome(number, encode_on_one_thread(task), "")
        return
    try:
        yield from run_isolated(encode_on_one_thread, tasks, processes, options.timeout)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def reason_of(outcome: Outcome, task: EncodeTask) -> str:
    """Why a video is unreadable, or nothing; ValueError for what is wrong with more than this video."""
    if outcome.failure.startswith("failed: "):
        raise ValueError(f"{task.video.name}: {outcome.failure.removeprefix('failed: ')}")
    return f"{task.video.path}: {outcome.failure}" if outcome.failure else outcome.value


def join_parts(plan: ShardPlan, out: Path) -> None:
    parts = [task.part for task in plan.tasks if task.part.exists()]
    write_shard(out / SHARD_NAME.format(plan.number), (part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def verify(options: argparse.Namespace) -> None:
    """Reads all of --out; ValueError with the first of the problems, all of which are printed."""
    out = options.out
    shards = list_shards(out)
    problems: list[str] = []
    with tqdm(shards, desc="verifying", unit="shard") as progress:
        for path in progress:
            for problem in verify_shard(path):
                problems.append(problem)
                progress.write(problem, file=sys.stderr)
    if problems:
        raise ValueError(
            f"{len(problems)} problems in {len(shards)} shards; the first: {problems[0]}. Remove those shards and run "
            f"the tool again: it encodes them anew."
        )
    num_samples = sum(len(open_shard(path).samples) for path in shards)
    print(f"{out}: {len(shards)} shards with {num_samples} samples, everything as it was written")


if __name__ == "__main__":
    sys.exit(main())
