"""VGG networks with batch norm for small images."""

from collections.abc import Iterable

from torch import nn

from .resnet import initialize
from .sequential import SequentialClassifier

WIDTHS = (64, 128, 256, 512, 512)


class VGG(SequentialClassifier):
    """Five blocks of 3x3 convolutions, `depths` in each, with batch norm and ReLU, and one linear layer.

    The image size is halved, rounded up, by a max-pool after each of the first three blocks, and not before the fifth.
    The maps are those of blocks 1, 2, 3 and 5.
    Source: Simonyan, Zisserman, 2015, table 1, https://arxiv.org/abs/1409.1556, in the form for 32 x 32 pixels of
    Tian et al., 2020, https://arxiv.org/abs/1910.10699, which Yang et al., 2021, use as well.
    """

    def __init__(self, depths: Iterable[int], *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        channels = in_channels
        self.feature_info = []
        for i, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            self.add_module(f"block{i + 1}", conv_block(channels, width, depth))
            if i < 3:
                self.add_module(f"pool{i + 1}", nn.MaxPool2d(2, ceil_mode=True))
            if i != 3:  # blocks 4 and 5 have one size, and the last of a size is the stage's map
                reduction = 2 ** min(i, 3)
                self.feature_info.append({"module": f"block{i + 1}", "num_chs": width, "reduction": reduction})
            channels = width
        self.add_head(channels, num_classes)
        initialize(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


def conv_block(in_channels: int, width: int, depth: int) -> nn.Sequential:
    """`depth` convolutions, each with a bias, a batch norm and a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(in_channels, width, 3, padding=1)
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        in_channels = width
    return nn.Sequential(*layers)
