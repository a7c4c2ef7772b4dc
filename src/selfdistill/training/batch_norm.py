"""Batch norms that see too few values per channel: their statistics are noise, and their gradients explode."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import count_of

FEW = 8  # values of a channel in a batch, up to which a user is warned
ARGUMENTS = {
    F.batch_norm: inspect.signature(F.batch_norm),
    torch.native_batch_norm: inspect.signature(
        lambda input, weight, bias, running_mean, running_var, training, momentum, eps: None
    ),
}


class BatchNormSizes(TorchFunctionMode):
    """Counts the values per channel that batch norms in training mode average over, while it is entered.

    `values` has the smallest count of each part of the network, which are its children: a method's student, its
    self-teacher, and so on. Batch norms that a network calls as functions count too.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        buffers = network.named_buffers(remove_duplicate=False)
        self.parts = {id(buffer): name.partition(".")[0] for name, buffer in buffers}
        self.values: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        if func in ARGUMENTS:
            call = ARGUMENTS[func].bind(*args, **keywords).arguments
            child = self.parts.get(id(call["running_mean"]))
            if call.get("training") and child is not None:
                images = call["input"]
                count = images.numel() // images.shape[1]
                self.values[child] = min(count, self.values.get(child, count))
        return func(*args, **keywords)


def describe_few_values(values: dict[str, int], size: int, smallest: int) -> str | None:
    """A sentence about parts whose batch norms average over few values; None where there are none.

    `values` are the counts per channel in a batch of this `size`, and `smallest` is the size of the smallest batch of
    an epoch.
    """
    smallest_counts = {part: count * smallest // size for part, count in values.items()}
    few = {part: count for part, count in smallest_counts.items() if count <= FEW}
    if not few:
        return None
    parts = " and ".join(few)
    values_per_channel, images = count_of(min(few.values()), "value"), count_of(smallest, "image")
    return (
        f"batch norms of {parts} average over {values_per_channel} per channel in a batch of {images}, "
        "and training may diverge; raise data.image_size or batch_size"
    )
