"""LPIPS through a package that only looks like lpips: torchvision is no dependency."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from video_folders import evaluate, moving_texture, write_folder

from video_mirai.evaluation.lpips import NETWORKS, Lpips

CPU = torch.device("cpu")


class MeanDistance(torch.nn.Module):
    """What lpips.LPIPS is called like; the mean absolute difference instead."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, reference: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        assert reference.min() >= -1 and reference.max() <= 1 and reference.shape[1] == 3
        return self.weight * (reference - frames).abs().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Both packages are there; returns the folder where weights are looked for."""
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=MeanDistance))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_each_frame_is_compared_in_order_whatever_the_batch(packages: Path) -> None:
    (packages / "alexnet-owt-0.pth").touch()
    lpips = Lpips("alex", CPU, batch_frames=2)
    black = np.zeros((5, 32, 32, 3), np.uint8)
    frames = black + np.array([0, 51, 102, 153, 255], np.uint8)[:, None, None, None]
    np.testing.assert_allclose(lpips.per_frame(black, frames), np.array([0, 0.4, 0.8, 1.2, 2.0]), atol=1e-6)
    assert lpips.name == "lpips_alex" and len(lpips.sha256) == 64


def test_folders_have_lpips_beside_psnr_where_it_is_asked_for(packages: Path, tmp_path: Path) -> None:
    (packages / "vgg16-0.pth").touch()
    real = {f"clip_{i}": moving_texture(i, size=32) for i in range(2)}
    write_folder(tmp_path / "real", real)
    write_folder(tmp_path / "fake", {name: frames // 2 for name, frames in real.items()})
    found = evaluate(tmp_path, lpips="vgg")
    assert 0 < found.rows[0].scores[0].numbers["lpips"] < 2
    metric = next(metric for metric in found.protocol.metrics() if metric.key == "lpips")
    assert metric.better == "lower" and "lpips_vgg, sha256 " in metric.how
    assert "lpips" not in evaluate(tmp_path).rows[0].scores[0].numbers


@pytest.mark.parametrize("missing", ["torchvision", "lpips"])
def test_missing_package_says_how_to_get_it(missing: str, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ValueError, match=f"needs the package {missing}, .* pip install lpips and the torchvision"
    ) as found:
        Lpips("alex", CPU)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("net", list(NETWORKS))
def test_missing_weights_say_how_to_get_them_and_are_not_downloaded(net: str, packages: Path) -> None:
    constructor = NETWORKS[net].constructor
    with pytest.raises(FileNotFoundError, match=rf"fetch it once: python -c .*{constructor}\(weights='DEFAULT'\)"):
        Lpips(net, CPU)


def test_other_networks_and_frames_that_are_too_small_are_one_clear_line(packages: Path) -> None:
    with pytest.raises(ValueError, match="choose one of alex, vgg, squeeze"):
        Lpips("resnet", CPU)
    (packages / "alexnet-owt-0.pth").touch()
    small, other = np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        Lpips("alex", CPU).per_frame(small, small)
    with pytest.raises(ValueError, match="differ"):
        Lpips("alex", CPU).per_frame(small, other)
