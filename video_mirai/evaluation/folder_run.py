"""An evaluation of folders of videos: every video scored, rows, galleries and facts handed to `publish`.

Processes divide the videos; the numbers don't depend on how many there are.
"""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from video_mirai.evaluation.contestants import COPY_ROW, REAL_ROW, TRUTH, Processes
from video_mirai.evaluation.detectors import Detector
from video_mirai.evaluation.findings import Comparison, Findings
from video_mirai.evaluation.generation import StoredClip
from video_mirai.evaluation.metric_table import UNPAIRED
from video_mirai.evaluation.networks import (
    build_detectors,
    build_frame_encoders,
    build_lpips,
    cached_detectors,
    describe_encoders,
)
from video_mirai.evaluation.protocol import Protocol, copy_last_frame
from video_mirai.evaluation.report import Gallery, Strip
from video_mirai.evaluation.results import ClipsInfo, VBenchInfo
from video_mirai.evaluation.row_scores import RowScores, Timeline, VideoScores, clip_timeline
from video_mirai.evaluation.run import scores_by_row
from video_mirai.evaluation.samples import merge_samples
from video_mirai.evaluation.video_sets import (
    REAL,
    CommonFormat,
    FolderConfig,
    VideoSet,
    check_samples,
    common_format,
    describe_clip_rule,
    open_samples,
    open_sets,
    paired_keys,
    read_video,
    rules_of,
    set_info,
    usable,
)
from video_mirai.media import VideoWriter

COPY_FIRST_ROW = "copy-first-frame"
# Real against real splits the real videos in two; a covariance needs two on either side.
MIN_REAL_VIDEOS = 4


class _Folders(NamedTuple):
    """The sets, real first, with what they share.

    Attributes:
        samples: further samples of a set's videos, by its name. numbers: clip number by `identity`.
    """

    config: FolderConfig
    sets: list[VideoSet]
    samples: dict[str, list[VideoSet]]
    wanted: CommonFormat
    timeline: Timeline
    numbers: dict[str, int]

    def number(self, of_set: int, key: str) -> int:
        return self.numbers[_identity(self.config, of_set, key)]

    def read(self, found: VideoSet, key: str) -> StoredClip:
        video = next(video for video in found.videos if video.key == key)
        return read_video(video, self.wanted, self.config.backend)


def evaluate_folders(
    config: FolderConfig,
    processes: Processes,
    device: torch.device,
    *,
    allow_import: bool = False,
    vbench: tuple[VBenchInfo, ...] = (),
) -> Findings:
    """Score every video. Every process calls it; the main one publishes what it returns.

    Raises:
        FileNotFoundError, ValueError: folders that cannot be compared, a video that cannot be read, a missing detector.
    """
    detectors = build_detectors(config, device, allow_import=allow_import)
    folders = _open(config)
    encoders = build_frame_encoders(config, device)
    protocol = Protocol(
        config, folders.timeline, detectors, encoders, None, describe_clip_rule(config),
        build_lpips(config, device), 1 + max((len(found) for found in folders.samples.values()), default=0),
    )  # fmt: skip
    tasks = [(i, key) for i, found in enumerate(folders.sets) for key in found.names]
    cached = cached_detectors(config, detectors, device)
    mine: list[tuple[str, VideoScores]] = []
    for of_set, key in tqdm(
        tasks[processes.rank :: processes.num_processes], desc="score", unit="video", disable=not processes.is_main
    ):
        if of_set == 0:
            mine += _score_real(folders, protocol, key, cached)
        else:
            mine.append(_score_fake(folders, protocol, of_set, key))
    rows = _rows(folders, scores_by_row(processes.gather(mine)))
    comparisons, notes = _comparisons(rows)
    infos = [set_info(found) for found in (*folders.sets, *(s for of_row in folders.samples.values() for s in of_row))]
    return Findings(
        config=config,
        settings=asdict(config) | {"num_frames": folders.wanted.num_frames, "fps": folders.wanted.fps,
                                   "height": folders.wanted.height, "width": folders.wanted.width},
        protocol=protocol,
        detectors=detectors,
        rows=rows,
        comparisons=comparisons,
        clips=_clips_info(folders, infos[0].sha256),
        rules=rules_of(config, folders.wanted, folders.sets) | describe_encoders(encoders),
        galleries=_galleries(folders, rows) if processes.is_main else [],
        video_sets=infos,
        vbench=list(vbench),
        notes=notes,
    )  # fmt: skip


def _open(config: FolderConfig) -> _Folders:
    scanned, more = open_sets(config), open_samples(config)
    wanted = common_format(config, [*scanned, *(found for of_row in more.values() for found in of_row)])
    sets = [usable(found, wanted) for found in scanned]
    samples = {found.name: [usable(other, wanted) for other in more.get(found.name, [])] for found in sets[1:]}
    check_samples(sets[1:], samples)
    timeline = clip_timeline(wanted.num_frames - config.history_frames, config.window_frames, config.stride_frames)
    if config.clip_rule != "sliding":
        timeline = timeline._replace(starts=[start for start, _ in timeline.windows])
    known = dict.fromkeys(_identity(config, i, key) for i, found in enumerate(sets) for key in found.names)
    return _Folders(
        config, sets, samples, wanted, timeline, {identity: number for number, identity in enumerate(known)}
    )


def _identity(config: FolderConfig, of_set: int, key: str) -> str:
    """Videos with one identity are compared with each other: those of one name, real ones only where asked for."""
    return f"{REAL}:{key}" if of_set == 0 and not config.pair else key


def _clip_starts(folders: _Folders, key: str) -> tuple[list[int], tuple[int, ...] | None]:
    """Starts of the clips of one video, and which of them the distance over the whole is made of (None: all)."""
    starts = folders.timeline.starts
    if folders.config.clip_rule == "sliding":
        return starts, None
    if folders.config.clip_rule == "first":
        return starts, (0,)
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    rng = np.random.default_rng([folders.config.seed, int.from_bytes(digest[:8], "big")])
    last = folders.timeline.horizon_frames - folders.timeline.window_frames
    return [*starts, int(rng.integers(last + 1))], (len(starts),)


def _score_real(
    folders: _Folders, protocol: Protocol, key: str, cached: dict[str, Detector]
) -> list[tuple[str, VideoScores]]:
    """A real video, and its first or last given frame repeated."""
    starts, pooled = _clip_starts(folders, key)
    truth, number = folders.read(folders.sets[0], key), folders.number(0, key)
    copied = copy_last_frame(truth, folders.config.history_frames)
    found = [
        (TRUTH, protocol.score(number, truth, None, starts=starts, detectors=cached)),
        (COPY_ROW, protocol.score(number, copied, truth, starts=starts)),
    ]
    return [(row, replace(score, pooled=pooled)) for row, score in found]


def _score_fake(folders: _Folders, protocol: Protocol, of_set: int, key: str) -> tuple[str, VideoScores]:
    real, fake = folders.sets[0], folders.sets[of_set]
    starts, pooled = _clip_starts(folders, key)
    truth = folders.read(real, key) if key in paired_keys(folders.config, real, fake) else None
    number = folders.number(of_set, key)
    scores = [
        protocol.score(number, folders.read(sample, key), truth, starts=starts)
        for sample in (fake, *folders.samples[fake.name])
    ]
    return fake.name, replace(merge_samples(scores), pooled=pooled)


def _rows(folders: _Folders, scores: dict[str, list[VideoScores]]) -> list[RowScores]:
    """Generated sets, the copied frame, then half of the real videos against the other half."""
    config, timeline, truth = folders.config, folders.timeline, scores[TRUTH]
    rows = [
        RowScores(fake.name, "model", _same_numbers(scores[fake.name]), truth, timeline, config.ddof)
        for fake in folders.sets[1:]
    ]
    copy_name = COPY_ROW if config.history_frames else COPY_FIRST_ROW
    rows.append(RowScores(copy_name, "copy", scores[COPY_ROW], truth, timeline, config.ddof))
    if len(truth) >= MIN_REAL_VIDEOS:
        order = np.random.default_rng(config.seed).permutation(len(truth))
        half = len(truth) // 2
        first, second = ([truth[i] for i in sorted(part)] for part in (order[:half], order[half : 2 * half]))
        rows.append(RowScores(REAL_ROW, "real", first, second, timeline, config.ddof))
    return rows


def _same_numbers(scores: list[VideoScores]) -> list[VideoScores]:
    """Scores with one set of numbers and curves: videos without a real one have NaN where the others are paired."""
    numbers = dict.fromkeys(key for score in scores for key in score.numbers)
    curves = {key: len(curve) for score in scores for key, curve in score.curves.items()}
    return [
        replace(
            score,
            numbers={key: score.numbers.get(key, np.nan) for key in numbers},
            curves={key: score.curves.get(key, np.full(length, np.nan)) for key, length in curves.items()},
        )
        for score in scores
    ]


def _comparisons(rows: list[RowScores]) -> tuple[list[Comparison], list[str]]:
    """Differences between rows of the same videos, and a sentence for those that have none."""
    models = [row for row in rows if row.kind == "model"]
    wanted = [Comparison(row, models[0]) for row in models[1:]]
    wanted += [Comparison(row, copy, UNPAIRED) for copy in rows if copy.kind == "copy" for row in models]
    found, notes = [], []
    for comparison in wanted:
        ours, other = ([score.clip for score in row.scores] for row in comparison[:2])
        if ours == other:
            found.append(comparison)
        else:
            notes.append(
                f"{comparison.row.name} and {comparison.reference.name} hold videos of other names, so they are "
                "compared as sets and have no paired difference."
            )
    return found, notes


def _clips_info(folders: _Folders, real_sha256: str) -> ClipsInfo:
    config, wanted = folders.config, folders.wanted
    fakes = folders.sets[1:]
    return ClipsInfo(
        dataset=config.real,
        split="all",
        fps=wanted.shown_fps,
        height=wanted.height,
        width=wanted.width,
        num_clips=max(len(fake.videos) for fake in fakes),
        num_source_videos=len({key for fake in fakes for key in fake.names}),
        num_real_clips=len(folders.sets[0].videos),
        history_frames=config.history_frames,
        horizon_frames=wanted.num_frames - config.history_frames,
        training_frames=config.training_frames,
        clip_rule=describe_clip_rule(config),
        seed=config.seed,
        clips_sha256=real_sha256,
    )


def _galleries(folders: _Folders, rows: list[RowScores]) -> list[Gallery]:
    """The first videos by name of every set, then those where the last set does worst."""
    models = [row for row in rows if row.kind == "model"]
    fixed = list(dict.fromkeys(score.clip for row in models for score in row.scores[: folders.config.fixed_videos]))
    last = models[-1]
    how, ranked = _from_worst(last)
    worst = [clip for clip in ranked if clip not in fixed][: folders.config.worst_videos]
    return [
        Gallery(
            "Side by side",
            f"The first {folders.config.fixed_videos} videos of every folder by name, with those of the same name in "
            "the others.",
            [_strip(folders, clip) for clip in fixed],
            pause_button=True,
        ),
        Gallery(f"Worst {len(worst)}", f"The other videos of {last.name} {how}.", [_strip(folders, c) for c in worst]),
    ]


def _from_worst(row: RowScores) -> tuple[str, list[int]]:
    """How videos are ranked, in words, and their clip numbers, worst first."""
    psnr = [score.numbers.get("psnr", np.nan) for score in row.scores]
    if np.isfinite(psnr).all():
        return "with the lowest mean PSNR", [row.scores[i].clip for i in np.argsort(psnr, kind="stable")]
    label = row.labels()[0]
    centre = np.mean([score.features[label].mean(axis=0) for score in row.reference], axis=0)
    away = [-float(np.linalg.norm(score.features[label].mean(axis=0) - centre)) for score in row.scores]
    how = f"whose mean features ({label}) lie farthest from those of the real videos"
    return how, [row.scores[i].clip for i in np.argsort(away, kind="stable")]


def _strip(folders: _Folders, clip: int) -> Strip:
    key = next(identity for identity, number in folders.numbers.items() if number == clip)
    videos = []
    for i, found in enumerate(folders.sets):
        if key in found.names and folders.number(i, key) == clip:
            path = Path(folders.config.out) / "videos" / found.name / f"{clip:04d}.mp4"
            with VideoWriter(path, folders.wanted.shown_fps) as writer:
                writer.append(folders.read(found, key).frames)
            videos.append((found.name, path.read_bytes()))
    return Strip(f"{key} ·", videos)
