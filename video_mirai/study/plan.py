"""What a study has to run: a list of jobs, each after those that it needs."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from video_mirai.config import RunConfig, changed_settings, load_config
from video_mirai.evaluation.probe_run import ProbeConfig
from video_mirai.evaluation.protocol import EvaluateConfig
from video_mirai.study.config import ArmSpec, StudyConfig, TeacherSpec, check_study, is_below

# Where and how a run is kept, not what it computes.
NOT_DECISIVE = ("name", "output_dir", "resume", "license", "train.checkpoint_every", "train.keep_checkpoints")
NOT_DECISIVE_TRACKER = "train.tracker"
NOT_DECISIVE_SCORING = ("out", "models", "feature_cache", "device")
MAX_CHECKPOINTS = 64


class Job(NamedTuple):
    """One piece of work.

    Attributes:
        name: such as "train/foresight/seed1".
        owner: the arm's or teacher's name.
        commands: one after the other; the first word of each is a script of the repository.
        folder: all that it writes. done: is there once it has finished. waste: is removed then.
        settings: resolved YAML of what decides its result, besides the jobs that it needs.
    """

    name: str
    kind: Literal["teacher", "train", "evaluate", "probe"]
    owner: str
    seed: int
    commands: tuple[tuple[str, ...], ...]
    folder: Path
    done: Path
    waste: tuple[Path, ...]
    settings: str
    needs: tuple[str, ...]


class Difference(NamedTuple):
    """A setting in which an arm is not like the reference."""

    arm: str
    key: str
    reference: str
    value: str


class Plan(NamedTuple):
    """jobs: each after those that it needs."""

    config: StudyConfig
    jobs: list[Job]
    differences: list[Difference]
    num_steps: int
    evaluated_steps: list[int]


def make_plan(config: StudyConfig) -> Plan:
    """Resolve every command's settings and lay the jobs out.

    Raises:
        FileNotFoundError: a config file is missing.
        ValueError: a setting is wrong, or arms differ in more than they may.
    """
    check_study(config)
    planner = _Planner(config)
    jobs = [planner.teacher(name, teacher) for name, teacher in config.teachers.items()]
    for seed in config.seeds:  # seed by seed, so that a whole comparison is there early
        jobs += [planner.training(name, arm, seed) for name, arm in config.arms.items()]
        if config.evaluate is not None:
            jobs += [planner.evaluation(name, seed) for name in config.arms]
        if config.probe is not None:
            jobs += [planner.probe(name, seed) for name in config.arms if name != config.reference]
    differences = arm_differences(config, {job.owner: job for job in reversed(jobs) if job.kind == "train"})
    return Plan(config, jobs, differences, planner.num_steps, planner.steps)


def arm_differences(config: StudyConfig, trainings: dict[str, Job]) -> list[Difference]:
    """Where arms differ from the reference.

    Args:
        trainings: one of every arm, of one seed.
    Raises:
        ValueError: one of them differs in a setting that is neither foresight's nor declared.
    """
    found = []
    reference = trainings[config.reference].settings
    for name, arm in config.arms.items():
        old, new = (flat_settings(text) for text in (reference, trainings[name].settings))
        for key in changed_settings(reference, trainings[name].settings):
            if not any(is_below(key, allowed) for allowed in ("foresight", *arm.may_differ)):
                raise ValueError(
                    f"arms.{name} has {key}={new.get(key)}, {config.reference} has {old.get(key)}: arms may differ in "
                    f"foresight.* only; make them equal, or declare it: arms.{name}.may_differ=[{key}]."
                )
            found.append(Difference(name, key, _text(old, key), _text(new, key)))
    return found


def flat_settings(text: str) -> dict[str, Any]:
    """{full key: value} of a resolved YAML text."""
    found: dict[str, Any] = {}

    def visit(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict) and value:
                visit(value, f"{prefix}{key}.")
            else:
                found[f"{prefix}{key}"] = value

    visit(yaml.safe_load(text), "")
    return found


def milestone_steps(milestones: list[float], num_steps: int) -> list[int]:
    """Steps at which the weights are evaluated, in order; the last is the end."""
    return sorted({max(1, round(part * num_steps)) for part in milestones} | {num_steps})


def checkpoint_interval(steps: list[int], wished: int) -> int:
    """Steps between checkpoints: at most `wished` (0: any), and every one of `steps` has a checkpoint.

    Raises:
        ValueError: more checkpoints than a disk should hold.
    """
    common = math.gcd(*steps)
    interval = max(size for size in range(1, common + 1) if common % size == 0 and (size <= wished or wished == 0))
    if steps[-1] // interval > MAX_CHECKPOINTS:
        raise ValueError(
            f"milestones at steps {steps} would need a checkpoint every {interval} steps, {steps[-1] // interval} of a "
            f"run; choose rounder fractions, or a larger train.checkpoint_every."
        )
    return interval


class _Planner:
    """Makes jobs; all paths are below the study's `out`."""

    def __init__(self, config: StudyConfig) -> None:
        self.config = config
        self.out = Path(str(config.out))
        self._resolved: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
        reference = config.arms[config.reference]
        resolved = load_config(RunConfig, reference.config, [*config.overrides, *reference.overrides])
        self.num_steps = resolved.train.num_steps
        self.steps = milestone_steps(config.milestones if config.evaluate is not None else [], self.num_steps)
        self.interval = checkpoint_interval(self.steps, resolved.train.checkpoint_every)
        self.scoring = self.probing = ""
        if config.evaluate is not None:
            scoring = load_config(EvaluateConfig, config.evaluate.config, config.evaluate.overrides)
            self.scoring = yaml.safe_dump(_decisive(asdict(scoring), NOT_DECISIVE_SCORING), sort_keys=False)
        if config.probe is not None:
            probing = load_config(ProbeConfig, config.probe.config, config.probe.overrides)
            self.probing = yaml.safe_dump(_decisive(asdict(probing), NOT_DECISIVE_SCORING), sort_keys=False)
            _check_probe_metrics(config, probing)

    def teacher(self, name: str, spec: TeacherSpec) -> Job:
        own = (f"name={name}", f"output_dir={self.out / 'teachers'}", f"seed={spec.seed}")
        folder = self.out / "teachers" / name
        return self._training(f"teacher/{name}", "teacher", name, spec.seed, folder, spec.config, spec.overrides, own)

    def training(self, name: str, arm: ArmSpec, seed: int) -> Job:
        """The run of an arm with a seed."""
        folder = self._run(name, seed)
        own = (
            *(f"name={folder.name}", f"output_dir={folder.parent}", f"seed={seed}"),
            f"train.checkpoint_every={self.interval}",
            f"train.keep_checkpoints={self.steps[-1] // self.interval}",
        )
        taught = [] if arm.teacher is None else [f"foresight.teacher.checkpoint={self.out / 'teachers' / arm.teacher}"]
        overrides = [*self.config.overrides, *taught, *arm.overrides]
        job = self._training(_train_name(name, seed), "train", name, seed, folder, arm.config, overrides, own)
        if arm.teacher is None:
            return job
        tree = yaml.safe_load(job.settings)  # wherever the study lies, its teacher is the same one
        tree["foresight"]["teacher"]["checkpoint"] = f"the study's teacher {arm.teacher}"
        return job._replace(settings=yaml.safe_dump(tree, sort_keys=False), needs=(f"teacher/{arm.teacher}",))

    def evaluation(self, name: str, seed: int) -> Job:
        """Of a run at every evaluated step, side by side: its checkpoints on the way are exported first."""
        assert self.config.evaluate is not None
        run, folder = self._run(name, seed), self.out / "evaluations" / name / f"seed{seed}"
        *early, end = self.steps
        checkpoints = [run / "checkpoints" / f"step_{step:08d}" for step in early]
        models = {
            step: folder / "models" / checkpoint.name for step, checkpoint in zip(early, checkpoints, strict=True)
        }
        rows = [f"models.{row_name(step)}={model}" for step, model in (models | {end: run}).items()]
        spec = self.config.evaluate
        command = (
            "scripts/evaluate.py", f"--config={spec.config}", *spec.overrides, *rows, f"out={folder}",
            f"feature_cache={self.out / 'features'}",
        )  # fmt: skip
        export = ("scripts/export.py", "--run", run, "--checkpoint", *checkpoints, "--out", folder / "models")
        commands = (tuple(map(str, export)), command) if early else (command,)
        waste = tuple(folder / part / row_name(step) for step in early for part in ("frames", "videos"))
        return Job(
            f"evaluate/{name}/seed{seed}", "evaluate", name, seed, commands, folder, folder / "report.html", waste,
            f"{self.scoring}steps: {self.steps}\n", (_train_name(name, seed),),
        )  # fmt: skip

    def probe(self, name: str, seed: int) -> Job:
        """Of an arm beside the reference of the same seed."""
        assert self.config.probe is not None
        spec, folder = self.config.probe, self.out / "probes" / name / f"seed{seed}"
        reference = self.config.reference
        command = (
            "scripts/probe.py", "--checkpoint", str(self._run(name, seed)),
            "--baseline", str(self._run(reference, seed)), f"--config={spec.config}", *spec.overrides, f"out={folder}",
        )  # fmt: skip
        needs = (_train_name(name, seed), _train_name(reference, seed))
        return Job(
            f"probe/{name}/seed{seed}", "probe", name, seed, (command,), folder, folder / "report.html", (),
            self.probing, needs,
        )  # fmt: skip

    def _run(self, name: str, seed: int) -> Path:
        return self.out / "runs" / name / f"seed{seed}"

    def _training(
        self, name: str, kind: Literal["teacher", "train"], owner: str, seed: int, folder: Path, config: str,
        overrides: list[str], own: tuple[str, ...],
    ) -> Job:  # fmt: skip
        tree = self._resolve(config, tuple(overrides)) | {"seed": seed}
        command = ("scripts/train_video.py", f"--config={config}", *overrides, *own)
        settings = yaml.safe_dump(tree, sort_keys=False)
        return Job(name, kind, owner, seed, (command,), folder, folder / "export", (), settings, ())

    def _resolve(self, config: str, overrides: tuple[str, ...]) -> dict[str, Any]:
        """What decides a run, besides its seed; once for all seeds, because it takes a while."""
        if (config, overrides) not in self._resolved:
            tree = asdict(load_config(RunConfig, config, list(overrides)))
            self._resolved[config, overrides] = _decisive(tree, (*NOT_DECISIVE, NOT_DECISIVE_TRACKER))
        return self._resolved[config, overrides]


def row_name(step: int) -> str:
    """Of the weights at a step, in an evaluation."""
    return f"step{step}"


def _train_name(arm: str, seed: int) -> str:
    return f"train/{arm}/seed{seed}"


def _check_probe_metrics(config: StudyConfig, probing: ProbeConfig) -> None:
    for metric in config.primary:
        if metric.source == "probe" and metric.offset not in probing.offsets:
            raise ValueError(
                f"primary: {metric.name!r} is at offset {metric.offset}, the probe has offsets={probing.offsets}."
            )
        if metric.source == "probe" and metric.readout == "mlp" and not probing.mlp.seeds:
            raise ValueError(f"primary: {metric.name!r} has readout=mlp, the probe has mlp.seeds=0.")


def _decisive(tree: dict[str, Any], left_out: tuple[str, ...]) -> dict[str, Any]:
    """Settings, as YAML holds them, without the keys that decide nothing."""
    for key in left_out:
        *parents, last = key.split(".")
        inner = tree
        for parent in parents:
            inner = inner[parent]
        inner.pop(last, None)
    return _plain(tree)


def _plain(value: Any) -> Any:
    """With lists for tuples, which YAML does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _text(settings: dict[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "–"
