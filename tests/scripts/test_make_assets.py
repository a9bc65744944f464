"""What the recipe of the shipped checkpoints does to them at the end."""

import fnmatch
import json
from pathlib import Path

import pytest
import torch
from tiny_training import REPOSITORY, forget_accelerator, make_trainer, tiny_config

from make_assets import OCCLUSION, STUDY, STUDY_OUT, occlusion_stages, ship_codec, ship_study_run
from video_mirai import build
from video_mirai.config import load_config
from video_mirai.models.autoencoders import LatentStats
from video_mirai.models.codecs import DiffusersCodec, load_codec
from video_mirai.study.config import StudyConfig
from video_mirai.study.plan import make_plan
from video_mirai.training.codec_trainer import AutoencoderConfig, make_autoencoder

SMALL = AutoencoderConfig(latent_channels=4, widths=[8, 8], encoder_blocks=[0, 1], decoder_blocks=[0, 1])
WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_a_shipped_codec_is_half_as_large_and_its_report_names_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = DiffusersCodec(make_autoencoder(SMALL), LatentStats(torch.zeros(4), torch.ones(4)))
    trained, shipped = tmp_path / "trained", tmp_path / "shipped"
    codec.save_pretrained(trained)
    (trained / "report.json").write_text(json.dumps({"psnr": 30.0, "fingerprint": codec.fingerprint()}))

    (trained / "report.png").write_bytes(b"large")
    ship_codec(trained, shipped)
    ship_codec(trained, shipped)  # again, over the first
    assert not (shipped / "report.png").exists()

    assert (shipped / WEIGHTS).stat().st_size < 0.7 * (trained / WEIGHTS).stat().st_size
    loaded = load_codec(shipped)
    assert json.loads((shipped / "report.json").read_text()) == {"psnr": 30.0, "fingerprint": loaded.fingerprint()}
    assert loaded.fingerprint() != codec.fingerprint()
    video = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert loaded.encode(video).dtype == torch.float32
    torch.testing.assert_close(loaded.encode(video), codec.encode(video), atol=5e-3, rtol=0)


def test_a_shipped_run_has_its_own_name_a_licence_and_half_of_its_size(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path, "name=seed1", "train.num_steps=1", "train.checkpoint_every=1"))
    trainer.fit(1)
    forget_accelerator()
    full = build.export_checkpoint(trainer.run_dir, None)

    shipped = tmp_path / "occlusion_small"
    ship_study_run(trainer.run_dir, shipped)

    assert "_name_or_path" not in json.loads((shipped / "transformer" / "config.json").read_text())
    weights = f"transformer/{WEIGHTS}"
    assert (shipped / weights).stat().st_size < 0.7 * (full / weights).stat().st_size
    run = build.load_run(shipped)
    assert (run.config.name, run.config.license) == ("occlusion_small", "apache-2.0")
    rounded, exact = dict(run.model.named_parameters()), dict(build.load_run(full).model.named_parameters())
    assert any(not torch.equal(rounded[name], exact[name]) for name in exact)
    for name in exact:
        torch.testing.assert_close(rounded[name], exact[name], atol=1e-4, rtol=1e-3)


def test_the_occlusion_models_are_runs_of_the_study_and_its_committed_results_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = make_plan(load_config(StudyConfig, REPOSITORY / STUDY))
    assert Path(str(plan.config.out)) == STUDY_OUT
    folders = {job.folder: job.name for job in plan.jobs}
    wanted = {folders[STUDY_OUT / run] for run in OCCLUSION.values()}
    found = set()
    for stage in occlusion_stages(tmp_path):
        assert f"results={tmp_path / 'occlusion_results'}" in stage.command
        found |= {job.name for job in plan.jobs if fnmatch.fnmatchcase(job.name, stage.command[-1])}
    assert found == wanted
