"""Wide residual networks for small images."""

from typing import Literal

from torch import Tensor, nn

from .resnet import initialize
from .sequential import SequentialClassifier


class WideResNet(SequentialClassifier):
    """The pre-activation network of three groups with 16, 32, 64 times `width` channels and `depth` = 6n + 4 layers.

    `norm` "entry": batch norm before each block and at the end. "group": none at a block's entry, but one after each
    group, whose output the next group rectifies. `drop_rate` is between a block's convolutions.
    Source: Zagoruyko, Komodakis, 2016, section 2, https://arxiv.org/abs/1605.07146. "group" is what the authors of
    FRSKD call WRN-16-2 (https://arxiv.org/abs/2103.08273); theirs carries a final batch norm that it does not use,
    which is kept here, frozen, so that the parameter counts agree.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        in_channels: int,
        num_classes: int,
        norm: Literal["entry", "group"] = "entry",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        channels = 16
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        for i in range(3):
            out_channels = 16 * width * 2**i
            group = [WideBlock(channels, out_channels, stride=1 if i == 0 else 2, norm=norm, drop_rate=drop_rate)]
            for _ in range((depth - 4) // 6 - 1):
                group.append(WideBlock(out_channels, out_channels, norm=norm, drop_rate=drop_rate))
            if norm == "group":
                group.append(nn.BatchNorm2d(out_channels))
            self.add_module(f"layer{i + 1}", nn.Sequential(*group))
            channels = out_channels
        self.bn = nn.BatchNorm2d(channels) if norm == "entry" else Unused(nn.BatchNorm2d(channels))
        self.act = nn.ReLU()
        self.add_head(channels, num_classes)
        self.feature_info = [
            {"module": module, "stage_end": f"layer{i + 1}", "num_chs": 16 * width * 2**i, "reduction": 2**i}
            for i, module in enumerate(("layer2.0.act1", "layer3.0.act1", "act"))
        ]
        initialize(self)
        nn.init.zeros_(self.fc.bias)


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after its activation, around a shortcut; returns the sum, before an activation.

    The shortcut is the block's input itself, or a 1x1 convolution of the activated input where the channels change.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "entry", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels) if norm == "entry" else nn.Identity()
        self.act1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.drop = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.bn1(x))
        residual = self.conv2(self.drop(self.act2(self.bn2(self.conv1(active)))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


class Unused(nn.Module):
    """Returns its input; holds a module that never runs and never learns."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return x
