"""Methods compared that were each trained with several seeds: the seeds are resampled first, then the videos.

The i-th run of every group belongs together. All runs have to be evaluated on the same histories with the same noise.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from video_mirai.evaluation.aggregate import Resampling
from video_mirai.evaluation.bootstrap import paired_seed_bootstrap
from video_mirai.evaluation.compare import (
    Compared,
    MetricDifference,
    SeedValues,
    check_same_meaning,
    comparable_metrics,
    interval_kind,
    means_by_video,
    set_kind,
    why_unpaired,
)
from video_mirai.evaluation.evaluated_row import EvaluatedRow, load_row
from video_mirai.evaluation.results import Estimate
from video_mirai.evaluation.row_scores import SetStatistic


class Group(NamedTuple):
    """One method. rows: an evaluation for each training seed."""

    name: str
    rows: list[EvaluatedRow]


class _Values(NamedTuple):
    """One metric of two groups, (seeds,) each, and their difference; left_out: videos without a value in some run."""

    baseline: list[float]
    ours: list[float]
    difference: Estimate
    num_videos: int
    left_out: int


def load_group(text: str) -> Group:
    """NAME=FOLDER[:ROW],FOLDER[:ROW],... as on the command line.

    Raises:
        FileNotFoundError, ValueError: another form, one run alone, a run that is there twice or cannot be read.
    """
    name, separator, places = text.partition("=")
    rows = [load_row(place) for place in places.split(",") if place]
    if not (separator and name and rows):
        raise ValueError(f"--group {text}: expected NAME=FOLDER[:ROW],FOLDER[:ROW],... with a run for each seed.")
    if len(rows) < 2:
        raise ValueError(f"--group {name} has one run; 2 seeds or more are needed, or compare without --group.")
    must_differ: dict[str, list[Hashable]] = {
        "evaluation": [(row.folder.resolve(), row.name) for row in rows],
        "training seed": [training_seed(row) for row in rows],
        "weights": [_weights(row) for row in rows],
    }
    for what, identities in must_differ.items():
        known = [identity for identity in identities if identity is not None]
        if len(set(known)) < len(known):
            raise ValueError(f"--group {name} has the same {what} twice; seeds that are copies of one say nothing new.")
    return Group(name, rows)


def training_seed(row: EvaluatedRow) -> int | None:
    """The seed that the row's checkpoint was trained with; None where it is not known, as of folders of videos."""
    return next((model.get("training_seed") for model in row.result["models"] if model["name"] == row.name), None)


def compare_groups(groups: Sequence[Group], resampling: Resampling) -> Compared:
    """Every later group minus the first one.

    Raises:
        ValueError: fewer than two groups, groups of different seeds, histories or settings.
    """
    if len({group.name for group in groups}) < max(2, len(groups)):
        raise ValueError(f"{len(groups)} groups given; a comparison needs two or more, of different names.")
    first = groups[0]
    for group in groups:
        _check_paired(group, first)
    differences, seeds, notes = [], [], _notes(groups)
    for group in groups[1:]:
        for key, why in _refused(group, first).items():
            notes.append(f"{key} is not compared for {group.name}: {why}.")
        for key, metric in first.rows[0].metrics.items():
            if key in _refused(group, first):
                continue
            values = _values(group, first, key, resampling)
            if values is None:
                continue
            if values.left_out:
                notes.append(f"{key}: {values.left_out} videos have no value in some run and are left out in all.")
            by_seed = [ours - other for ours, other in zip(values.ours, values.baseline, strict=True)]
            kind = interval_kind(first.rows[0], key, values.difference)
            baseline = float(np.mean(values.baseline))
            differences.append(
                MetricDifference(
                    group.name, metric, baseline, values.difference, "paired", values.num_videos, kind, by_seed
                )
            )
            names = [_seed_name(row, i) for i, row in enumerate(first.rows)]
            seeds += [
                SeedValues(found.name, metric, names, of_seeds)
                for found, of_seeds in ((first, values.baseline), (group, values.ours))
            ]
    return Compared(first.name, [group.name for group in groups[1:]], differences, notes, _once(seeds))


def _check_paired(group: Group, first: Group) -> None:
    if len(group.rows) != len(first.rows):
        raise ValueError(
            f"{group.name} has {len(group.rows)} runs, {first.name} has {len(first.rows)}; give as many of each, one "
            "for each training seed, in the same order."
        )
    for row, other in zip(group.rows, first.rows, strict=True):
        ours, theirs = training_seed(row), training_seed(other)
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                f"{row.folder}:{row.name} was trained with seed {ours}, but its partner {other.folder}:{other.name} "
                f"with {theirs}; give both groups' runs in the same order of seeds."
            )
        check_same_meaning(row, first.rows[0])
        reason = why_unpaired(row, first.rows[0])
        if reason:
            raise ValueError(
                f"{row.folder} can't be paired with {first.rows[0].folder}: {reason}; evaluate every run on the same "
                "histories with the same seed."
            )


def _refused(group: Group, first: Group) -> dict[str, str]:
    """Metrics that some run has not, or made differently, and why."""
    refused: dict[str, str] = {}
    for row in [*group.rows, *first.rows[1:]]:
        for key, why in comparable_metrics(row, first.rows[0])[1].items():
            refused.setdefault(key, f"{why} ({row.folder})")
    return refused


def _values(group: Group, first: Group, key: str, resampling: Resampling) -> _Values | None:
    kind = set_kind(first.rows[0], key, resampling.seed)
    if kind is not None:
        return _of_sets(group, first, kind, resampling)
    means = [means_by_video(row.scores.scores, key) for row in (*first.rows, *group.rows)]
    videos = [video for video in means[0] if all(video in of_row for of_row in means)]
    if not videos:
        return None
    left_out = len(set().union(*means)) - len(videos)
    values = np.array([[of_row[video] for video in videos] for of_row in means])
    baseline, ours = values[: len(first.rows)], values[len(first.rows) :]  # (seeds, videos)
    if len(videos) < 2:
        difference = Estimate(float((ours - baseline).mean()))
    else:
        found = paired_seed_bootstrap(ours, baseline, num_resamples=resampling.num_resamples, seed=resampling.seed)
        difference = Estimate(*found)
    return _Values(baseline.mean(axis=1).tolist(), ours.mean(axis=1).tolist(), difference, len(videos), left_out)


def _of_sets(group: Group, first: Group, kind: SetStatistic, resampling: Resampling) -> _Values | None:
    """A number of whole sets; its interval is half the spread over drawn seeds and random halves of the videos."""

    def differences(videos: np.ndarray | None) -> list[float]:
        return [
            kind.value(row.scores, videos) - kind.value(other.scores, videos)
            for row, other in zip(group.rows, first.rows, strict=True)
        ]

    baseline, ours = ([kind.value(row.scores, None) for row in found.rows] for found in (first, group))
    value = float(np.mean(differences(None)))
    if not math.isfinite(value):
        return None
    num_videos = group.rows[0].scores.num_videos
    subsets = resampling.subsets(num_videos) if kind.resampled else []
    if not subsets:
        return _Values(baseline, ours, Estimate(value), num_videos, 0)
    by_half = np.array([differences(subset) for subset in subsets])  # (halves, seeds)
    rng = np.random.default_rng(resampling.seed)
    seeds = rng.integers(by_half.shape[1], size=(resampling.num_resamples, by_half.shape[1]))
    halves = rng.integers(len(by_half), size=(resampling.num_resamples, 1))
    low, high = np.quantile(by_half[halves, seeds].mean(axis=1), [0.025, 0.975])
    half = float(high - low) / 2
    return _Values(baseline, ours, Estimate(value, value - half, value + half), num_videos, 0)


def _notes(groups: Sequence[Group]) -> list[str]:
    """That pairs are by order, where the files don't say which seed a run was trained with."""
    unknown = [group.name for group in groups if any(training_seed(row) is None for row in group.rows)]
    if not unknown:
        return []
    return [f"The training seeds of {', '.join(unknown)} are not in the files: runs are paired in the order given."]


def _seed_name(row: EvaluatedRow, index: int) -> str:
    seed = training_seed(row)
    return f"run {index + 1}" if seed is None else f"seed {seed}"


def _weights(row: EvaluatedRow) -> str | None:
    return next((str(model["sha256"]) for model in row.result["models"] if model["name"] == row.name), None)


def _once(seeds: Sequence[SeedValues]) -> list[SeedValues]:
    """The baseline's values come up with every other group; the first mention stays."""
    return list({(found.metric.key, found.name): found for found in reversed(seeds)}.values())[::-1]
