"""Transforms called one image at a time, and functions in place of transforms."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, Shaped
from PIL import Image
from torch import Tensor

from selfdistill.data import Sample
from selfdistill.data.transforms.base import Transform


def draw_key() -> Int64[Tensor, " 1"]:
    """A key from torch's global generator."""
    return torch.randint(2**63 - 1, (1,))


def shows(transform: Transform) -> Callable[[Image.Image], Tensor]:
    """What the transform makes of an image, drawn anew in each call."""
    return lambda image: transform.show(image, draw_key())


def shows_pairs(transform: Transform) -> Callable[[Image.Image, Tensor], tuple[Tensor, Tensor]]:
    """What the transform makes of an image and its mask, drawn anew in each call."""
    return lambda image, mask: tuple(transform(Sample(image, mask)))


class FunctionTransform(Transform):
    """A function from images to tensors (c, h, w), done image by image."""

    channels, draws_per_image, fixed_size, keeps_target = 3, True, False, True

    def __init__(self, function: Callable[[Image.Image], Tensor]) -> None:
        self.function = function

    def cached(self, sample: Sample) -> Sample:
        return sample

    def per_image(self, sample: Sample, keys: Int64[Tensor, " 1"]) -> Sample:
        return sample._replace(image=self.function(sample.image))

    def batch(self, images: Shaped[Tensor, "n c h w"], keys: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return images

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "FunctionTransform":
        return self
