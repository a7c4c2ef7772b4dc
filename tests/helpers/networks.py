"""Small networks that the tests share."""

import torch
from torch import Tensor, nn

from selfdistill import Task

CLASSES = 5


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, as in a ResNet."""

    def __init__(self, channels: int, width: int, stride: int, padding: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=padding, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)
        self.shortcut = nn.Conv2d(channels, width, 2 * (1 - padding) + 1, stride=stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class SmallResNet(nn.Module):
    """Three stages of one block, 8, 12 and 16 channels wide.

    With `padding` 1 they halve the size, rounding up: 16x16 images give 16, 8, 4. With 0 they lose the border:
    15x15 images give 15, 7, 3.
    """

    def __init__(self, classes: int = CLASSES, *, padding: int = 1, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), norm(8), nn.ReLU(inplace=True))
        self.stage1 = Block(8, 8, 1, 1, norm)
        self.stage2 = Block(8, 12, 2, padding, norm)
        self.stage3 = Block(12, 16, 2, padding, norm)
        self.fc = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stage3(self.stage2(self.stage1(self.stem(images)))).mean(dim=(2, 3)))


class SmallSegmenter(SmallResNet):
    """The same stages, with a score for every class at every pixel."""

    def forward(self, images: Tensor) -> Tensor:
        deep = self.stage3(self.stage2(self.stage1(self.stem(images))))
        scores = self.fc(deep.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return nn.functional.interpolate(scores, size=images.shape[2:], mode="bilinear", align_corners=False)


def channel_norm(channels: int) -> nn.GroupNorm:
    """A norm that sees each image alone."""
    return nn.GroupNorm(2, channels)


def small_student(task: Task, *, padding: int = 1, norm: type[nn.Module] = nn.BatchNorm2d, seed: int = 1) -> nn.Module:
    """A student for `task`, with weights that depend on `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SmallResNet if task.output == "image" else SmallSegmenter
        return net(task.num_classes, padding=padding, norm=norm)
