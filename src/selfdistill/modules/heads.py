"""Classifiers on feature maps: a label for each image, or one for each position, by the kind of the task."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .blocks import Map, Point, bilinear


class Pooled(nn.Linear):
    """A label for each image: the mean over positions, then a linear layer."""

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        # unlike that of `mean`, its gradient has the memory format of the map, which all ReLUs and norms before it want
        return super().forward(F.avg_pool2d(feature, feature.shape[2:]).flatten(1))


class PerPosition(nn.Conv2d):
    """A label for each position of the map: a linear layer on its channels."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, num_classes, 1)


class Deepest(Pooled):
    """`Pooled` on the last of several maps."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__(channels[-1], num_classes)

    def forward(self, features: list[Map]) -> Float[Tensor, "b k"]:
        return super().forward(features[-1])


class Fused(nn.Module):
    """`PerPosition` on the sum of all maps, each brought to the channels and, bilinearly, to the size of the first.

    So every level is trained by the labels, as the head of a panoptic feature pyramid does it, with less depth.
    Source of that form: Kirillov et al., 2019, section 3.1, https://arxiv.org/abs/1901.02446
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = channels[0]
        self.points = nn.ModuleList(Point(c, width) for c in channels)
        self.classifier = PerPosition(width, num_classes)

    def forward(self, features: list[Map]) -> Float[Tensor, "b k h w"]:
        narrow = [point(feature) for point, feature in zip(self.points, features, strict=True)]
        return self.classifier(sum((bilinear(each, narrow[0]) for each in narrow[1:]), start=narrow[0]))


SINGLE = {"classification": Pooled, "segmentation": PerPosition}  # on one map
SEVERAL = {"classification": Deepest, "segmentation": Fused}  # on maps from shallow to deep
