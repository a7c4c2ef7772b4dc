"""The check that a recipe can be trained on this machine, without training."""

from ..config.recipe import Recipe
from ..method import Method
from .compile import choose_mode
from .device import create_accelerator
from .optim import create_optimizer


def preflight(method: Method, recipe: Recipe) -> None:
    """Raises the `ValueError`s of `fit` for a recipe that cannot be trained here, without training."""
    device = create_accelerator(recipe).device
    choose_mode(recipe.machine.compile, device, 0, accumulate=recipe.optim.accumulate)
    create_optimizer(method, recipe.optim)
