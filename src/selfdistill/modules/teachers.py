"""Teachers that are whole networks: frozen ones and trailing averages."""

from typing import Any

import torch
from torch import Tensor, nn

from ..features.hooks import copy_without_hooks


class Frozen(nn.Module):
    """A network that is only consulted: always in eval mode, never a gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode whatever the method's mode is."""
        return self

    @torch.no_grad()
    def forward(self, *args: Tensor) -> Any:
        return self.net(*args)


class Trailing(Frozen):
    """An exponential moving average of a network, which it starts as; buffers are copied as they are.

    Source: Tarvainen, Valpola, 2017, section 2, https://arxiv.org/abs/1703.01780
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(copy_without_hooks(net))

    @torch.no_grad()
    def follow(self, net: nn.Module, decay: float) -> None:
        """Moves every parameter a share `1 - decay` of the way to `net`'s."""
        for own, other in zip(self.net.parameters(), net.parameters(), strict=True):
            own.lerp_(other, 1 - decay)
        for own, other in zip(self.net.buffers(), net.buffers(), strict=True):
            own.copy_(other)


def teaching_levels(levels: int, teacher_levels: int) -> list[int]:
    """Which of the teacher's levels teaches each of the student's, both counted from the shallowest.

    The deepest teaches the deepest and so on upwards; where the student has more, the teacher's shallowest serves all
    that are left. With equal numbers that is one to one.

    >>> teaching_levels(3, 4), teaching_levels(4, 3)
    ([1, 2, 3], [0, 0, 1, 2])
    """
    return [max(level + teacher_levels - levels, 0) for level in range(levels)]
