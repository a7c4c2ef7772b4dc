"""Networks whose class scores lie inside of what they return."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modes import set_mode
from .probe import refuse_compiled_or_empty

KEYS = ("logits", "out")  # as transformers and torchvision call them


def find_scores(output: Any) -> Tensor | None:
    """The tensor `output.logits`, `output["logits"]` or `output["out"]`; None where there is none."""
    values = [output.get(key) for key in KEYS] if isinstance(output, Mapping) else [getattr(output, "logits", None)]
    return next((value for value in values if isinstance(value, Tensor)), None)


def returns_more(network: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Whether a network returns its scores inside of something else: one blank image is tried in eval mode."""
    parameter = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    try:
        refuse_compiled_or_empty(network)
        with set_mode(network, training=False), torch.no_grad():
            return find_scores(network(parameter.new_zeros(1, *image_shape))) is not None
    except Exception:  # what is wrong with it is told by those that need it
        return False


class ScoresAlone(nn.Module):
    """A network of which only the scores are returned; those of pixels at the size of the images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        output = self.network(images)
        scores = find_scores(output)
        if scores is None:
            raise ValueError(f"{type(self.network).__name__} returned a {type(output).__name__} without logits")
        if scores.ndim == 4 and scores.shape[2:] != images.shape[2:]:
            return F.interpolate(scores, size=images.shape[2:], mode="bilinear")
        return scores
