"""A study's small files as arrays: (seeds, videos) at every evaluated step, costs, curves."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mirai.config import load_config
from video_mirai.study.collect import FACTS_FILE, STUDY_FILE, TEACHERS, read_facts
from video_mirai.study.config import PrimaryMetric, StudyConfig

Array = NDArray[np.float64]


class Values(NamedTuple):
    """A primary metric of one arm.

    Attributes:
        numbers: (seeds, steps, videos); one "video" where the metric is of a whole set.
        seeds, steps, videos: what the axes stand for.
    """

    numbers: Array
    seeds: list[int]
    steps: list[int]
    videos: list[str]


class Cost(NamedTuple):
    """Of one job. attempts: how often it was started."""

    cpu_seconds: float
    wall_seconds: float
    attempts: int
    revision: str
    commands: list[str]


class StudyNumbers:
    """Reads RESULTS as it is asked for; nothing else is needed."""

    def __init__(self, results: Path) -> None:
        """FileNotFoundError where nothing was collected yet."""
        if not (results / STUDY_FILE).is_file() or not (results / FACTS_FILE).is_file():
            raise FileNotFoundError(f"{results} holds no results of a study; run some of its jobs first.")
        self.results = results
        self._read: dict[Path, list[dict[str, str]]] = {}
        self.config = load_config(StudyConfig, results / STUDY_FILE)
        self.facts: dict[str, Any] = read_facts(results)
        self.num_steps = int(self.facts["num_steps"])
        self.steps = [int(step) for step in self.facts["steps"]]

    def other_arms(self) -> list[str]:
        """All but the reference."""
        return [arm for arm in self.config.arms if arm != self.config.reference]

    def training(self, arm: str, seed: int) -> list[dict[str, float]]:
        """Logged rows of a training, empty before it has finished: {"step": ..., name: value}."""
        rows = self._rows(self._folder(arm, seed) / "training.csv")
        return [{key: float(value) for key, value in row.items() if value} for row in rows]

    def curves(self, arm: str, seed: int) -> dict[str, tuple[list[int], list[float]]]:
        """{metric: (frames, means over videos)} of the finished model's rollouts."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for row in self._rows(self._folder(arm, seed) / "curves.csv"):
            if row["mean"]:
                frames, means = found.setdefault(row["metric"], ([], []))
                frames.append(int(row["frame"]))
                means.append(float(row["mean"]))
        return found

    def cost(self, arm: str, seed: int, kind: str) -> Cost | None:
        """Of an arm's "train", "evaluate" or "probe"; None before it has finished."""
        return _read_cost(self._folder(arm, seed) / f"{kind}.json")

    def teacher_cost(self, teacher: str) -> Cost | None:
        return _read_cost(self.results / TEACHERS / teacher / "teacher.json")

    def seconds(self, cost: Cost) -> float:
        """What the study calls compute."""
        return cost.cpu_seconds if self.config.cost == "cpu_seconds" else cost.wall_seconds

    def values(self, metric: PrimaryMetric, arm: str) -> Values:
        """Numbers of an arm; no seeds where there are none yet. Of a probe: the arm's own R2, at the end."""
        if metric.source == "probe":
            return self._probe(metric, arm, "arm" if arm != self.config.reference else "reference")
        by_seed = {seed: self._of_seed(metric, arm, seed) for seed in self.config.seeds}
        return _stack({seed: found for seed, found in by_seed.items() if found}, self.steps)

    def probe_pair(self, target: str, offset: int, readout: str, arm: str) -> tuple[Values, Values]:
        """R2 of an arm and of the reference, read in the same probe."""
        metric = PrimaryMetric("", "probe", "higher", target=target, offset=offset, readout=readout)  # type: ignore[arg-type]
        return self._probe(metric, arm, "arm"), self._probe(metric, arm, "reference")

    def probe_places(self) -> list[tuple[str, int, str]]:
        """(target, offset, readout) of everything that was probed."""
        found: dict[tuple[str, int, str], None] = {}
        for arm in self.config.arms:
            for seed in self.config.seeds:
                for row in self._rows(self._folder(arm, seed) / "probe.csv"):
                    found[row["target"], int(row["offset"]), row["readout"]] = None
        return list(found)

    def _probe(self, metric: PrimaryMetric, arm: str, column: str) -> Values:
        """The reference itself is never probed; its numbers stand in the first other arm's probe."""
        probed = arm if arm != self.config.reference else next(iter(self.other_arms()), arm)
        place = (metric.target, str(metric.offset), metric.readout)
        by_seed = {}
        for seed in self.config.seeds:
            rows = self._rows(self._folder(probed, seed) / "probe.csv")
            numbers = {
                row["video"]: _value(row[column])
                for row in rows
                if (row["target"], row["offset"], row["readout"]) == place
            }
            if numbers:
                by_seed[seed] = {self.num_steps: numbers}
        return _stack(by_seed, [self.num_steps])

    def _of_seed(self, metric: PrimaryMetric, arm: str, seed: int) -> dict[int, dict[str, float]]:
        """{step: {video: number}}."""
        folder = self._folder(arm, seed)
        found: dict[int, dict[str, float]] = {}
        if metric.source == "video":
            for row in self._rows(folder / "per_video.csv"):
                found.setdefault(int(row["step"]), {})[row["clip"]] = _value(row[metric.key])
            return found
        rows = [row for row in self._rows(folder / "windows.csv") if row["key"] == metric.key]
        numbers = sorted({int(row["window"]) for row in rows})
        for row in rows:
            if int(row["window"]) == numbers[metric.window]:
                found[int(row["step"])] = {"set": _value(row["value"])}
        return found

    def _rows(self, path: Path) -> list[dict[str, str]]:
        """Of a CSV file, read once; none where it is not there yet."""
        if path not in self._read:
            self._read[path] = []
            if path.is_file():
                with path.open(newline="", encoding="utf-8") as file:
                    self._read[path] = list(csv.DictReader(file))
        return self._read[path]

    def _folder(self, arm: str, seed: int) -> Path:
        return self.results / arm / f"seed{seed}"


def shared(a: Values, b: Values) -> tuple[Values, Values]:
    """Both with the seeds and videos that both have."""
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    videos = [video for video in a.videos if video in b.videos]
    return _chosen(a, seeds, videos), _chosen(b, seeds, videos)


def _chosen(values: Values, seeds: list[int], videos: list[str]) -> Values:
    rows, columns = [values.seeds.index(seed) for seed in seeds], [values.videos.index(video) for video in videos]
    return values._replace(numbers=values.numbers[rows][:, :, columns], seeds=seeds, videos=videos)


def _stack(by_seed: dict[int, dict[int, dict[str, float]]], steps: list[int]) -> Values:
    """Videos that every seed and step has."""
    tables = [table for found in by_seed.values() for table in found.values()]
    videos = [video for video in tables[0] if all(video in table for table in tables)] if tables else []
    numbers = [
        [[found[step][video] if step in found else np.nan for video in videos] for step in steps]
        for found in by_seed.values()
    ]
    shape = (len(by_seed), len(steps), len(videos))
    return Values(np.array(numbers, dtype=np.float64).reshape(shape), list(by_seed), steps, videos)


def _read_cost(path: Path) -> Cost | None:
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Cost(
        found["cpu_seconds"], found["wall_seconds"], len(found["attempts"]), found["revision"], found["commands"]
    )


def _value(text: str) -> float:
    return float(text) if text else float("nan")
