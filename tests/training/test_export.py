"""An export costs what a student trained without foresight costs, says so, and is refused where it does not."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_training import TINY, TINY_FORESIGHT, assert_same_tensors, make_trainer, next_batches, tiny_config

from video_mirai import build, export_folder
from video_mirai.export_folder import CARD_FILE, PIPELINE_FILE
from video_mirai.pipeline import VideoMiraiPipeline
from video_mirai.training.estimate import RolloutCost
from video_mirai.training.export_proof import Baseline, prove_export
from video_mirai.training.tracking import read_metrics, record_start

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def export(folder: Path, *overrides: str, base: Path = TINY) -> Path:
    config = tiny_config(folder, *overrides, base=base)
    path = build.export_run(config, make_trainer(config))
    assert path is not None
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        return export(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An export as it is when it is proven: before its card."""
    shutil.copytree(exported, tmp_path / "export")
    (tmp_path / "export" / CARD_FILE).unlink()
    return tmp_path / "export"


@pytest.fixture(scope="module")
def baseline(exported: Path) -> Baseline:
    run = build.load_run(exported)
    return build.export_baseline(run.config, build.build_data_set(run.config.data), run.codec, run.clips)


def test_a_foresight_run_and_a_baseline_run_prove_the_same_numbers_in_log_and_card(
    tmp_path: Path, teacher: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foresight = ("name=foresight", f"foresight.teacher.checkpoint={teacher}")
    proofs = []
    for overrides, base in ((("name=baseline",), TINY), (foresight, TINY_FORESIGHT)):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="video_mirai.training.export"):
            folder = export(tmp_path, *overrides, base=base)
        lines = [record.getMessage().removeprefix("export: ") for record in caplog.records]
        assert [line.partition(":")[0] for line in lines] == ["parameters", "FLOPs per generated frame", "KV cache"]
        assert all(f"- {line}\n" in (folder / CARD_FILE).read_text() for line in lines)
        proofs.append(lines)
    assert proofs[0] == proofs[1]
    model = build.load_run(tmp_path / "foresight").model
    count = sum(parameter.numel() for parameter in model.parameters())
    assert proofs[1][0].startswith(f"parameters: {count:,}, baseline {count:,}: equal")


def test_a_tensor_that_the_baseline_does_not_have_is_refused(copy: Path, baseline: Baseline) -> None:
    prove_export(copy, baseline)
    save_file(load_file(copy / WEIGHTS) | {"predictor.proj_out.weight": torch.zeros(2)}, copy / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 tensors, such as predictor\.proj_out\.weight: \(2,\) against missing"):
        prove_export(copy, baseline)


def test_a_tensor_of_another_shape_or_none_is_refused(copy: Path, baseline: Baseline) -> None:
    tensors = load_file(copy / WEIGHTS)
    save_file(tensors | {"proj_out.bias": torch.zeros(7)}, copy / WEIGHTS)
    with pytest.raises(ValueError, match=r"such as proj_out\.bias: \(7,\) against"):
        prove_export(copy, baseline)
    del tensors["proj_out.bias"]
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(ValueError, match=r"such as proj_out\.bias: missing against"):
        prove_export(copy, baseline)


def test_a_config_of_another_model_is_refused(copy: Path, baseline: Baseline) -> None:
    config = json.loads((copy / "transformer/config.json").read_text())
    (copy / "transformer/config.json").write_text(json.dumps(config | {"num_layers": 3}))
    with pytest.raises(ValueError, match=r"the config and the baseline differ in \d+ tensors"):
        prove_export(copy, baseline)


def test_a_teacher_left_in_the_folder_is_refused(copy: Path, baseline: Baseline) -> None:
    shutil.copytree(copy / "transformer", copy / "teacher")
    with pytest.raises(ValueError, match=r"holds teacher, which no export has"):
        prove_export(copy, baseline)


def test_other_costs_than_the_baselines_are_refused(
    copy: Path, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "video_mirai.training.export_proof.rollout_cost",
        lambda model, *sizes: RolloutCost(1.0, 2 if model is baseline.student else 3),
    )
    with pytest.raises(ValueError, match="bytes of KV cache: 3, but 2 in the baseline; nothing is exported"):
        prove_export(copy, baseline)


def test_a_refused_export_leaves_the_one_before_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    trainer = make_trainer(config)
    folder = build.export_run(config, trainer)
    assert folder is not None
    before = (folder / WEIGHTS).read_bytes()
    trainer.train_step(next_batches(trainer, 1)[0])
    other = replace(config, model=replace(config.model, ffn_dim=32))
    honest = build.export_baseline
    monkeypatch.setattr(build, "export_baseline", lambda config, *parts: honest(other, *parts))
    with pytest.raises(ValueError, match="nothing is exported"):
        build.export_run(config, trainer)
    assert (folder / WEIGHTS).read_bytes() == before


def front_matter(folder: Path) -> dict:
    _, matter, text = (folder / CARD_FILE).read_text().split("---\n", 2)
    assert text.startswith("\n# ")
    return yaml.safe_load(matter)


def test_card_says_what_the_hub_asks_and_how_the_run_came_about(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, "license=apache-2.0", "seed=17", "validation.every_steps=1", "validation.num_clips=4"
    )
    trainer = make_trainer(config)
    # A full path below the folder that it ran in, as a study starts it, is shown as a person would type it.
    record_start(trainer.run_dir, 0, [str(Path.cwd() / "scripts/train_video.py"), "--config", "a b.yaml"], 2)
    record_start(trainer.run_dir, 1, ["/elsewhere/train_video.py"], 2)
    trainer.fit(2)
    folder = build.export_run(config, trainer)
    assert folder is not None
    matter = front_matter(folder)
    assert matter["license"] == "apache-2.0" and matter["library_name"] == "diffusers"
    assert matter["pipeline_tag"] == "image-to-video" and "video_mirai" in matter["tags"]
    card = (folder / CARD_FILE).read_text()
    losses = {
        line["step"]: line["validation/loss"] for line in read_metrics(trainer.run_dir) if "validation/loss" in line
    }
    best = min(losses, key=lambda step: losses[step])
    for part in (
        "from step 0, 2 processes",
        "`python scripts/train_video.py --config 'a b.yaml'`",
        "`python /elsewhere/train_video.py`",
        "- Seed: 17;",
        "synthetic scenes of 1 sprites",
        f"| last (step 2) | best loss (step {best}) |",
        f"| validation/loss | {losses[2]:.4g} | {losses[best]:.4g} |",
    ):
        assert part in card, part


def test_card_states_no_licence_and_no_numbers_that_nobody_gave(exported: Path) -> None:
    assert front_matter(exported)["license"] == "unknown"
    card = (exported / CARD_FILE).read_text()
    assert "No validation was run." in card and "Not recorded." in card


def test_card_of_an_earlier_checkpoint_has_no_later_numbers(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "validation.every_steps=1", "validation.num_clips=4", "validation.rollout_clips=0")
    trainer = make_trainer(config)
    trainer.fit(1)
    trainer.save()
    trainer.fit(2)
    with (trainer.run_dir / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "validation/lo')  # killed while writing
    folder = build.export_checkpoint(trainer.run_dir, None)
    assert "| last (step 1) |" in (folder / CARD_FILE).read_text()


def test_a_bidirectional_teacher_is_exported_without_a_pipeline(teacher: Path) -> None:
    folder = teacher / "export"
    assert not (folder / PIPELINE_FILE).exists()
    assert "pipeline_tag" not in front_matter(folder)
    assert "KV cache" not in (folder / CARD_FILE).read_text()
    with pytest.raises(FileNotFoundError, match=r"has no model_index\.json: it is a bidirectional teacher's, or older"):
        VideoMiraiPipeline.from_pretrained(teacher)
    with pytest.raises(ValueError, match="is a bidirectional teacher: it sees the future and cannot generate"):
        build.load_pipeline(teacher)


def test_pipeline_opens_a_run_its_export_and_an_asset(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_folder, "ASSETS", exported.parents[1])
    run = build.load_run(exported)
    for path in (exported, exported.parent, f"asset:{exported.parent.name}"):
        pipe = VideoMiraiPipeline.from_pretrained(path)
        assert_same_tensors(dict(pipe.transformer.state_dict()), dict(run.model.state_dict()))
        assert (pipe.settings, pipe.height, pipe.width, pipe.fps) == (run.rollout, *run.clips)


def test_an_export_older_than_the_pipeline_opens_through_build_and_is_saved_with_one(
    copy: Path, tmp_path: Path
) -> None:
    (copy / PIPELINE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"build\.load_pipeline opens it"):
        VideoMiraiPipeline.from_pretrained(copy)
    pipe = build.load_pipeline(copy)
    pipe.save_pretrained(tmp_path / "saved")
    again = VideoMiraiPipeline.from_pretrained(tmp_path / "saved")
    frames = [one(num_frames=2, seed=0, output_type="latent").frames for one in (pipe, again)]
    assert torch.equal(*frames)


@pytest.mark.parametrize("name", ["doom_causal"])
def test_a_shipped_model_opens_as_a_pipeline(name: str) -> None:
    pipe, run = VideoMiraiPipeline.from_pretrained(f"asset:{name}"), build.load_run(f"asset:{name}")
    assert (pipe.settings, pipe.height, pipe.width, pipe.fps) == (run.rollout, *run.clips)
    assert pipe.codec.fingerprint() == run.codec.fingerprint()


@pytest.mark.parametrize("name", ["doom_causal", "doom_teacher"])
def test_a_shipped_model_costs_what_its_card_says(name: str, tmp_path: Path) -> None:
    source = export_folder.ASSETS / name
    shutil.copytree(source, tmp_path / name)
    (tmp_path / name / CARD_FILE).unlink()
    run = build.load_run(source)
    proof = prove_export(tmp_path / name, build.export_baseline(run.config, [], run.codec, run.clips))
    for line in proof:
        assert f"- {line}\n" in (source / CARD_FILE).read_text(), line
