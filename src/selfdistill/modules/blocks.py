"""Convolution blocks, and maps brought to the size of another map: what self-teachers and heads are made of."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .depthwise import Depthwise
from .recompute import find_active, rectify, remember, source_of

Map = Float[Tensor, "b _c _h _w"]
NOTHING = 1e-30  # the eps of a norm of variance 1, to which it adds nothing; older versions of torch refuse 0


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


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that weighs its output if asked to. The output is not kept, see recompute.py."""

    def forward(self, x: Map, weight: Tensor | None = None, repeats: int = 1) -> Map:
        """`weight * norm(x)`, with the running statistics as if every position of `x` were there `repeats` times.

        Only the running variance depends on `repeats`: it is estimated without bias, so the number of positions
        matters.
        """
        scale, shift = self.weigh(x, weight)
        mean, variance = self.running_mean, self.running_var
        if mean is not None and not self.training:
            out = F.batch_norm(x, mean, variance, scale, shift, False, 0.0, self.eps)
            return remember_affine(out, x, (mean, torch.rsqrt(variance + self.eps), scale, shift))
        momentum = self.count_batch()
        updated = variance if repeats == 1 or variance is None else variance.clone()
        out, batch_mean, deviation = torch.native_batch_norm(x, scale, shift, mean, updated, True, momentum, self.eps)
        if updated is not variance:
            count = x.numel() // x.shape[1]
            share = repeats * (count - 1) / (repeats * count - 1)
            variance.mul_((1 - share) * (1 - momentum)).add_(updated, alpha=share)
        return remember_affine(out, x, (batch_mean, deviation, scale, shift))

    def weigh(self, x: Map, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scale and shift of each channel, times the weight."""
        if self.affine:
            return (self.weight, self.bias) if weight is None else (self.weight * weight, self.bias * weight)
        ones = x.new_ones(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        return (ones if weight is None else ones * weight), torch.zeros_like(ones)

    def count_batch(self) -> float:
        """Counts a batch; returns its share of the running statistics."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


def remember_affine(out: Map, x: Map, norm: tuple[Tensor, Tensor, Tensor, Tensor]) -> Map:
    """`out`, which the backward pass computes from `x` with the norm's mean, 1 / deviation, scale and shift."""
    remembered = find_active()
    if remembered is None:
        return out
    with torch.no_grad():
        mean, inverse, scale, shift = norm
        factor = inverse * scale
        offset = torch.addcmul(shift, mean, factor, value=-1)
        none, one = remembered.get_unit(factor)
    source = source_of(x)
    # A norm with mean 0 and variance 1, because it rounds as the norm does that gave `out`.
    return remember(out, lambda: F.batch_norm(source(), none, one, factor, offset, False, 0.0, NOTHING))


class ReLU(nn.ReLU):
    """ReLU that may work in place. Its output is not kept, see recompute.py."""

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, feature: Map) -> Map:
        return rectify(feature)


class ConvBNReLU(nn.Sequential):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(Pointwise(in_channels, out_channels), BatchNorm(out_channels), ReLU())

    def forward(self, feature: Map, weight: Tensor | None = None, like: Map | None = None) -> Map:
        """`weight` times the block's output, enlarged to the size of `like`.

        A weight that is not negative passes through the ReLU into the scale and shift of the norm. Enlarging comes last
        where it repeats every position equally often. Outputs, gradients and batch statistics stay the same.
        """
        conv, norm, relu = self
        if weight is None:
            return super().forward(feature)
        if not isinstance(norm, BatchNorm):  # another norm took its place
            return weight * super().forward(feature if like is None else enlarge(feature, like))
        repeats = 1 if like is None else count_repetitions(feature, like)
        if not repeats:
            return relu(norm(conv(enlarge(feature, like)), weight))
        fused = relu(norm(conv(feature), weight, repeats))
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
            ReLU(),
            Depthwise(in_channels, stride),
            Pointwise(in_channels, width),
            BatchNorm(width),
        ]
        stride = 1
    return nn.Sequential(*layers[1:])


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
