"""Global average pooling whose gradient lies in memory as the map does."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@torch.fx.wrap  # torch.fx takes a call of it as one operation: it cannot follow a choice by memory format
def global_average(feature: Float[Tensor, "b c h w"], *, keepdim: bool = False) -> Float[Tensor, "b c *one"]:
    """A map's mean over positions, (b, c), or (b, c, 1, 1) with `keepdim`; its gradient has the map's memory format.

    Value and gradient are those of torch's own pooling, bit for bit. But torch's gradient is always in the default
    format. A ReLU that gave a map in `channels_last` then reads two tensors in different orders in its backward pass,
    which on a CPU takes ten times as long.
    """
    if not feature.is_contiguous(memory_format=torch.channels_last):
        return feature.mean(dim=(2, 3), keepdim=keepdim)
    pooled = feature.permute(0, 2, 3, 1).mean(dim=(1, 2), keepdim=keepdim)
    return pooled.permute(0, 3, 1, 2) if keepdim else pooled


class GlobalAveragePool(nn.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d(1)`, with the gradient of `global_average`; outside of training torch's own pooling."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, input: Tensor) -> Tensor:  # TorchScript reads no shapes
        if self.training and not torch.jit.is_scripting():  # TorchScript does not follow a choice by memory format
            return global_average(input, keepdim=True)
        return F.adaptive_avg_pool2d(input, 1)
