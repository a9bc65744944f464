"""Codecs: shapes, normalisation, determinism, streaming, and folders that are refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLWan, AutoencoderTiny
from tiny_models import random_latents, tiny_model
from torch import Tensor, nn

from video_mirai.models.autoencoders import LatentStats, raw_latents
from video_mirai.models.codecs import Codec, CodecConfig, DiffusersCodec, PixelsCodec, build_codec, load_codec
from video_mirai.models.decoder_memory import DecoderMemory
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState, load_state, save_state


def make_kl(**config: object) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        latent_channels=5,
        mid_block_add_attention=False,
        **config,
    )


def make_tiny() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4),
        decoder_block_out_channels=(4, 4, 4),
        num_encoder_blocks=(0, 1, 1),
        num_decoder_blocks=(1, 1, 0),
        latent_channels=6,
    )


def make_dc() -> AutoencoderDC:
    return AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=(4, 4, 8),
        decoder_block_out_channels=(4, 4, 8),
        encoder_layers_per_block=(0, 1, 1),
        decoder_layers_per_block=(0, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
    )


def make_wan(**config: object) -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=3,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3],
        latents_std=[1.5, 0.5, 2.0],
        **config,
    )


def make_codec(autoencoder: nn.Module, channels: int) -> DiffusersCodec:
    return DiffusersCodec(
        autoencoder, LatentStats(torch.linspace(-0.5, 0.5, channels), torch.linspace(0.5, 2, channels))
    )


def random_video(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


CODECS = {
    "pixels": (PixelsCodec, (3, 1, 1)),
    "dc": (lambda: make_codec(make_dc(), 4), (4, 4, 1)),
    "kl": (lambda: make_codec(make_kl(), 5), (5, 2, 1)),
    "tiny": (lambda: make_codec(make_tiny(), 6), (6, 4, 1)),
    "wan": (lambda: make_codec(make_wan(), 3), (3, 8, 4)),
}


@pytest.mark.parametrize("name", CODECS)
def test_shapes_follow_the_factors(name: str) -> None:
    make, (channels, spatial, temporal) = CODECS[name]
    codec = make()
    assert (codec.latent_channels, codec.spatial_factor, codec.temporal_factor) == (channels, spatial, temporal)
    video = random_video(2, 5, 3, 16, 24)
    latents = codec.encode(video)
    assert latents.shape == (2, codec.num_latent_frames(5), channels, 16 // spatial, 24 // spatial)
    decoded = codec.decode(latents)
    assert decoded.shape == video.shape
    assert codec.num_pixel_frames(latents.shape[1]) == 5
    assert decoded.abs().max() <= 1


@pytest.mark.parametrize("name", CODECS)
def test_an_empty_history_stays_empty(name: str) -> None:
    codec = CODECS[name][0]()
    latents = codec.encode(torch.zeros(2, 0, 3, 16, 24))
    assert latents.shape[:2] == (2, 0)
    assert codec.decode(latents).shape == (2, 0, 3, 16, 24)
    assert codec.num_latent_frames(0) == codec.num_pixel_frames(0) == 0


@pytest.mark.parametrize("name", CODECS)
def test_encoding_is_deterministic_and_needs_no_gradient(name: str) -> None:
    codec = CODECS[name][0]()
    video = random_video(1, 5, 3, 16, 16)
    assert torch.equal(codec.encode(video), codec.encode(video))
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    assert not codec.decode(codec.encode(video)).requires_grad


@pytest.mark.parametrize("name", CODECS)
def test_streamed_decoding_equals_decoding_at_once(name: str) -> None:
    codec = CODECS[name][0]()
    latents = codec.encode(random_video(1, 17, 3, 16, 16))
    parts = latents.split([1, 2, latents.shape[1] - 3], dim=1)
    streamed = list(codec.decode_stream([parts[0], latents[:, :0], parts[1], parts[2]]))
    assert streamed[1].shape[1] == 0
    torch.testing.assert_close(torch.cat(streamed, dim=1), codec.decode(latents), rtol=1e-5, atol=1e-5)


def test_streamed_decoding_equals_decoding_at_once_with_patches_and_residuals() -> None:
    wan = make_wan(is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)
    codec = make_codec(wan, 3)
    latents = codec.encode(random_video(1, 9, 3, 32, 16))
    streamed = torch.cat(list(codec.decode_stream(latents.split(1, dim=1))), dim=1)
    torch.testing.assert_close(streamed, codec.decode(latents), rtol=1e-5, atol=1e-5)


def test_latents_are_the_posterior_mode_normalised_per_channel() -> None:
    codec = make_codec(make_kl(), 5)
    video = random_video(2, 3, 3, 8, 8)
    mode = codec.autoencoder.encode(video.flatten(0, 1)).latent_dist.mode().unflatten(0, (2, 3))
    expected = (mode - codec.mean.view(-1, 1, 1)) / codec.std.view(-1, 1, 1)
    torch.testing.assert_close(codec.encode(video), expected)


def test_decoding_undoes_the_normalisation() -> None:
    codec = make_codec(make_tiny(), 6)
    video = random_video(1, 2, 3, 8, 8)
    expected = codec.autoencoder.decode(raw_latents(codec.autoencoder, video[0])).sample.clamp(-1, 1)
    torch.testing.assert_close(codec.decode(codec.encode(video))[0], expected, rtol=1e-4, atol=1e-5)


def test_passes_of_bounded_size_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make_codec(make_tiny(), 6)
    video = random_video(2, 5, 3, 8, 8)
    latents, decoded = codec.encode(video), codec.decode(codec.encode(video))
    monkeypatch.setattr("video_mirai.models.codecs.PIXELS_PER_PASS", 3 * 8 * 8)
    torch.testing.assert_close(codec.encode(video), latents)
    torch.testing.assert_close(codec.decode(latents), decoded)


@pytest.mark.parametrize("name", CODECS)
def test_saved_and_loaded_codec_is_the_same(name: str, tmp_path: Path) -> None:
    codec = CODECS[name][0]()
    codec.save_pretrained(tmp_path / "codec")
    loaded = load_codec(tmp_path / "codec")
    video = random_video(1, 5, 3, 16, 16)
    assert torch.equal(loaded.encode(video), codec.encode(video))
    assert loaded.fingerprint() == codec.fingerprint()


def test_fingerprint_changes_with_weights_and_with_statistics() -> None:
    autoencoder = make_tiny()
    codec = make_codec(autoencoder, 6)
    before = codec.fingerprint()
    other_stats = DiffusersCodec(autoencoder, LatentStats(codec.mean + 1, codec.std))
    assert other_stats.fingerprint() != before
    next(autoencoder.parameters()).data.add_(1)
    assert codec.fingerprint() != before
    assert PixelsCodec().fingerprint() != before


def test_wan_statistics_come_from_its_config(tmp_path: Path) -> None:
    make_wan().save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert codec.mean.tolist() == pytest.approx([0.1, -0.2, 0.3])
    assert codec.std.tolist() == pytest.approx([1.5, 0.5, 2.0])


def test_statistics_fall_back_to_scaling_and_shift(tmp_path: Path) -> None:
    make_kl(scaling_factor=0.25, shift_factor=0.5).save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert codec.mean.tolist() == [0.5] * 5
    assert codec.std.tolist() == [4.0] * 5


def test_statistics_beside_the_weights_win(tmp_path: Path) -> None:
    make_kl(scaling_factor=0.25).save_pretrained(tmp_path)
    (tmp_path / "latent_stats.json").write_text(json.dumps({"mean": [1.0] * 5, "std": [2.0] * 5}))
    assert load_codec(tmp_path).std.tolist() == [2.0] * 5


def test_lengths_and_sizes_that_do_not_fit_are_named() -> None:
    codec = make_codec(make_wan(), 3)
    with pytest.raises(ValueError, match=r"num_frames=8 .* factor 4; try 5"):
        codec.encode(random_video(1, 8, 3, 16, 16))
    with pytest.raises(ValueError, match=r"20x16 .* factor 8"):
        codec.encode(random_video(1, 5, 3, 20, 16))
    with pytest.raises(ValueError, match=r"\(B, F, 3, h, w\), got shape \(1, 1, 4, 2, 2\)"):
        codec.decode(torch.zeros(1, 1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"\(B, T, 3, H, W\), got shape \(1, 3, 16, 16\)"):
        codec.encode(random_video(1, 3, 16, 16))


def write_config(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(text)
    return folder


def test_folders_that_hold_no_codec_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_codec(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_codec(tmp_path)
    write_config(tmp_path / "pipeline" / "vae", "{}")
    with pytest.raises(FileNotFoundError, match=r"use '.*vae'"):
        load_codec(tmp_path / "pipeline")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_codec(write_config(tmp_path / "broken", "{"))
    with pytest.raises(ValueError, match="'VQModel'; known: AutoencoderDC, AutoencoderKL, AutoencoderKLWan"):
        load_codec(write_config(tmp_path / "unknown", '{"_class_name": "VQModel"}'))
    with pytest.raises(FileNotFoundError, match="no weights"):
        load_codec(write_config(tmp_path / "empty", '{"_class_name": "AutoencoderKL"}'))


def test_damaged_weights_are_refused_with_the_folder_named(tmp_path: Path) -> None:
    make_tiny().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"weights in codec folder '.*' cannot be read"):
        load_codec(tmp_path)


@pytest.mark.parametrize("stats", [{"mean": [0.0] * 4, "std": [1.0] * 4}, {"mean": [0.0] * 6, "std": [0.0] * 6}, {}])
def test_statistics_that_do_not_fit_are_refused(stats: dict[str, list[float]], tmp_path: Path) -> None:
    make_tiny().save_pretrained(tmp_path)
    (tmp_path / "latent_stats.json").write_text(json.dumps(stats))
    with pytest.raises(ValueError, match=r"latent_stats\.json"):
        load_codec(tmp_path)


def test_codec_config_builds_each_kind_and_lists_them(tmp_path: Path) -> None:
    codec: Codec = build_codec(CodecConfig())
    assert isinstance(codec, PixelsCodec)
    make_codec(make_tiny(), 6).save_pretrained(tmp_path)
    assert isinstance(build_codec(CodecConfig("diffusers", str(tmp_path))), DiffusersCodec)
    with pytest.raises(ValueError, match="needs a path"):
        build_codec(CodecConfig("diffusers"))
    with pytest.raises(ValueError, match="unknown codec kind 'vae'; known: diffusers, pixels"):
        build_codec(CodecConfig("vae"))


@torch.no_grad()
def test_a_decoder_goes_on_from_its_saved_memory(tmp_path: Path) -> None:
    codec, model = make_codec(make_wan(), 3), tiny_model()
    latents = torch.randn(1, 5, 3, 4, 4)
    state, generator, memory = RolloutState(), torch.Generator(), DecoderMemory()
    next(rollout(model, random_latents(1, batch=1), RolloutSettings(num_steps=1), generator, state=state))
    first = list(codec.decode_stream(latents[:, :2].split(1, dim=1), memory))
    save_state(tmp_path / "state.safetensors", state, generator, memory)
    rest = codec.decode_stream(
        latents[:, 2:].split(2, dim=1), load_state(tmp_path / "state.safetensors", model).decoder
    )
    assert torch.equal(torch.cat([*first, *rest], dim=1), torch.cat(list(codec.decode_stream([latents])), dim=1))
