"""Light exits: small classifiers on a student's shallow feature maps, built of separable convolutions.

They follow the journal version of Be Your Own Teacher: Zhang, Bao, Ma, 2021,
https://doi.org/10.1109/TPAMI.2021.3067100. An exit is a gate and then one depthwise separable block per halving.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..features.extractor import Taps
from .blocks import separable
from .heads import CLASSIFIERS


class SeparableExit(nn.Module):
    """Class scores from a shallow map: `halvings` separable blocks, each half as large, and a linear classifier.

    `forward(feature) -> (logits, map)`: the map is the one that is classified, after its ReLU, `out_channels` wide and
    `halvings` times halved, rounding up. With `output` "image" it is pooled first and the scores are (b, k); with
    "pixel" they are those of its positions, (b, k, h, w). Widths between the two are evenly spaced in their ratio;
    without a halving, one block keeps the size. With `attention` the feature is first multiplied by a gate of its own
    shape, in (0, 1).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        halvings: int,
        num_classes: int,
        *,
        attention: bool = False,
        output: str = "image",
    ) -> None:
        super().__init__()
        count = max(halvings, 1)
        widths = [round(channels * (out_channels / channels) ** (i / count)) for i in range(count + 1)]
        stride = 2 if halvings > 0 else 1
        self.gate = Gate(channels) if attention else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(separable(width, next_width, stride=stride), nn.ReLU())
                for width, next_width in zip(widths, widths[1:], strict=False)
            )
        )
        self.fc = CLASSIFIERS[output](out_channels, num_classes)

    def forward(
        self, feature: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b k *pos"], Float[Tensor, "b d _h _w"]]:
        final = self.blocks(self.gate(feature))
        return self.fc(final), final


class Gate(nn.Module):
    """Multiplies a map by weights in (0, 1), one per channel and position, computed from it at half its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = separable(channels, channels, stride=2)

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        scores = F.interpolate(self.block(feature), size=feature.shape[2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(scores) * feature


def separable_exits(taps: Taps, num_classes: int, *, attention: bool = False, output: str = "image") -> nn.ModuleList:
    """One `SeparableExit` per shallow map, ending in the channels of the deepest and, to a pixel or so, its size."""
    shallow, deepest = [list(taps)[level] for level in shallow_levels(taps)], list(taps)[-1]
    return nn.ModuleList(
        SeparableExit(
            tap.channels,
            deepest.channels,
            count_halvings(tap.size, deepest.size),
            num_classes,
            attention=attention,
            output=output,
        )
        for tap in shallow
    )


def shallow_levels(taps: Taps) -> range:
    """The indices of all feature maps but the deepest. Raises `ValueError` if there is only one map."""
    if len(taps) < 2:
        raise ValueError("branches start at shallow feature maps, and this student has a single feature map: name more")
    return range(len(taps) - 1)


def count_halvings(size: tuple[int, int], smallest: tuple[int, int]) -> int:
    """How many times a map of `size` is halved to be about as large as one of size `smallest`.

    >>> count_halvings((32, 32), (4, 4)), count_halvings((15, 15), (3, 3)), count_halvings((14, 14), (14, 14))
    (3, 2, 0)
    """
    return round(math.log2(math.prod(size) / math.prod(smallest)) / 2)
