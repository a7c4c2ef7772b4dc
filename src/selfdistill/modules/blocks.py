"""1x1 blocks, and maps brought to the size of another map: what self-teachers and heads are made of."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Map = Float[Tensor, "b _c _h _w"]


class Pointwise(nn.Conv2d):
    """1x1 convolution without bias."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 1, bias=False)

    def forward(self, feature: Map) -> Map:
        """Of bfloat16 maps on a CPU with fewer positions than channels it is a matrix product, which is faster there.

        With 512 channels of 8 by 8, forward and backward together by a tenth, with 1,024 of 4 by 4 by a quarter.
        """
        few = feature.shape[2] * feature.shape[3] < feature.shape[1]
        if few and feature.dtype is torch.bfloat16 and feature.device.type == "cpu":
            return F.linear(feature.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)
        return super().forward(feature)


class Point(nn.Sequential):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(Pointwise(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, feature: Map, weight: Tensor | None = None, like: Map | None = None) -> Map:
        """`weight` times what it makes of the map, or of the map enlarged to the size of `like`.

        A weight that is not negative passes through the ReLU into the norm's scale and shift, and enlarging comes last
        where it repeats every position equally often: outputs, gradients and batch statistics stay the same.
        """
        if weight is None:
            return super().forward(feature)
        conv, norm, relu = self
        repeats = 1 if like is None else repetitions(feature, like)
        if not repeats:
            return relu(normalised(norm, conv(enlarge(feature, like)), weight))
        fused = relu(normalised(norm, conv(feature), weight, repeats))
        return fused if like is None else enlarge(fused, like)


def normalised(norm: nn.BatchNorm2d, x: Map, weight: Tensor, repeats: int = 1) -> Map:
    """`weight * norm(x)`, with the running statistics as if each position of `x` stood there `repeats` times.

    Only the running variance depends on that: it is estimated without bias, so the number of positions matters.
    """
    scale, shift, count = norm.weight * weight, norm.bias * weight, x.numel() // x.shape[1]
    settings = (scale, shift, norm.training, norm.momentum, norm.eps)
    if norm.training:
        norm.num_batches_tracked.add_(1)
    if not norm.training or repeats == 1:
        return F.batch_norm(x, norm.running_mean, norm.running_var, *settings)
    once = norm.running_var.clone()
    out = F.batch_norm(x, norm.running_mean, once, *settings)
    share = repeats * (count - 1) / (repeats * count - 1)
    norm.running_var.mul_((1 - share) * (1 - norm.momentum)).add_(once, alpha=share)
    return out


def repetitions(feature: Map, like: Map) -> int:
    """How often each position stands in the map enlarged to the size of `like`; 0 where that differs between them."""
    (height, width), (tall, wide) = feature.shape[2:], like.shape[2:]
    return 0 if tall % height or wide % width else (tall // height) * (wide // width)


def enlarge(feature: Float[Tensor, "b c _h _w"], like: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
    """Nearest-neighbour resampling to the height and width of `like`; untouched where they are equal."""
    size = like.shape[2:]
    return feature if feature.shape[2:] == size else F.interpolate(feature, size=size, mode="nearest")


def bilinear(feature: Float[Tensor, "b c *_pos"], like: Float[Tensor, "b _c *size"]) -> Float[Tensor, "b c *size"]:
    """Bilinear resampling to the height and width of `like`; scores of whole images, (b, k), have none and stay."""
    if feature.ndim == 2:
        return feature
    return F.interpolate(feature, size=like.shape[2:], mode="bilinear", align_corners=False)
