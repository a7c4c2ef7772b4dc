"""Images that a data set of the user's own gives as finished tensors: they stay as they are."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...config.recipe import DataPart
from ..datasets.base import Sample
from ..datasets.conversion import PixelFormat
from ..datasets.given import FinishedImage, to_mask
from .base import NO_KEYS, Transform, image_shape


class FinishedTransform(Transform):
    """Draws each image anew from the user's data set, which augments and normalizes it; with its mask if it has one.

    The data set draws from the global generators of torch, random and numpy, which are seeded for each image and view.
    """

    draws_per_image, fixed_size, keeps_target = True, False, True

    def __init__(self, settings: DataPart, *, masks: bool = False) -> None:
        self.shape, self.masks = image_shape(settings), masks
        self.pixels = PixelFormat.of(settings)

    def cached(self, sample: Sample) -> Sample:
        return sample

    def per_image(self, sample: Sample, keys: Int64[Tensor, " 1"] = NO_KEYS) -> Sample:
        if not isinstance(sample.image, FinishedImage):
            raise ValueError(
                "the student learned from finished tensors of a data set of your own, and this is a picture; give "
                f"tensors {self.shape} that were made as those"
            )
        image, label = sample.image.draw()
        return Sample(image, to_mask(label) if self.masks else sample.target)

    def batch(self, images: Float[Tensor, "n c h w"], keys: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return images

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "FinishedTransform":
        return self
