"""From settings to parts: every shipped config builds, and misfits are named before training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import REPOSITORY, TINY_FORESIGHT, make_trainer, tiny_config

from video_mirai import build, export_folder
from video_mirai.config import RunConfig, load_config
from video_mirai.data.latent_header import LatentHeader
from video_mirai.data.latent_writer import pack_sample, write_shard

CONFIGS = sorted((REPOSITORY / "configs" / "train").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_training_config_builds_on_the_meta_device(path: Path) -> None:
    config = load_config(RunConfig, path)
    # As wide as the student, which it must be where no predictor comes between them.
    teacher_width = config.model.num_attention_heads * config.model.attention_head_dim
    with torch.device("meta"):
        objective = build.build_objective(config, config.model.in_channels or 3, teacher_width)
    assert {parameter.device.type for parameter in objective.parameters()} == {"meta"}
    assert (objective.predictor is None) == (config.foresight is None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an untrained, exported bidirectional model."""
    config = tiny_config(tmp_path_factory.mktemp("run"), "objective.kind=bidirectional")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        build.export_run(config, make_trainer(config))
    return build.run_dir(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.window_frames=8"], r"objective\.window_frames=8 is longer than the clip"),
        (["rollout.window_frames=8"], r"rollout\.window_frames=8 is longer than the clip.*try 7"),
        (["objective.chunk_frames=3"], r"clips of 8 latent frames are not a multiple of objective\.chunk_frames=3"),
        (["objective.chunk_frames=2"], r"rollout\.chunk_frames=1, but the objective trains chunks of 2"),
        (["model.patch_size=[1,3,3]"], r"16x16 do not divide into 3x3"),
        (["model.patch_size=[1,2,2]"], r"teacher gives 16 tokens per frame, the student 64"),
        (["objective.window_frames=3"], r"rollout\.window_frames=7 is longer than objective\.window_frames=3"),
        (["rollout.history_sigma=0.2"], r"rollout\.history_sigma=0\.2 is above objective\.history_sigma_max=0\.0"),
        (["rollout.guidance.context_scale=2"], r"set objective\.context_dropout"),
        (
            ["rollout.guidance.history_scale=2"],
            r"rollout\.guidance\.history_sigma=0\.5 is above objective\.history_sigma_max=0\.0",
        ),
        (
            ["model.prediction_type=data", "rollout.num_steps=60"],
            r"rollout\.num_steps=60 with shift 1 ends at sigma 0\.0167, below",
        ),
        (["foresight.window=[0,0]"], r"foresight\.window=\[0, 0\] names an offset twice"),
        (["foresight.window=[0,8]"], r"foresight\.window=\[0, 8\] is longer than the clip"),
        (["foresight.student_layers=[3]"], r"foresight\.student_layers=3: its layers go from 1 to 2"),
        (["foresight.teacher.layer=0"], r"foresight\.teacher\.layer=0"),
        (["foresight.teacher.checkpoint=none/here"], r"none/here does not exist"),
        (
            ["foresight.teacher.checkpoint=asset:none"],
            r"asset:none is not shipped; there are doom_causal, doom_teacher",
        ),
        (["foresight.teacher.checkpoint=''"], r"foresight\.teacher\.checkpoint: no value given"),
        (["foresight.student_layers=[]"], r"foresight\.student_layers=\[\]: name at least one block"),
        (["foresight.student_layers=[0.5,1]"], r"name at least one block, none twice"),
        (["foresight.fuse=median"], r"foresight\.fuse"),
        (["foresight.schedule.start_step=-1"], r"foresight\.schedule"),
        (["foresight.neighbours=2"], r"foresight\.neighbours=2 must be 0, or more with foresight\.fuse=heads"),
        (["foresight.fuse=heads", "foresight.neighbours=400"], r"reaches beyond a grid of 4 x 4 tokens"),
        (["foresight.predictor=none", "foresight.fuse=heads"], r"foresight\.predictor=none"),
        (["foresight.predictor_blocks=0"], r"foresight\.predictor_blocks=0"),
        (["foresight.tap=clean", "objective.kind=diffusion_forcing"], r"diffusion_forcing has no clean tokens"),
        (["objective.kind=bidirectional"], r"sees the future itself"),
        (["foresight.teacher.kind=oracle"], r"'oracle' is unknown; known: dit, causal_dit, ema, encoder"),
        (["foresight.teacher.sigma=2"], r"foresight\.teacher\.sigma=2\.0 must lie in"),
        (["foresight.teacher.kind=causal_dit"], r"was trained with objective\.kind=bidirectional"),
        (["foresight.teacher.kind=ema"], r"leave checkpoint empty"),
        (["foresight.teacher.image_size=32"], r"foresight\.teacher\.image_size=32: a 'dit' reads latents"),
        (["foresight.teacher.kind=encoder"], r"foresight\.teacher\.sigma=0\.1: an encoder reads clean pixels"),
        (["model.text_dim=8"], r"model\.text_dim=8, but the data set's clips come without context"),
        (["model.attention_backend=flex"], r"'flex' has no backward pass on CPU"),
        (["model.in_channels=4"], r"model\.in_channels=4, but the codec's latents have 3"),
        (["codec.kind=diffusers", "codec.path=none/codec"], r"none/codec"),
        (["data.kind=video_folder", "data.video_folder.root=none/videos"], r"none/videos"),
        (["data.kind=video_folder"], r"data\.kind is 'video_folder', but there is no data\.video_folder block"),
    ],
)
def test_misfit_is_named_before_training(tmp_path: Path, run: Path, overrides: list[str], message: str) -> None:
    settings = [f"foresight.teacher.checkpoint={run}", *overrides]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build.plan_run(tiny_config(tmp_path, *settings, base=TINY_FORESIGHT), torch.device("cpu"))


def test_a_causal_model_is_no_teacher_without_its_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    causal = tiny_config(tmp_path, "name=causal")
    build.export_run(causal, make_trainer(causal))
    settings = [f"foresight.teacher.checkpoint={build.run_dir(causal)}"]
    with pytest.raises(ValueError, match=r"was trained causally \(teacher_forcing\).*kind=causal_dit"):
        build.plan_run(tiny_config(tmp_path, *settings, base=TINY_FORESIGHT), torch.device("cpu"))
    settings += ["foresight.teacher.kind=causal_dit", "objective.chunk_frames=2", "rollout.chunk_frames=2"]
    with pytest.raises(ValueError, match=r"trained on chunks of 1 frames, this run's objective\.chunk_frames is 2"):
        build.plan_run(tiny_config(tmp_path, *settings, base=TINY_FORESIGHT), torch.device("cpu"))


def test_latents_of_another_codec_are_refused(tmp_path: Path) -> None:
    header = LatentHeader("a.mp4", "a.mp4", 1, codec="0" * 64, height=16, width=16, fps=8.0, arrays={})
    arrays = {"latents": np.zeros((24, 3, 16, 16), np.float32), "times": np.arange(24) / 8}
    write_shard(tmp_path / "shard-000000.tar", [pack_sample("a", header, arrays)])
    settings = ["data.kind=latent_shards", f"data.latent_shards.root={tmp_path}", "data.latent_shards.split=all"]
    with pytest.raises(ValueError, match="was encoded by codec 000000000000, but this run's codec is"):
        build.plan_run(tiny_config(tmp_path, *settings, "data.latent_shards.num_frames=8"), torch.device("cpu"))


def test_loading_a_run_names_what_is_missing(tmp_path: Path, run: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no export/ folder"):
        build.load_run(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(run / "export", broken)
    (broken / "run.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"run\.yaml is missing"):
        build.load_run(broken)


def test_loading_accepts_a_run_its_export_and_an_asset(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_folder, "ASSETS", run.parent)
    for path in (run, run / "export", f"asset:{run.name}"):
        assert build.load_run(path).config.name == run.name


def test_student_starts_from_another_run(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    trainer = make_trainer(tiny_config(tmp_path, f"model.init_from={run}", "seed=5"))
    expected = build.load_run(run).model.state_dict()
    for name, value in trainer.objective.student.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert torch.equal(next(iter(trainer.ema_state().values())), next(iter(expected.values())))


def test_student_of_another_size_is_refused_as_a_start(tmp_path: Path, run: Path) -> None:
    model = tiny_config(tmp_path, f"model.init_from={run}", "model.ffn_dim=32").model
    with pytest.raises(ValueError, match=r"model\.ffn_dim=32, but .* has 64"):
        build.load_student(model, latent_channels=3)


def test_student_of_another_architecture_than_a_config_can_say_is_refused_as_a_start(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / "transformer"
    shutil.copytree(run / "export" / "transformer", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eps": 1e-5}))
    model = tiny_config(tmp_path, f"model.init_from={folder}").model
    with pytest.raises(ValueError, match=r"model\.eps=1e-06, but .* has 1e-05"):
        build.load_student(model, latent_channels=3)


def test_student_starts_the_same_with_and_without_foresight(tmp_path: Path) -> None:
    with_predictor = build.build_objective(tiny_config(tmp_path, base=TINY_FORESIGHT), 3, teacher_width=16)
    torch.rand(3)
    without = build.build_objective(tiny_config(tmp_path), 3, teacher_width=0)
    for name, value in without.student.state_dict().items():
        assert torch.equal(value, with_predictor.student.state_dict()[name]), name


def test_unfinished_run_is_exported_from_its_newest_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    trainer = make_trainer(tiny_config(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no checkpoints"):
        build.export_checkpoint(trainer.run_dir, None)
    trainer.save()
    [saved] = (trainer.run_dir / "checkpoints").glob("step_*")
    with pytest.raises(ValueError, match=r"is no checkpoint of .*other"):
        build.export_checkpoint(tmp_path / "other", saved)
    build.export_checkpoint(trainer.run_dir, saved)
    loaded = build.load_run(trainer.run_dir).model.state_dict()
    for name, value in trainer.ema_state().items():
        assert torch.equal(value, loaded[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_frames": 100}, r"rollout\.window_frames=100 is longer than the clip"),
        ({"chunk_frames": 5}, r"rollout\.chunk_frames=5, but the objective trains chunks of"),
        ({"history_sigma": 0.9}, r"rollout\.history_sigma=0\.9 is above objective\.history_sigma_max"),
    ],
)
def test_a_run_does_not_generate_as_it_was_not_trained(changes: dict, message: str) -> None:
    run = build.load_run("asset:doom_causal")
    build.check_generation(run, run.rollout)
    with pytest.raises(ValueError, match=message):
        build.check_generation(run, replace(run.rollout, **changes))


def test_a_teacher_that_sees_the_future_does_not_generate() -> None:
    run = build.load_run("asset:doom_teacher")
    with pytest.raises(ValueError, match="sees the future and cannot generate"):
        build.check_generation(run, run.rollout)
