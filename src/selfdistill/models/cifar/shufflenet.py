"""ShuffleNet V1 and V2 for small images."""

import torch
from torch import Tensor, nn

from .sequential import SequentialClassifier

GROUPS = 3  # V1: of its 1x1 convolutions


class ShuffleNetV1(SequentialClassifier):
    """Three stages of grouped 1x1 and depthwise 3x3 convolutions with a channel shuffle between them.

    Source: Zhang et al., 2018, section 3.3, https://arxiv.org/abs/1707.01083, 1x with 3 groups, in the form for 32 x 32
    pixels of Yang et al., 2021, https://arxiv.org/abs/2107.13715: a 1x1 stem, and a ReLU after the 3x3 too.
    """

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        channels = 24
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.feature_info = []
        for i, (depth, width) in enumerate(((4, 240), (8, 480), (4, 960))):
            groups = GROUPS if i > 0 else 1  # the stem has too few channels to be split
            blocks = [UnitV1(channels, width, stride=2, groups=groups)]
            blocks += [UnitV1(width, width) for _ in range(depth - 1)]
            channels = width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.feature_info.append({"module": f"layer{i + 1}", "num_chs": channels, "reduction": 2 ** (i + 1)})
        self.add_head(channels, num_classes)


class UnitV1(nn.Module):
    """The grouped bottleneck plus its input; with stride 2, concatenated with its average-pooled input. Rectified."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, groups: int = GROUPS) -> None:
        super().__init__()
        pooled = in_channels if stride > 1 else 0  # channels of the shortcut, which are concatenated
        self.residual = grouped_bottleneck(in_channels, out_channels - pooled, groups=groups, stride=stride)
        self.shortcut = nn.AvgPool2d(3, stride, padding=1) if pooled else None
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.act(x + self.residual(x))
        return self.act(torch.cat([self.residual(x), self.shortcut(x)], dim=1))


def grouped_bottleneck(in_channels: int, out_channels: int, *, groups: int, stride: int) -> nn.Sequential:
    """A 1x1 to a quarter of `out_channels`, in `groups`, shuffled; a depthwise 3x3; a grouped 1x1."""
    narrow = out_channels // 4
    return nn.Sequential(
        nn.Conv2d(in_channels, narrow, 1, groups=groups, bias=False),
        nn.BatchNorm2d(narrow),
        nn.ReLU(),
        nn.ChannelShuffle(groups) if groups > 1 else nn.Identity(),
        nn.Conv2d(narrow, narrow, 3, stride, padding=1, groups=narrow, bias=False),
        nn.BatchNorm2d(narrow),
        nn.ReLU(),
        nn.Conv2d(narrow, out_channels, 1, groups=GROUPS, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ShuffleNetV2(SequentialClassifier):
    """Three stages of units that change half of the channels and then shuffle all.

    Source: Ma et al., 2018, section 3, https://arxiv.org/abs/1807.11164, 1x, in the form for 32 x 32 pixels of Yang et
    al., 2021, https://arxiv.org/abs/2107.13715: a 1x1 stem.
    """

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        channels, head = 24, 1024
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.feature_info = []
        for i, (depth, width) in enumerate(((4, 116), (8, 232), (4, 464))):
            blocks: list[nn.Module] = [HalvingUnitV2(channels, width), *(UnitV2(width) for _ in range(depth - 1))]
            channels = width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.feature_info.append({"module": f"layer{i + 1}", "num_chs": channels, "reduction": 2 ** (i + 1)})
        self.conv2 = nn.Conv2d(channels, head, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(head)
        self.act2 = nn.ReLU()
        self.add_head(head, num_classes)


class UnitV2(nn.Module):
    """Half of the channels unchanged, the other half through three convolutions, shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = unit_branch(channels // 2, channels // 2)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        same, changed = x.chunk(2, dim=1)
        return self.shuffle(torch.cat([same, self.residual(changed)], dim=1))


class HalvingUnitV2(nn.Module):
    """Two branches with stride 2, each from all channels to half of the new ones, shuffled."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, 2, padding=1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels // 2, 1, bias=False),
            nn.BatchNorm2d(out_channels // 2),
            nn.ReLU(),
        )
        self.residual = unit_branch(in_channels, out_channels // 2, stride=2)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(torch.cat([self.shortcut(x), self.residual(x)], dim=1))


def unit_branch(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A 1x1, a depthwise 3x3 with the stride, and a 1x1 convolution; no ReLU after the 3x3."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, groups=out_channels, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
