"""A top-down path over a student's feature maps, fused by concatenation, for the branches of TESKD and DTSKD.

Li, Li, Yang, Yang, Pan, 2021, section 3.1, https://arxiv.org/abs/2110.00329
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .blocks import ConvBNReLU, Map


class TopDown(nn.Module):
    """Feature maps, shallow to deep -> one map of `width` channels for each but the deepest, of the same size.

        P_L = lateral(F_L);  P_i = fuse([up(P_{i+1}) + lateral(F_i), up(P_{i+1})])        deep to shallow

    lateral and fuse are 1x1 convolutions with batch norm and ReLU; up is a bilinear resampling to the size of F_i and
    then such a convolution. Without `top_lateral`, P_L is F_L itself.
    """

    def __init__(self, channels: Sequence[int], width: int, *, top_lateral: bool = True) -> None:
        super().__init__()
        levels = range(len(channels) - 1)
        self.top = ConvBNReLU(channels[-1], width) if top_lateral else nn.Identity()
        above = [*[width] * (len(levels) - 1), width if top_lateral else channels[-1]]
        self.laterals = nn.ModuleList(ConvBNReLU(channels[i], width) for i in levels)
        self.ups = nn.ModuleList(ConvBNReLU(above[i], width) for i in levels)
        self.fuses = nn.ModuleList(ConvBNReLU(2 * width, width) for _ in levels)

    def forward(self, features: list[Map]) -> list[Map]:
        above, fused = self.top(features[-1]), []
        for i in reversed(range(len(features) - 1)):
            up = self.ups[i](resample(above, features[i]))
            above = self.fuses[i](torch.cat([up + self.laterals[i](features[i]), up], dim=1))
            fused.insert(0, above)
        return fused


def resample(feature: Float[Tensor, "b c _h _w"], like: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
    """Bilinear resampling with aligned corners to the size of `like`; the map itself where the sizes are equal."""
    size = like.shape[2:]
    if feature.shape[2:] == size:
        return feature
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=True)
