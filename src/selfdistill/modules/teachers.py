"""Teachers that are whole networks: frozen ones and moving averages."""

from typing import Any

import torch
from torch import Tensor, nn

from ..features.hooks import copy_without_hooks


class Frozen(nn.Module):
    """A teacher that does not learn: always in eval mode, never a gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode, whatever mode the method is in."""
        return self

    @torch.no_grad()
    def forward(self, *args: Tensor) -> Any:
        return self.net(*args)


class MovingAverage(Frozen):
    """An exponential moving average of a network, starting as a copy of it; buffers are copied as they are.

    Source: Tarvainen, Valpola, 2017, section 2, https://arxiv.org/abs/1703.01780
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(copy_without_hooks(net))

    @torch.no_grad()
    def update(self, net: nn.Module, decay: float) -> None:
        """Moves every parameter a share `1 - decay` of the way to `net`'s."""
        for average, parameter in zip(self.net.parameters(), net.parameters(), strict=True):
            average.lerp_(parameter, 1 - decay)
        for average, buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)


class GrowingAverage(MovingAverage):
    """A moving average that is the plain mean of the past weights at first: after step n it keeps 1 - 1 / (n + 1)."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__(net)
        self.decay, self.steps = decay, 0

    def follow(self, net: nn.Module) -> None:
        """Moves towards `net`, keeping `decay` of itself at most."""
        self.steps += 1
        self.update(net, min(1 - 1 / (self.steps + 1), self.decay))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)  # not a buffer: reading it from the device would make each step wait

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)


def teaching_levels(levels: int, teacher_levels: int) -> list[int]:
    """For each level of the student, the level of the teacher that teaches it, both counted from the shallowest.

    Levels are matched from the deepest upwards. If the student has more levels, the teacher's shallowest teaches all
    that are left.

    >>> teaching_levels(3, 4), teaching_levels(4, 3)
    ([1, 2, 3], [0, 0, 1, 2])
    """
    return [max(level + teacher_levels - levels, 0) for level in range(levels)]
