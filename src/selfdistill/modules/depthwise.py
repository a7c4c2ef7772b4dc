"""Depthwise 3x3 convolutions, with a backward pass of their own on CPUs that multiply bfloat16 tiles (AMX).

There torch's own gradients of such a convolution, in bfloat16 and `channels_last`, take several times as long as the
convolution. Two forms of dense convolutions, which use the tiles, are faster:

- the gradient of the input is a convolution of the output's gradient with the kernels turned by 180 degrees;
- that of the weight is the diagonal of the gradient of a convolution in groups of `BLOCK` channels. This multiplies the
  work by `BLOCK`, so it is taken where maps have many positions for each channel.

`benchmarks/depthwise.py` times both. Without AMX they are slower than torch's gradients and not used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .processor import has_tiles
from .recompute import remember, source_of

BLOCK = 16  # channels


class Depthwise(nn.Conv2d):
    """3x3 convolution of each channel by itself, without bias. Its output is not kept, see recompute.py."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(channels, channels, 3, stride, padding=1, groups=channels, bias=False)

    def forward(self, feature: Float[Tensor, "b c _h _w"]) -> Float[Tensor, "b c _y _x"]:
        if self.stride == (1, 1) and suits_tiles(feature) and has_tiles() and not torch.compiler.is_compiling():
            out = TiledDepthwise.apply(feature, self.weight.to(feature.dtype))
        else:
            out = super().forward(feature)
        source, weight = source_of(feature), source_of(self.weight)
        dtype, device, settings = out.dtype, out.device.type, (self.stride, self.padding, self.dilation, self.groups)

        def convolve() -> Tensor:
            with torch.autocast(device, enabled=False):  # wherever `backward` is called
                return F.conv2d(source().to(dtype), weight().to(dtype), None, *settings)

        return remember(out, convolve)


class TiledDepthwise(torch.autograd.Function):
    """A depthwise 3x3 convolution of stride 1 and padding 1, with the gradients described above."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(feature, weight)
        return F.conv2d(feature, weight, padding=1, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        feature, weight = ctx.saved_tensors
        of_input, of_weight = ctx.needs_input_grad
        return (
            gradient_of_input(gradient, weight) if of_input else None,
            gradient_of_weight(gradient, feature, weight) if of_weight else None,
        )


def gradient_of_input(gradient: Tensor, weight: Tensor) -> Tensor:
    """A convolution with the kernels turned by 180 degrees."""
    return F.conv2d(gradient, weight.flip(2, 3), padding=1, groups=len(weight))


def gradient_of_weight(gradient: Tensor, feature: Tensor, weight: Tensor) -> Tensor:
    """The diagonal of a convolution in blocks of channels, where there are at least half as many positions as channels.

    Elsewhere torch's own.
    """
    channels, positions = feature.shape[1], feature.shape[2] * feature.shape[3]
    if 2 * positions < channels:
        return convolution_gradient_of_weight(gradient, feature, weight, channels)
    blocks = channels // BLOCK
    dense = weight.new_empty(channels, BLOCK, 3, 3).contiguous(memory_format=torch.channels_last)
    dense = convolution_gradient_of_weight(gradient, feature, dense, blocks)
    diagonal = dense.view(blocks, BLOCK, BLOCK, 3, 3).diagonal(dim1=1, dim2=2)  # (blocks, 3, 3, BLOCK)
    return diagonal.permute(0, 3, 1, 2).reshape(channels, 1, 3, 3)


def convolution_gradient_of_weight(gradient: Tensor, feature: Tensor, weight: Tensor, groups: int) -> Tensor:
    one = [1, 1]
    return torch.ops.aten.convolution_backward(
        gradient, feature, weight, None, one, one, one, False, [0, 0], groups, [False, True, False]
    )[1]


def suits_tiles(feature: Tensor) -> bool:
    """Whether the map is one of bfloat16 on a CPU, in `channels_last`, with whole blocks of channels."""
    return (
        feature.dtype is torch.bfloat16
        and feature.device.type == "cpu"
        and feature.shape[1] % BLOCK == 0
        and feature.is_contiguous(memory_format=torch.channels_last)
    )
