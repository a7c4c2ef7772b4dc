"""Training and evaluation mode for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def set_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Puts a module in training or in eval mode; afterwards every submodule is in the mode it was in.

    What a network caches in eval mode, such as LeViT its attention biases, is dropped at the end.
    """
    modes = {submodule: submodule.training for submodule in module.modules()}
    try:
        module.train(training)
        yield
    finally:
        module.train()  # networks that cache values in eval mode drop them here
        for submodule, mode in modes.items():
            submodule.training = mode


def advise_gradients(network: nn.Module, images: Tensor) -> str:
    """What to do about a network that raised without gradients, if it runs with them; else nothing."""
    try:
        with torch.enable_grad():
            network(images)
    except Exception:  # other people's code
        return ""
    return "; it is scored without gradients, so put what needs them under torch.enable_grad()"
