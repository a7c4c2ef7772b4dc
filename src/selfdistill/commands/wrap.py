"""A method around a network, with the task told from the network."""

from typing import Any

import torch
from torch import nn

from ..errors import one_line
from ..features.modes import set_mode
from ..features.scores import find_scores
from ..method import Method
from ..methods import create_method
from ..tasks import Task

Size = int | tuple[int, int]


def wrap_network(
    network: nn.Module,
    method: str | type[Method],
    *,
    image_size: Size | None,
    loss: Any,
    num_examples: int,
    **options: Any,
) -> Method:
    """See `api.wrap`."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"wrap takes a network, a torch.nn.Module, not a {type(network).__name__}")
    shape = find_image_shape(network, image_size)
    scores = _score_blank(network, shape)
    kind = {2: "classification", 4: "segmentation"}.get(scores.ndim)
    if kind is None:
        raise ValueError(f"{type(network).__name__} gives {tuple(scores.shape)}; wrap takes networks of class scores")
    task = Task(kind, scores.shape[1], shape, num_examples, loss=loss)
    return create_method(method, network, task, **options)


def find_image_shape(network: nn.Module, image_size: Size | None) -> tuple[int, int, int]:
    """Channels by the first convolution, size as given or by the network's own configuration, as timm's have one."""
    config = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)
    known = config.get("input_size") if isinstance(config, dict) else None
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else known[0] if known else 3
    if image_size is None and not known:
        raise ValueError(f"{type(network).__name__} does not tell the size of its images; give image_size=, in pixels")
    size = known[1:] if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def _score_blank(network: nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    """The scores of a blank image."""
    parameter = next(iter(network.parameters()), torch.zeros(()))
    try:
        with set_mode(network, training=False), torch.no_grad():
            output = network(parameter.new_zeros(1, *shape))
    except Exception as error:
        size = "x".join(map(str, shape))
        raise ValueError(f"{type(network).__name__} cannot take images of {size} ({one_line(error)})") from error
    scores = output if isinstance(output, torch.Tensor) else find_scores(output)
    if scores is None:
        raise ValueError(f"{type(network).__name__} returned a {type(output).__name__} without class scores")
    return scores
