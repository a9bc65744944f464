"""Which jobs a study has, what they run, and which finished ones still belong to it."""

from pathlib import Path

import pytest
from tiny_training import REPOSITORY

from video_mirai.config import load_config
from video_mirai.study.config import ArmSpec, StudyConfig
from video_mirai.study.describe import describe_plan
from video_mirai.study.plan import Plan, checkpoint_interval, make_plan, milestone_steps
from video_mirai.study.records import (
    changed_settings,
    discard,
    new_record,
    require_fresh,
    stale_jobs,
    write_record,
)

CONFIGS = sorted((REPOSITORY / "configs" / "study").glob("*.yaml"))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def tiny_study(out: Path, *overrides: str) -> StudyConfig:
    """scenes_tiny with two arms less, which resolves faster."""
    words = [f"out={out}", f"results={out}/results", *overrides]
    config = load_config(StudyConfig, "configs/study/scenes_tiny.yaml", words)
    del config.arms["shuffled_future"], config.arms["causal_teacher"]
    return config


def finish(plan: Plan, *names: str) -> None:
    """As if these jobs had run."""
    out = Path(str(plan.config.out))
    for job in plan.jobs:
        if job.name in names:
            record = new_record(out, job, "none")
            record.finished = True
            job.done.mkdir(parents=True)
            write_record(out, record)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_study_config_can_be_planned(path: Path) -> None:
    assert make_plan(load_config(StudyConfig, path)).jobs


def test_every_job_comes_after_what_it_needs(tmp_path: Path) -> None:
    plan = make_plan(tiny_study(tmp_path))
    names = [job.name for job in plan.jobs]
    assert len(set(names)) == len(names) == 2 + 2 * (3 + 3 + 2)
    assert all(names.index(need) < names.index(job.name) for job in plan.jobs for need in job.needs)
    assert {need for job in plan.jobs if job.name == "train/window0/seed2" for need in job.needs} == {
        "teacher/noncausal"
    }


def test_a_training_is_told_its_seed_teacher_and_checkpoints(tmp_path: Path) -> None:
    plan = make_plan(tiny_study(tmp_path))
    [words] = next(job.commands for job in plan.jobs if job.name == "train/foresight/seed2")
    assert {
        "seed=2", f"foresight.teacher.checkpoint={tmp_path}/teachers/noncausal", "train.checkpoint_every=30",
        "train.keep_checkpoints=2", f"output_dir={tmp_path}/runs/foresight", "name=seed2",
    } <= set(words)  # fmt: skip


def test_milestones_get_checkpoints_and_end_with_the_training() -> None:
    assert milestone_steps([0.25, 0.5, 0.25], 60) == [15, 30, 60]
    assert checkpoint_interval([15, 30, 60], 0) == 15
    assert checkpoint_interval([500, 1000], 200) == 125  # at most 200, and 500 is a multiple
    with pytest.raises(ValueError, match="rounder fractions"):
        checkpoint_interval([333, 1000], 500)


def test_arms_may_differ_in_foresight_alone_unless_it_is_declared(tmp_path: Path) -> None:
    config = tiny_study(tmp_path)
    config.arms["window0"].overrides.append("train.optimizer.lr=1e-3")
    with pytest.raises(ValueError, match=r"arms\.window0 has train\.optimizer\.lr=0\.001, baseline has 0\.003"):
        make_plan(config)
    config.arms["window0"].may_differ.append("train.optimizer.lr")
    assert ("window0", "train.optimizer.lr", "0.003", "0.001") in make_plan(config).differences


@pytest.mark.parametrize("key", ["seed", "data.scenes.num_clips", "train", "train.num_steps"])
def test_data_and_steps_can_never_be_declared_different(tmp_path: Path, key: str) -> None:
    config = tiny_study(tmp_path)
    config.arms["window0"].may_differ.append(key)
    with pytest.raises(ValueError, match="has to be the same in every arm"):
        make_plan(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reference=nobody", "reference=nobody is no arm"),
        ("seeds=[1,1]", "none twice"),
        ("milestones=[1.5]", "above 0 and at most 1"),
        ("processes=0", "at least 1"),
        ("arms.foresight.teacher=nobody", "is no teacher of the study"),
        ("arms.foresight.colour=red", "arms.foresight.colour: unknown key"),
        ("probe=null", "comes from probe, which the study does not have"),
        ("primary=[{name: a, source: video, better: higher}]", "needs a key"),
        ("primary=[{name: a, source: probe, offset: 7, better: higher}]", "at offset 7, the probe has offsets"),
        ("primary=[]", "say by which numbers"),
        ("contrasts=[{arm: foresight, against: nobody}]", "contrasts: nobody is no arm"),
        ("contrasts=[{arm: foresight, against: baseline}]", "name two different arms"),
        ("contrasts=[{arm: baseline, against: foresight}]", "name two different arms"),
        ("contrasts=[{arm: foresight, against: foresight}]", "name two different arms"),
        ("evaluate.overrides=[clips=3]", "clips: unknown key"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(tiny_study(tmp_path, override))


def test_names_that_would_be_paths_are_refused(tmp_path: Path) -> None:
    config = tiny_study(tmp_path)
    config.arms["../up"] = ArmSpec("configs/train/scenes_tiny.yaml")
    with pytest.raises(ValueError, match="becomes a folder"):
        make_plan(config)


def test_a_changed_setting_names_the_jobs_that_no_longer_belong(tmp_path: Path) -> None:
    finish(make_plan(tiny_study(tmp_path)), "teacher/noncausal", "train/baseline/seed1", "train/foresight/seed1")
    require_fresh(make_plan(tiny_study(tmp_path)))
    changed = make_plan(tiny_study(tmp_path, "overrides=[train.num_steps=80,validation.every_steps=0]"))
    assert [stale.job.name for stale in stale_jobs(changed)] == ["train/baseline/seed1", "train/foresight/seed1"]
    with pytest.raises(ValueError, match=r"2 jobs .*train\.num_steps=80 \(was 60\).*--discard-changed"):
        require_fresh(changed)


def test_what_was_made_from_a_teacher_that_is_made_anew_no_longer_belongs(tmp_path: Path) -> None:
    plan = make_plan(tiny_study(tmp_path))
    finish(plan, "teacher/noncausal", "train/foresight/seed1")
    discard(plan, plan.jobs[0])
    assert not plan.jobs[0].folder.exists()
    finish(plan, "teacher/noncausal")
    assert [(stale.job.name, stale.why) for stale in stale_jobs(plan)] == [
        ("train/foresight/seed1", "made from another teacher/noncausal")
    ]


def test_more_arms_seeds_and_clips_leave_finished_trainings_alone(tmp_path: Path) -> None:
    plan = make_plan(tiny_study(tmp_path))
    finish(plan, *(job.name for job in plan.jobs if job.kind in ("teacher", "train")))
    more = tiny_study(tmp_path, "seeds=[1,2,3]", "milestones=[0.5]", "evaluate.overrides=[num_clips=8]")
    more.arms["weight0"] = ArmSpec("configs/train/controls/scenes_tiny_weight0.yaml", "noncausal")
    assert stale_jobs(make_plan(more)) == []
    require_fresh(make_plan(more))


def test_a_folder_of_another_making_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs" / "baseline" / "seed1").mkdir(parents=True)
    with pytest.raises(ValueError, match="not from this study"):
        require_fresh(make_plan(tiny_study(tmp_path)))


def test_a_setting_that_the_code_gains_later_makes_nothing_stale() -> None:
    assert changed_settings("a: 1\n", "a: 1\nnew: 0\n") == []
    assert changed_settings("a: 1\nb: {c: 2}\n", "a: 1\nb: {c: 3}\n") == ["b.c=3 (was 2)"]
    assert changed_settings("a: 1\nb: 2\n", "a: 1\n") == ["b=None (was 2)"]


def test_a_dry_run_shows_commands_differences_and_what_is_not_known(tmp_path: Path) -> None:
    plan = make_plan(tiny_study(tmp_path))
    text = describe_plan(plan, plan.jobs)
    assert "train/foresight/seed1  [to do]" in text
    assert "python scripts/train_video.py --config=configs/train/scenes_tiny_foresight.yaml" in text
    assert "unknown for evaluate, probe, teacher, train" in text
