"""What the recipe of the shipped checkpoints does to them at the end."""

import json
from pathlib import Path

import torch

from make_assets import ship_codec
from video_mirai.models.autoencoders import LatentStats
from video_mirai.models.codecs import DiffusersCodec, load_codec
from video_mirai.training.codec_trainer import AutoencoderConfig, make_autoencoder

SMALL = AutoencoderConfig(latent_channels=4, widths=[8, 8], encoder_blocks=[0, 1], decoder_blocks=[0, 1])
WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_a_shipped_codec_is_half_as_large_and_its_report_names_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = DiffusersCodec(make_autoencoder(SMALL), LatentStats(torch.zeros(4), torch.ones(4)))
    trained, shipped = tmp_path / "trained", tmp_path / "shipped"
    codec.save_pretrained(trained)
    (trained / "report.json").write_text(json.dumps({"psnr": 30.0, "fingerprint": codec.fingerprint()}))

    ship_codec(trained, shipped)
    ship_codec(trained, shipped)  # again, over the first

    assert (shipped / WEIGHTS).stat().st_size < 0.7 * (trained / WEIGHTS).stat().st_size
    loaded = load_codec(shipped)
    assert json.loads((shipped / "report.json").read_text()) == {"psnr": 30.0, "fingerprint": loaded.fingerprint()}
    assert loaded.fingerprint() != codec.fingerprint()
    video = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert loaded.encode(video).dtype == torch.float32
    torch.testing.assert_close(loaded.encode(video), codec.encode(video), atol=5e-3, rtol=0)
