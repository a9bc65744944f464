"""StudyConfig: which runs a study is made of, and by which numbers, fixed beforehand, it is judged."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

_NAME = re.compile(r"[\w-]+")
# With one of these different, arms would not see the same data in the same order for the same number of steps.
NEVER_DIFFERENT = ("seed", "data", "train.num_steps", "train.batch_size", "train.gradient_accumulation")


@dataclass
class TeacherSpec:
    """A training that every arm may share. config: of scripts/train_video.py; overrides: key=value."""

    config: str
    seed: int = 0
    overrides: list[str] = field(default_factory=list)


@dataclass
class ArmSpec:
    """One kind of training, run once for each seed.

    Attributes:
        config: of scripts/train_video.py. overrides: key=value, after the study's.
        teacher: one of the study's teachers; its run becomes foresight.teacher.checkpoint.
        may_differ: settings, besides foresight.*, in which this arm is meant to differ from the reference.
    """

    config: str
    teacher: str | None = None
    overrides: list[str] = field(default_factory=list)
    may_differ: list[str] = field(default_factory=list)


@dataclass
class CommandSpec:
    """Settings of scripts/evaluate.py or scripts/probe.py. config: YAML file; overrides: key=value."""

    config: str
    overrides: list[str] = field(default_factory=list)


@dataclass
class PrimaryMetric:
    """A number that the study is judged by.

    Attributes:
        name: in the report.
        source: "video": the column `key` of an evaluation's per_video.csv. "window": the Frechet distance `key` of
            the window number `window`. "probe": R2 of `target` at `offset`, read with `readout`.
        key: such as identity_persistence or fd_state; of a probe not used.
        window: from 0; negative ones count from the end.
        target: "pixels", "position" or "velocity". offset: latent frames ahead. readout: "ridge" or "mlp".
        decimals: shown.
    """

    name: str
    source: Literal["video", "window", "probe"]
    better: Literal["higher", "lower"]
    key: str = ""
    window: int = -1
    target: str = "pixels"
    offset: int = 1
    readout: Literal["ridge", "mlp"] = "ridge"
    decimals: int = 3

    def __post_init__(self) -> None:
        if self.source != "probe" and not self.key:
            raise ValueError(f"primary: {self.name!r} is read from source={self.source} and needs a key.")


@dataclass
class Contrast:
    """Two arms that are compared with each other too: `arm` minus `against`."""

    arm: str
    against: str


@dataclass
class StudyConfig:
    """A study.

    Attributes:
        name: of the study.
        arms: by name; reference: the one that the others are compared with.
        primary: the numbers by which the study is judged; fixed before the runs.
        contrasts: pairs of arms, besides every arm and the reference: foresight and a control, say.
        evaluate: how every arm is evaluated; null = not at all. probe: likewise; every arm but the reference is probed,
            with the reference of the same seed as its baseline.
        seeds: of training; one run of every arm for each.
        teachers: trained once each, by name.
        overrides: key=value for every arm, not for teachers.
        milestones: fractions of the training at which the averaged weights are evaluated too; the end always is.
        processes: jobs at once, one thread each where there are several; null = one for each core, on a machine with
            a GPU 1.
        cost: what stands for compute: CPU seconds, which a busy machine does not change, or, on a GPU, wall seconds.
        num_resamples, resampling_seed: of the bootstrap.
        out: folder of runs, evaluations, probes and logs; null = runs/study/NAME.
        results: folder of the small files and the report; null = docs/studies/NAME.
    """

    name: str
    arms: dict[str, ArmSpec]
    reference: str
    primary: list[PrimaryMetric]
    contrasts: list[Contrast] = field(default_factory=list)
    evaluate: CommandSpec | None = None
    probe: CommandSpec | None = None
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    teachers: dict[str, TeacherSpec] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    milestones: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.75])
    processes: int | None = None
    cost: Literal["cpu_seconds", "wall_seconds"] = "cpu_seconds"
    num_resamples: int = 2000
    resampling_seed: int = 0
    out: str | None = None
    results: str | None = None

    def __post_init__(self) -> None:
        if self.out is None:
            self.out = f"runs/study/{self.name}"
        if self.results is None:
            self.results = f"docs/studies/{self.name}"


def check_study(config: StudyConfig) -> None:
    """Everything that can be said without opening another file.

    Raises:
        ValueError: names the setting at fault.
    """
    _check_names("name", [config.name])
    _check_names("arms", config.arms)
    _check_names("teachers", config.teachers)
    if not config.arms:
        raise ValueError("arms: none given; a study needs at least its reference.")
    if config.reference not in config.arms:
        raise ValueError(f"reference={config.reference} is no arm; the arms are {', '.join(config.arms)}.")
    for name, arm in config.arms.items():
        if arm.teacher is not None and arm.teacher not in config.teachers:
            known = ", ".join(config.teachers) or "none"
            raise ValueError(f"arms.{name}.teacher={arm.teacher} is no teacher of the study; its teachers: {known}.")
        for key in arm.may_differ:
            if any(is_below(key, fixed) or is_below(fixed, key) for fixed in NEVER_DIFFERENT):
                raise ValueError(f"arms.{name}.may_differ: {key} has to be the same in every arm.")
    for contrast in config.contrasts:
        for name in (contrast.arm, contrast.against):
            if name not in config.arms:
                raise ValueError(f"contrasts: {name} is no arm; the arms are {', '.join(config.arms)}.")
        if contrast.arm == contrast.against or config.reference in (contrast.arm, contrast.against):
            raise ValueError(
                f"contrasts: {contrast.arm} against {contrast.against}: name two different arms; every one is compared "
                f"with {config.reference} anyway."
            )
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise ValueError(f"seeds={config.seeds}: give at least one, none twice.")
    if not all(isfinite(part) and 0 < part <= 1 for part in config.milestones):
        raise ValueError(f"milestones={config.milestones}: each is a fraction of the training, above 0 and at most 1.")
    if config.processes is not None and config.processes < 1:
        raise ValueError(f"processes={config.processes} must be at least 1.")
    _check_primary(config)


def is_below(key: str, prefix: str) -> bool:
    """Whether a full key is a setting or one inside it."""
    return key == prefix or key.startswith(f"{prefix}.")


def _check_primary(config: StudyConfig) -> None:
    if not config.primary:
        raise ValueError("primary: none given; say by which numbers the study is judged before it runs.")
    names = [metric.name for metric in config.primary]
    if len(set(names)) < len(names):
        raise ValueError(f"primary: two metrics have one name: {', '.join(names)}.")
    for metric in config.primary:
        needed = "probe" if metric.source == "probe" else "evaluate"
        if vars(config)[needed] is None:
            raise ValueError(f"primary: {metric.name!r} comes from {needed}, which the study does not have.")


def _check_names(what: str, names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what}: {name!r} becomes a folder; choose letters, digits, _ and -.")
