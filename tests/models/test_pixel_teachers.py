"""Pretrained encoders as teachers, shown with tiny random checkpoints of the same architectures."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")

from tiny_encoders import CONFIGS, LAYERS, WIDTH, tiny_encoder, write_encoder

from video_mirai.models.codecs import Codec, PixelsCodec
from video_mirai.models.pixel_teachers import PIXEL_MEAN, PIXEL_STD, PixelTeacher, load_encoder
from video_mirai.objectives.foresight import ForesightConfig, ForesightSource

CPU = torch.device("cpu")


def quarters(height: int, width: int) -> tuple[int, int]:
    """Token grid of a student with patches of 4 x 4."""
    return height // 4, width // 4


def make_teacher(family: str, layer: float = 2, codec: Codec | None = None) -> PixelTeacher:
    return PixelTeacher(tiny_encoder(family), layer, codec or PixelsCodec(), quarters)


def random_video(frames: int = 8, seed: int = 1, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, frames, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("frames", [1, 3, 8])
def test_features_lie_on_the_students_grid_whatever_the_clips_length(family, frames):
    features = make_teacher(family).encode(random_video(frames), None)
    assert features.shape == (2, frames, 16, WIDTH)
    assert not features.requires_grad and torch.isfinite(features).all()


@pytest.mark.parametrize("family", CONFIGS)
def test_features_are_the_encoders_own_residual_stream(family):
    """At its own size and length nothing is resampled: the features are what transformers calls hidden_states."""
    teacher, encoder = make_teacher(family), tiny_encoder(family)
    frames = {"dinov2": 2, "videomae": 4, "vjepa2": 4}[family]
    video = random_video(frames)
    side = teacher.image_size
    pixels = torch.nn.functional.interpolate(video.flatten(0, 1), (side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    pixels = (((pixels + 1) / 2 - mean) / std).unflatten(0, video.shape[:2])
    with torch.no_grad():
        if family == "dinov2":
            states = encoder(pixel_values=pixels.flatten(0, 1), output_hidden_states=True).hidden_states[2][:, 1:]
        elif family == "videomae":
            states = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[2]
        else:
            states = encoder(pixels, skip_predictor=True, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(teacher.read(video).flatten(), states.flatten())


@pytest.mark.parametrize("family, sees", [("dinov2", False), ("videomae", True), ("vjepa2", True)])
def test_encoders_over_time_see_the_future_and_those_of_frames_do_not(family, sees):
    teacher = make_teacher(family)
    video = random_video()
    changed = video.clone()
    changed[:, -1] = -changed[:, -1]
    before, after = teacher.encode(video, None), teacher.encode(changed, None)
    assert torch.equal(before[:, 0], after[:, 0]) != sees
    assert not torch.equal(before[:, -1], after[:, -1])


def test_tokens_keep_their_places():
    """A patch that changes in one corner changes the features of that corner alone, in an encoder without mixing."""
    teacher = make_teacher("dinov2", layer=1)
    for layer in teacher.network.encoder.layer:
        torch.nn.init.zeros_(layer.layer_scale1.lambda1)  # what attention adds
    video = random_video(2)
    changed = video.clone()
    changed[:, 1, :, :4, 12:] *= -1
    differs = (teacher.encode(video, None) != teacher.encode(changed, None)).any(-1)[0]
    assert differs[0].sum() == 0
    assert differs[1].unflatten(0, (4, 4))[0, 3] and not differs[1].unflatten(0, (4, 4))[2:, :2].any()


class Doubling(PixelsCodec):
    """Latents are half the pixels."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return super().decode(2 * latents)


def test_the_datas_own_video_is_read_where_there_is_one_and_decoded_latents_else():
    teacher = make_teacher("dinov2", codec=Doubling())
    video = random_video()
    own = teacher.encode(video / 2, None, video)
    torch.testing.assert_close(teacher.encode(video / 2, None), own)
    assert not torch.allclose(teacher.encode(video, None), own)


@pytest.mark.parametrize("family", ["videomae", "vjepa2"])
@pytest.mark.parametrize("has_video", [True, False])
def test_with_a_shuffled_future_no_target_depends_on_the_true_future(family, has_video):
    config = ForesightConfig(window=[0], shuffle_future=True)
    source = ForesightSource(make_teacher(family), config, 2, PixelsCodec(), num_steps=1)
    video = random_video()
    changed = video.clone()
    changed[0, 4:] = random_video(4, seed=5)[0]
    before, after = (source.targets(clip, None, clip if has_video else None).targets for clip in (video, changed))
    assert torch.equal(before[0, :, :2], after[0, :, :2])
    assert not torch.equal(before[0, :, 2:], after[0, :, 2:])


@pytest.mark.parametrize("family", CONFIGS)
def test_a_checkpoint_folder_gives_its_weights_and_meta_or_untrained_reads_none(family, tmp_path: Path):
    write_encoder(family, tmp_path)
    loaded = load_encoder(str(tmp_path), None, CPU, torch.float32, untrained=False)
    for name, value in tiny_encoder(family).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    next(tmp_path.glob("*.safetensors")).unlink()
    torch.manual_seed(9)
    untrained = load_encoder(str(tmp_path), None, CPU, torch.float32, untrained=True)
    assert any(not torch.equal(untrained.state_dict()[name], value) for name, value in loaded.state_dict().items())
    on_meta = load_encoder(str(tmp_path), None, torch.device("meta"), torch.float32, untrained=False)
    assert {parameter.device.type for parameter in on_meta.parameters()} == {"meta"}


@pytest.mark.parametrize("family, side", [("dinov2", 2), ("vjepa2", 2)])
def test_an_image_size_of_ones_own_choice_is_read(family, side, tmp_path: Path):
    size = side * CONFIGS[family].patch_size
    encoder = load_encoder(str(write_encoder(family, tmp_path)), size, CPU, torch.float32, untrained=True)
    teacher = PixelTeacher(encoder, 1.0, PixelsCodec(), quarters)
    assert teacher.read(random_video()).shape[2:4] == (side, side)


def test_encoders_that_cannot_be_read_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_encoder(str(tmp_path / "nowhere"), None, CPU, torch.float32, untrained=False)
    write_encoder("videomae", tmp_path)
    with pytest.raises(ValueError, match="reads 16 only"):
        load_encoder(str(tmp_path), 32, CPU, torch.float32, untrained=False)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="known encoders: dinov2"):
        load_encoder(str(tmp_path), None, CPU, torch.float32, untrained=False)


def test_a_checkpoint_with_missing_weights_is_refused(tmp_path: Path):
    encoder = tiny_encoder("dinov2")
    weights = encoder.state_dict()
    del weights["encoder.layer.0.norm1.weight"]
    encoder.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"1 weights are missing, such as encoder\.layer\.0\.norm1"):
        load_encoder(str(tmp_path), None, CPU, torch.float32, untrained=False)


def test_layers_above_the_one_that_is_read_are_not_kept_and_all_is_frozen():
    teacher = make_teacher("vjepa2", layer=0.5)
    assert teacher.layer == round(LAYERS / 2) == len(teacher.network.encoder.layer)
    assert not hasattr(teacher.network, "predictor")
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
