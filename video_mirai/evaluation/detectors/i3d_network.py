"""The I3D network on RGB (Carreira & Zisserman 2017), with the parameter names of the published PyTorch state dicts."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of every mixed block: channels of the four branches, as (1x1, 1x1 -> 3x3, 1x1 -> 3x3, pool -> 1x1).
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Max pools stand before these blocks: (kernel, stride), both time, height, width.
POOLS = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
LAST_POOL = (2, 7, 7)
Size = tuple[int, int, int]


class I3D(nn.Module):
    """Clips (B, 3, T, 224, 224) in [-1, 1] to logits (B, num_classes), averaged over time; T of at least 9.

    eps: of the batch norms.
    """

    def __init__(self, num_classes: int, eps: float) -> None:
        super().__init__()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        blocks["Conv3d_1a_7x7"] = Unit3D(3, 64, (7, 7, 7), (2, 2, 2))
        blocks["Conv3d_2b_1x1"] = Unit3D(64, 64, (1, 1, 1))
        blocks["Conv3d_2c_3x3"] = Unit3D(64, 192, (3, 3, 3))
        channels = 192
        for name, branches in MIXED.items():
            blocks[name] = Mixed(channels, branches)
            channels = branches[0] + branches[2] + branches[4] + branches[5]
        self._trunk = tuple(blocks)
        for name, block in blocks.items():
            self.add_module(name, block)
        self.logits = Unit3D(channels, num_classes, (1, 1, 1), is_last=True)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = eps

    def forward(self, clips: Tensor) -> Tensor:
        x = clips
        for name in self._trunk:
            if name in POOLS:
                x = same_max_pool(x, *POOLS[name])
            x = self.get_submodule(name)(x)
        x = self.logits(F.avg_pool3d(x, LAST_POOL, stride=1))  # (B, classes, T', 1, 1)
        return x.mean(dim=(2, 3, 4))


class Unit3D(nn.Module):
    """Convolution, batch norm, ReLU; the last one has a bias instead of both."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: Size, stride: Size = (1, 1, 1), *, is_last: bool = False
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(channels_in, channels_out, kernel, stride, bias=is_last)
        self.bn = nn.Identity() if is_last else nn.BatchNorm3d(channels_out)
        self.is_last = is_last

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv3d(same_pad(x, self.kernel, self.stride)))
        return x if self.is_last else F.relu(x)


class Mixed(nn.Module):
    """Four branches side by side; see MIXED."""

    def __init__(self, channels_in: int, branches: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit3D(channels_in, branches[0], (1, 1, 1))
        self.b1a = Unit3D(channels_in, branches[1], (1, 1, 1))
        self.b1b = Unit3D(branches[1], branches[2], (3, 3, 3))
        self.b2a = Unit3D(channels_in, branches[3], (1, 1, 1))
        self.b2b = Unit3D(branches[3], branches[4], (3, 3, 3))
        self.b3b = Unit3D(channels_in, branches[5], (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = same_max_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


def same_pad(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Zeros around time, height and width so that ceil(size / stride) positions fit, the odd one behind."""
    padding: list[int] = []
    for size, width, step in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(width - (size % step or step), 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)


def same_max_pool(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    return F.max_pool3d(same_pad(x, kernel, stride), kernel, stride)
