"""Residual networks for small images."""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn

from .sequential import SequentialClassifier


class ResNet(SequentialClassifier):
    """A residual network with stages of `depths` blocks; `widths` are the stem's and then each stage's channels.

    The first stage keeps the resolution, each further one halves it. A shortcut that changes the shape is a 1x1
    convolution with batch norm. `zero_init_last` starts every block as its shortcut. `init` "fan_out" draws the
    convolutions as He et al. do, "torch" leaves PyTorch's defaults, as the authors of FRSKD do in their ResNet-18.
    Source: He et al., 2016, section 4.2, https://arxiv.org/abs/1512.03385
    """

    def __init__(
        self,
        block: "type[BasicBlock] | type[Bottleneck]",
        depths: Iterable[int],
        widths: Iterable[int],
        *,
        in_channels: int,
        num_classes: int,
        zero_init_last: bool = False,
        init: Literal["fan_out", "torch"] = "fan_out",
    ) -> None:
        super().__init__()
        if init not in ("fan_out", "torch"):
            raise ValueError(f"init={init!r} is neither 'fan_out' nor 'torch'")
        channels, *widths = widths
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.feature_info = []
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = [block(channels, width, stride=1 if i == 0 else 2)]
            channels = width * block.expansion
            stage += [block(channels, width) for _ in range(depth - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            self.feature_info.append({"module": f"layer{i + 1}", "num_chs": channels, "reduction": 2**i})
        self.add_head(channels, num_classes)
        if init == "fan_out":
            initialize(self)
        if zero_init_last:
            for stage in self.feature_info:
                for residual_block in self.get_submodule(stage["module"]):
                    nn.init.zeros_(residual_block.last_norm.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; returns the rectified sum."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = build_shortcut(in_channels, width, stride)
        self.act2 = nn.ReLU()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(self.shortcut(x) + residual)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 (which strides) and a 1x1 convolution around a shortcut; returns the rectified sum."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = build_shortcut(in_channels, out_channels, stride)
        self.act3 = nn.ReLU()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))
        return self.act3(self.shortcut(x) + self.bn3(self.conv3(narrow)))


def build_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A shortcut: the input itself, or a 1x1 convolution with batch norm where the shape changes."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def initialize(net: nn.Module) -> None:
    """Draws every convolution from N(0, 2 / (k * k * out_channels))."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
