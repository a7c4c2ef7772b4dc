"""MobileNetV2 for small images."""

from torch import Tensor, nn

from .resnet import initialize
from .sequential import SequentialClassifier

STAGES = (  # of each stage, rows of the paper's table 2: whether it expands, channels at width 1, blocks, stride
    ((False, 16, 1, 1), (True, 24, 2, 1)),
    ((True, 32, 3, 2),),
    ((True, 64, 4, 2), (True, 96, 3, 1)),
    ((True, 160, 3, 2), (True, 320, 1, 1)),
)


class MobileNetV2(SequentialClassifier):
    """Inverted residual blocks that widen their input `expansion`-fold; all channels but the head's times `width`.

    Maps of the stages are the blocks' linear outputs, so they are not rectified. ReLU replaces the paper's ReLU6.
    Source: Sandler et al., 2018, table 2, https://arxiv.org/abs/1801.04381, in the form for 32 x 32 pixels of Yang et
    al., 2021, https://arxiv.org/abs/2107.13715: the stem and the second row keep the size, the first row has a 1x1 too.
    """

    def __init__(self, expansion: int = 6, width: float = 0.5, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        channels, head = int(32 * width), int(1280 * max(width, 1.0))
        if channels < 2 or expansion < 1:
            raise ValueError(f"expansion={expansion} must be at least 1 and width={width} at least 1/16")
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.feature_info = []
        for i, rows in enumerate(STAGES):
            blocks: list[nn.Module] = []
            for expands, width_at_one, depth, stride in rows:
                for j in range(depth):
                    hidden = channels * (expansion if expands else 1)
                    block = InvertedResidual(
                        channels, hidden, int(width_at_one * width), stride=stride if j == 0 else 1
                    )
                    channels = int(width_at_one * width)
                    blocks.append(block)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.feature_info.append({"module": f"layer{i + 1}", "num_chs": channels, "reduction": 2**i})
        self.conv2 = nn.Conv2d(channels, head, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(head)
        self.act2 = nn.ReLU()
        self.add_head(head, num_classes)
        initialize(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


class InvertedResidual(nn.Module):
    """A 1x1 to `hidden` channels, a depthwise 3x3 and a linear 1x1; plus the input where the shape is the same."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.act2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        wide = self.act1(self.bn1(self.conv1(x)))
        narrow = self.bn3(self.conv3(self.act2(self.bn2(self.conv2(wide)))))
        return x + narrow if self.adds_input else narrow
