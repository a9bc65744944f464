"""Detectors from transformers, on tiny checkpoints with random weights."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from video_mirai.evaluation.consistency import background_consistency, builtin_frame_features
from video_mirai.evaluation.detectors import build_detector, build_frame_encoder, pretrained

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def tiny_model(kind):
    if kind == "videomae":
        config = transformers.VideoMAEConfig(**SMALL, image_size=32, patch_size=16, num_frames=4)
        return transformers.VideoMAEModel(config)
    if kind == "vjepa2":
        predictor = {"pred_hidden_size": 16, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
        small = {**SMALL, "mlp_ratio": 1.0, **predictor}
        return transformers.VJEPA2Model(transformers.VJEPA2Config(**small, crop_size=32, frames_per_clip=4))
    if kind == "dinov2":
        return transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, mlp_ratio=1, image_size=28, patch_size=14))
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    text = {**SMALL, "vocab_size": 10}
    return transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))


@pytest.fixture
def checkpoint(tmp_path):
    def save(kind):
        torch.manual_seed(0)
        tiny_model(kind).save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return save


def noise_clips(num_clips=3, num_frames=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_clips, num_frames, 20, 24, 3)).astype(np.uint8)


@pytest.mark.parametrize(("kind", "width"), [("videomae", 16), ("vjepa2", 16), ("dinov2", 32), ("clip", 16)])
def test_every_family_works_from_a_local_folder(checkpoint, kind, width):
    folder = checkpoint(kind)
    detector = build_detector(f"{kind}:{folder}", 4, batch_clips=2)
    clips = noise_clips()
    features = detector.features(clips)
    assert features.shape == (3, detector.feature_dim) == (3, width)
    np.testing.assert_allclose(build_detector(f"{kind}:{folder}", 4).features(clips[::-1]), features[::-1], atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-4
    assert detector.label == f"fd_{kind}"
    assert detector.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    side = 28 if kind == "dinov2" else 32
    assert f"bilinear {side} x {side} with antialias" in detector.preprocessing


def test_videomae_gets_the_normalised_frames_that_its_own_model_would(checkpoint):
    folder = checkpoint("videomae")
    clips = np.random.default_rng(0).integers(0, 256, (1, 4, 32, 32, 3)).astype(np.uint8)
    mean, deviation = (torch.tensor(row)[:, None, None] for row in pretrained.IMAGENET)
    pixels = (torch.from_numpy(clips).permute(0, 1, 4, 2, 3) / 255 - mean) / deviation
    with torch.inference_mode():
        model = transformers.VideoMAEModel.from_pretrained(folder).eval()
        expected = model(pixel_values=pixels).last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(build_detector(f"videomae:{folder}", 4).features(clips), expected, atol=1e-5)


def test_checkpoint_states_its_own_size_and_colours(checkpoint):
    folder = checkpoint("dinov2")
    stated = {"crop_size": {"height": 14, "width": 14}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    said = build_detector(f"dinov2:{folder}?antialias=false&crop=true", 4).preprocessing
    assert said.startswith("bilinear 14 x 14 without antialias, shorter side first")
    assert "(0.5, 0.5, 0.5)" in said


def test_features_of_frames_make_a_consistency(checkpoint):
    encoder = build_detector(f"clip:{checkpoint('clip')}", 4)
    frames = noise_clips(1, num_frames=6)[0]
    features = encoder.frame_features(frames)
    assert features.shape == (6, 8)
    assert background_consistency(np.repeat(features[:1], 4, axis=0)) == pytest.approx(1)
    with pytest.raises(ValueError, match="take dinov2 or clip"):
        build_detector(f"videomae:{checkpoint('videomae')}", 4).frame_features(frames)


def test_frame_encoder_is_the_built_in_one_or_a_network_of_frames(checkpoint):
    frames = noise_clips(1, num_frames=6)[0]
    builtin = build_frame_encoder("grid_colour_gradient")
    np.testing.assert_array_equal(builtin.frame_features(frames), builtin_frame_features(frames / 255))
    folder = checkpoint("dinov2")
    encoder = build_frame_encoder(f"dinov2:{folder}", batch_frames=4)
    expected = build_detector(f"dinov2:{folder}", 4).frame_features(frames)
    np.testing.assert_allclose(encoder.frame_features(frames), expected, atol=1e-5)
    for name in ("videomae:somewhere", "clip", "vgg"):
        with pytest.raises(ValueError, match="choose one of grid_colour_gradient, dinov2:SOURCE, clip:SOURCE"):
            build_frame_encoder(name)
    with pytest.raises(ValueError, match="uint8"):
        builtin.frame_features(frames / 255)


def test_missing_package_or_checkpoint_says_how_to_get_it(checkpoint, monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="hf download OWNER/NAME, then dinov2:OWNER/NAME"):
        build_detector("dinov2:no folder", 4)

    def offline(source, patterns):
        raise OSError("cannot reach the hub\nat all")

    monkeypatch.setattr(pretrained, "download", offline)
    with pytest.raises(FileNotFoundError, match=r"can't be downloaded \(cannot reach the hub\)") as caught:
        build_detector("dinov2:owner/name", 4)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        build_detector(f"clip:{tmp_path}", 4)
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match=r"video_mirai\[hf\]"):
        build_detector(f"clip:{tmp_path}", 4)


def test_hub_id_is_fetched_without_running_its_code(checkpoint, monkeypatch):
    folder, asked = checkpoint("dinov2"), []

    def fetch(source, patterns):
        asked.append((source, patterns))
        return folder

    monkeypatch.setattr(pretrained, "download", fetch)
    assert build_detector("dinov2:owner/name", 4).label == "fd_dinov2"
    assert asked == [("owner/name", ["*.json", "*.safetensors"])]


def test_checkpoint_of_another_kind_or_with_other_clips_is_refused(checkpoint):
    folder = checkpoint("videomae")
    with pytest.raises(ValueError, match="checkpoint of 'videomae', not of dinov2"):
        build_detector(f"dinov2:{folder}", 4)
    with pytest.raises(ValueError, match="exactly 4 frames"):
        build_detector(f"videomae:{folder}", 16)
    with pytest.raises(ValueError, match="multiple of 2"):
        build_detector(f"vjepa2:{checkpoint('vjepa2')}", 5)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of VideoMAEModel, such as 'encoder.layer.0.output"):
        build_detector(f"videomae:{folder}", 4)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        build_detector(f"videomae:{folder}", 4)
