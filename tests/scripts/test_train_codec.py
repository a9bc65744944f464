"""Codec training: the loss goes down, the folder can be loaded, mistakes are one line."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import REPOSITORY
from torch import Tensor

import train_codec
from _cli import run_script
from video_mirai.config import load_config
from video_mirai.data.video_folder import VideoFolder, VideoFolderConfig
from video_mirai.media import psnr, write_video
from video_mirai.models.codecs import load_codec
from video_mirai.training import codec_trainer
from video_mirai.training.codec_report import report_codec
from video_mirai.training.codec_trainer import (
    AutoencoderConfig,
    CodecDiverged,
    CodecTrainConfig,
    check_codec_config,
    codec_loss,
    make_autoencoder,
    random_batches,
    read_frames,
)
from video_mirai.training.optimizers import ScheduleConfig

SMALL = AutoencoderConfig(latent_channels=4, widths=[8, 8], encoder_blocks=[0, 1], decoder_blocks=[0, 1])
TINY = replace(SMALL, kind="AutoencoderTiny")
KL = replace(SMALL, kind="AutoencoderKL", widths=[4, 8], encoder_blocks=[1, 1], decoder_blocks=[1, 1])
SETTINGS = (
    "autoencoder.latent_channels=4",
    "autoencoder.widths=[8,8]",
    "autoencoder.encoder_blocks=[0,1]",
    "autoencoder.decoder_blocks=[0,1]",
    "data.height=16",
    "data.width=32",
    "data.num_frames=4",
    "data.val_fraction=0.3",
    "num_steps=2",
    "batch_frames=4",
)


def small_config(**changes: object) -> CodecTrainConfig:
    data = VideoFolderConfig("unused", height=16, width=32)
    schedule = ScheduleConfig(warmup_steps=5)
    config = CodecTrainConfig(data, "unused", SMALL, 30, 8, lr=1e-2, schedule=schedule, precision="fp32")
    return replace(config, **changes)


def blobs(num_frames: int) -> Tensor:
    """Frames (N, 3, 16, 32) uint8: one disc each, disc and ground of any colour."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:16, 0:32]
    centres = generator.uniform((3, 3), (13, 29), (num_frames, 2))
    inside = [(rows - y) ** 2 + (columns - x) ** 2 < 9 for y, x in centres]
    discs = np.stack(inside)[:, None]  # (N, 1, 16, 32)
    colour, ground = generator.integers(0, 256, (2, num_frames, 3, 1, 1))
    return torch.from_numpy(np.where(discs, colour, ground).astype(np.uint8))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    frames = blobs(48).permute(0, 2, 3, 1).numpy()
    for number in range(6):
        write_video(folder / f"{number}.mp4", frames[8 * number : 8 * number + 8], fps=8)
    return folder


@pytest.fixture
def call(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Exit code of the script."""

    def run(*arguments: str) -> int:
        config = ("--config", str(REPOSITORY / "configs" / "codec" / "tiny64.yaml"))
        places = (f"data.root={videos}", f"output_dir={tmp_path / 'codec'}")
        monkeypatch.setattr(sys, "argv", ["train_codec.py", *config, *places, *SETTINGS, *arguments])
        with pytest.raises(SystemExit) as exit_info:
            run_script(train_codec.main)
        return 1 if isinstance(exit_info.value.code, str) else int(exit_info.value.code or 0)

    return run


def test_script_writes_a_codec_that_loads_and_a_report(call: Callable[..., int], tmp_path: Path) -> None:
    assert call() == 0
    folder = tmp_path / "codec"
    codec = load_codec(folder)
    assert (codec.latent_channels, codec.spatial_factor) == (4, 2)
    report = json.loads((folder / "report.json").read_text())
    assert report["fingerprint"] == codec.fingerprint()
    assert report["num_frames"] % 8 == 0  # whole held-out videos
    assert Image.open(folder / "report.png").size[0] > 6 * 32
    assert load_config(CodecTrainConfig, folder / "train_codec.yaml").num_steps == 2


def test_an_existing_codec_is_replaced_only_on_request(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call() == 0
    before = (tmp_path / "codec" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert call("seed=1") == 2
    assert "already holds a codec" in capsys.readouterr().err
    assert call("seed=1", "--overwrite") == 0
    assert (tmp_path / "codec" / "diffusion_pytorch_model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_step=3", "num_step: unknown key"),
        ("num_steps=0", "num_steps=0 must be at least 1"),
        ("data.root=nowhere", "nowhere: no such folder"),
        ("data.height=15", "data.height=15 and data.width=32 don't divide by the codec's factor 2"),
        ("autoencoder.widths=[8,8,8]", "need one entry per level"),
        ("autoencoder.widths=[8,12]", "AutoencoderDC needs each width to divide 4 x the one before"),
        ("autoencoder.widths=[8,64]", "AutoencoderDC needs each width to divide 4 x the one before"),
        ("autoencoder.latent_channels=3", "no multiple of latent_channels=3"),
        ("autoencoder.decoder_blocks=[0,0]", "AutoencoderDC needs a block at each level but the first"),
        ("autoencoder.kind=VQModel", "autoencoder.kind"),
        ("precision=int8", "precision"),
    ],
)
def test_users_mistake_is_one_line_and_exit_code_2(
    override: str, message: str, call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(override) == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last_line
    assert not (tmp_path / "codec").exists()


@pytest.mark.parametrize("sizes", [SMALL, TINY, KL], ids=lambda sizes: sizes.kind)
def test_training_learns_and_its_latents_have_unit_variance(sizes: AutoencoderConfig) -> None:
    frames = blobs(32)
    untrained = codec_trainer.train_codec(small_config(autoencoder=sizes, num_steps=1), frames)
    trained = codec_trainer.train_codec(small_config(autoencoder=sizes, num_steps=40), frames)
    assert report_codec(trained, frames[:16]).psnr > report_codec(untrained, frames[:16]).psnr + 1
    latents = trained.encode(frames.float().div(127.5).sub(1)[None])[0]
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_autoencoder_dc_has_two_levels() -> None:
    one_level = replace(SMALL, widths=[8], encoder_blocks=[1], decoder_blocks=[1])
    with pytest.raises(ValueError, match="AutoencoderDC needs at least two levels"):
        check_codec_config(small_config(autoencoder=one_level))


def test_autoencoder_tiny_has_one_width() -> None:
    config = small_config(autoencoder=replace(TINY, widths=[8, 16]))
    with pytest.raises(ValueError, match="AutoencoderTiny has one width"):
        check_codec_config(config)


@pytest.mark.parametrize("pixel_loss", ["l1", "l2"])
def test_the_loss_without_noise_is_the_reconstruction_s_plus_the_latents_size(pixel_loss: str) -> None:
    torch.manual_seed(0)
    autoencoder = make_autoencoder(SMALL)
    images = next(random_batches(blobs(16), small_config()))
    config = small_config(pixel_loss=pixel_loss, latent_noise=0.0, gradient_weight=0.0, kl_weight=0.25)
    loss = codec_loss(autoencoder, images, config, torch.Generator())
    latents = autoencoder.encode(images).latent
    error = autoencoder.decode(latents).sample - images
    expected = (error.square() if pixel_loss == "l2" else error.abs()).mean() + 0.25 * 0.5 * latents.square().mean()
    torch.testing.assert_close(loss.total, expected)


def test_training_repeats_with_its_seed() -> None:
    frames = blobs(16)
    first, again, other = (
        codec_trainer.train_codec(small_config(num_steps=3, seed=seed), frames).fingerprint() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_latent_noise_changes_the_loss_and_zero_noise_does_not_draw() -> None:
    torch.manual_seed(0)
    autoencoder = make_autoencoder(SMALL)
    images = next(random_batches(blobs(16), small_config()))
    losses = {
        (noise, seed): codec_loss(
            autoencoder, images, small_config(latent_noise=noise), torch.Generator().manual_seed(seed)
        ).total.item()
        for noise in (0.0, 0.5)
        for seed in (0, 1)
    }
    assert losses[0.0, 0] == losses[0.0, 1]
    assert losses[0.5, 0] != losses[0.5, 1]


def test_a_loss_that_is_not_finite_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_trainer, "SHOW_EVERY_STEPS", 1)
    with pytest.raises(CodecDiverged, match="at step"):
        codec_trainer.train_codec(small_config(lr=1e30, max_gradient_norm=1e30), blobs(16))


def test_frames_are_read_until_the_memory_is_full(videos: Path) -> None:
    dataset = VideoFolder(videos, 4, height=16, width=32, split="all")
    assert len(read_frames(dataset, 10**9, seed=0)) == 24
    assert len(read_frames(dataset, 5 * 3 * 16 * 32, seed=0)) == 8


def test_psnr_of_a_constant_error() -> None:
    assert psnr(torch.full((2, 3, 4, 4), 0.2)).tolist() == pytest.approx([20.0, 20.0])


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "codec").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_committed_config_builds(path: Path) -> None:
    config = load_config(CodecTrainConfig, path)
    check_codec_config(config)
    with torch.device("meta"):
        autoencoder = make_autoencoder(config.autoencoder)
    assert autoencoder.config.latent_channels == config.autoencoder.latent_channels
