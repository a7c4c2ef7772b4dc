"""Teachers that are whole networks."""

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A network that is only consulted: always in eval mode, never a gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode whatever the method's mode is."""
        return self

    @torch.no_grad()
    def forward(self, *args: Tensor) -> Tensor:
        return self.net(*args)
