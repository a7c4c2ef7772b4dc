"""Training and eval mode for the length of a block."""

import pytest
import torch
from torch import Tensor, nn

from selfdistill.features.modes import set_mode


class Caching(nn.Module):
    """Computes a value once in eval mode, and drops it in training mode, as LeViT does with its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.cache: Tensor | None = None

    def train(self, mode: bool = True) -> "Caching":
        super().train(mode)
        self.cache = None if mode else self.cache
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x * self.scale
        self.cache = self.scale.detach().clone() if self.cache is None else self.cache
        return x * self.cache


@pytest.mark.parametrize("training", [False, True])
def test_all_submodules_are_in_the_mode_inside_and_in_their_own_afterwards(training):
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Flatten()))
    network[1].eval()  # a frozen part of a network that trains
    before = [module.training for module in network.modules()]
    with set_mode(network, training=training):
        assert all(module.training is training for module in network.modules())
    assert [module.training for module in network.modules()] == before


def test_modes_come_back_after_an_error():
    network = nn.Sequential(nn.Flatten())
    with pytest.raises(ZeroDivisionError), set_mode(network, training=False):
        raise ZeroDivisionError
    assert all(module.training for module in network.modules())


def test_what_was_cached_in_eval_mode_is_dropped():
    network = Caching()
    for scale in (2.0, 3.0):
        with torch.no_grad():
            network.scale.fill_(scale)
        with set_mode(network, training=False):
            assert network(torch.ones(())) == scale
