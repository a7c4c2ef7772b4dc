"""Convolution blocks, and maps brought to the size of another map: what self-teachers and heads are made of."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Map = Float[Tensor, "b _c _h _w"]


class Pointwise(nn.Conv2d):
    """1x1 convolution without bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, feature: Map) -> Map:
        """A matrix product for bfloat16 maps on a CPU with fewer positions than channels, because that is faster there.

        Forward and backward together take a tenth less with 512 channels of 8 by 8, and a quarter less with 1,024
        channels of 4 by 4.
        """
        few_positions = feature.shape[2] * feature.shape[3] < feature.shape[1]
        if few_positions and feature.dtype is torch.bfloat16 and feature.device.type == "cpu":
            return F.linear(feature.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)
        return super().forward(feature)


class ConvBNReLU(nn.Sequential):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(Pointwise(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))

    def forward(self, feature: Map, weight: Tensor | None = None, like: Map | None = None) -> Map:
        """`weight` times the block's output, enlarged to the size of `like`.

        A weight that is not negative passes through the ReLU into the scale and shift of the norm. Enlarging comes last
        where it repeats every position equally often. Outputs, gradients and batch statistics stay the same.
        """
        if weight is None:
            return super().forward(feature)
        conv, norm, relu = self
        repeats = 1 if like is None else count_repetitions(feature, like)
        if not repeats:
            return relu(weighted_batch_norm(norm, conv(enlarge(feature, like)), weight))
        fused = relu(weighted_batch_norm(norm, conv(feature), weight, repeats))
        return fused if like is None else enlarge(fused, like)


class Identity(nn.Identity):
    """Takes the place of a `ConvBNReLU`: returns the map itself, weighted and enlarged in the same way."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()

    def forward(self, feature: Map, weight: Tensor | None = None, like: Map | None = None) -> Map:
        weighted = feature if weight is None else weight * feature
        return weighted if like is None else enlarge(weighted, like)


def separable(in_channels: int, out_channels: int, *, stride: int = 1, repeat: int = 2) -> nn.Sequential:
    """`repeat` times a depthwise 3x3 convolution, a 1x1 convolution and batch norm, with a ReLU between repeats.

    The first repeat takes the stride, the last one the new number of channels; no ReLU follows the last one.
    """
    layers: list[nn.Module] = []
    for i in range(repeat):
        width = out_channels if i == repeat - 1 else in_channels
        layers += [
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
            Pointwise(in_channels, width),
            nn.BatchNorm2d(width),
        ]
        stride = 1
    return nn.Sequential(*layers[1:])


def weighted_batch_norm(norm: nn.BatchNorm2d, x: Map, weight: Tensor, repeats: int = 1) -> Map:
    """`weight * norm(x)`, with the running statistics as if every position of `x` were there `repeats` times.

    Only the running variance depends on `repeats`: it is estimated without bias, so the number of positions matters.
    """
    scale, shift, count = norm.weight * weight, norm.bias * weight, x.numel() // x.shape[1]
    settings = (scale, shift, norm.training, norm.momentum, norm.eps)
    if norm.training:
        norm.num_batches_tracked.add_(1)
    if not norm.training or repeats == 1:
        return F.batch_norm(x, norm.running_mean, norm.running_var, *settings)
    variance = norm.running_var.clone()
    out = F.batch_norm(x, norm.running_mean, variance, *settings)
    share = repeats * (count - 1) / (repeats * count - 1)
    norm.running_var.mul_((1 - share) * (1 - norm.momentum)).add_(variance, alpha=share)
    return out


def count_repetitions(feature: Map, like: Map) -> int:
    """How often each position is repeated when the map is enlarged to the size of `like`; 0 if that varies."""
    (height, width), (new_height, new_width) = feature.shape[2:], like.shape[2:]
    if new_height % height or new_width % width:
        return 0
    return (new_height // height) * (new_width // width)


def enlarge(feature: Float[Tensor, "b c _h _w"], like: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
    """Nearest-neighbor resampling to the height and width of `like`; the map itself where they are equal."""
    size = like.shape[2:]
    return feature if feature.shape[2:] == size else F.interpolate(feature, size=size, mode="nearest")


def bilinear(feature: Float[Tensor, "b c *_pos"], like: Float[Tensor, "b _c *size"]) -> Float[Tensor, "b c *size"]:
    """Bilinear resampling to the height and width of `like`; scores of whole images, (b, k), stay as they are."""
    if feature.ndim == 2:
        return feature
    return F.interpolate(feature, size=like.shape[2:], mode="bilinear", align_corners=False)
