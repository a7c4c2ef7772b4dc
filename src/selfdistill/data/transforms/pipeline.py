"""The transform of images with one label each, and its steps of resizing."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from PIL import Image
from torch import Tensor

from ...config.recipe import DataPart
from ...errors import UserCodeError
from ..datasets.base import Sample
from ..datasets.conversion import PixelFormat, Stored
from ..random.keys import branch
from .base import Normalization, Transform, UserTransform, as_pixels, as_tensor, get_size, image_shape
from .batch import BatchStep

SMALL = 64  # pixels; larger images are cropped from a resized image
MARGIN = 256 / 224  # larger images: ratio of the resized short side to the crop

Step = Callable[..., Any]


class ImageTransform(Transform):
    """Applies the steps in order, float32 in [0, 1], (x - mean) / std per channel, and then the erasers.

    The leading steps that only resize form `cached`. The trailing `BatchStep`s form `batch`. The steps between run per
    image.
    """

    keeps_target = True

    def __init__(self, settings: DataPart, steps: Sequence[Step], erasers: Sequence[BatchStep] = ()) -> None:
        self.shape = image_shape(settings)
        self.pixels, self.normalize = PixelFormat.of(settings), Normalization(settings)
        numbered = list(enumerate(steps))  # a step draws from the branch of the image's key with the step's number
        start = next((n for n, step in numbered if not isinstance(step, Resizing)), len(numbered))
        end = 1 + next((n for n, step in reversed(numbered) if not isinstance(step, BatchStep)), -1)
        self.cached_steps: list[Resizing] = [step for _, step in numbered[:start]]
        self.image_steps, self.batch_steps = numbered[start:end], numbered[max(start, end) :]
        self.erasers = list(enumerate(erasers, len(numbered)))

    @property
    def draws_per_image(self) -> bool:
        return bool(self.image_steps)

    @property
    def fixed_size(self) -> bool:
        return not self.image_steps and any(isinstance(step, CenterCrop) for step in self.cached_steps)

    def cached(self, sample: Sample) -> Sample:
        return Sample(self.cached_image(sample.image), sample.target)

    def cached_image(self, image: Stored) -> Image.Image | Tensor:
        """The image after `cached`."""
        image = self.pixels.convert(image)
        for step in self.cached_steps:
            image = step(image)
        return image

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) after `cached` of an image of this size."""
        for step in self.cached_steps:
            size = step.result_size(size)
        return size

    @property
    def cached_identity(self) -> tuple[Any, ...]:
        """Equal for transforms with the same `cached`."""
        steps = [(type(step).__name__, step.size) for step in self.cached_steps]
        identity = (self.pixels.channels, self.pixels.gray_range, steps)
        return (*identity, self.pixels.value_range) if self.pixels.is_deep else identity

    def per_image(self, sample: Sample, keys: Int64[Tensor, " 1"]) -> Sample:
        """Pixels at the final size: uint8, or float32 in [0, 1] after a user's function."""
        image, is_users = sample.image, False
        for number, step in self.image_steps:
            is_users |= isinstance(step, UserImageTransform)
            image = _apply_to_one(step, image, branch(keys, number)) if isinstance(step, BatchStep) else step(image)
        pixels = as_tensor(image, self.channels) if is_users else as_pixels(image, self.channels)
        if tuple(pixels.shape) != self.shape:
            raise ValueError(f"the transforms make a tensor of shape {tuple(pixels.shape)}, not {self.shape}")
        return Sample(pixels, sample.target)

    def batch(self, images: Shaped[Tensor, "n c h w"], keys: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        for number, step in self.batch_steps:
            images = step(images, branch(keys, number))
        normalized = self.normalize(images)
        for number, eraser in self.erasers:
            normalized = eraser(normalized, branch(keys, number))
        return normalized

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "ImageTransform":
        moved = copy.copy(self)
        moved.normalize = self.normalize.to(device, memory_format)
        return moved


def _apply_to_one(step: BatchStep, image: Any, keys: Int64[Tensor, " 1"]) -> Any:
    """Applies a step for batches to a single PIL image or tensor, and returns the same type."""
    if isinstance(image, Tensor):
        return step(image[None], keys)[0]
    pixels = step(as_pixels(image, len(image.getbands()))[None], keys)[0].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


class Resizing(ABC):
    """A step without randomness that changes an image's size."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    @abstractmethod
    def __call__(self, image: Any) -> Any: ...

    @abstractmethod
    def result_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) after this step of an image of this size."""


class CenterCrop(Resizing):
    """The view of evaluation: the whole image if small, the center of a larger one."""

    def __call__(self, image: Any) -> Any:
        from torchvision.transforms.v2 import functional

        if is_small(self.size):
            return resize(image, self.size)
        covering = resize(image, compute_covering_size(get_size(image), self.size))
        return functional.center_crop(covering, list(self.size))

    def result_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.size


class ResizeToCover(Resizing):
    """Resizes a larger image so that a crop of `size` has a margin of 256/224."""

    def __call__(self, image: Any) -> Any:
        return resize(image, self.result_size(get_size(image)))

    def result_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return compute_covering_size(size, self.size)


class UserImageTransform(UserTransform):
    """A user's function of an image, with a check of its result. It gets a copy that it may change."""

    def __call__(self, image: Any) -> Any:
        result = self.call(image.clone() if isinstance(image, Tensor) else image.copy())
        if not isinstance(result, Image.Image | Tensor):
            raise UserCodeError(
                f"the transform {self.name} returned a {type(result).__name__}, not a PIL image or a tensor"
            )
        return result


def is_small(size: tuple[int, int]) -> bool:
    return max(size) <= SMALL


def resize(image: Any, size: tuple[int, int]) -> Any:
    from torchvision.transforms.v2 import functional

    return image if get_size(image) == size else functional.resize(image, list(size))


def compute_covering_size(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) with the aspect ratio of `size` that covers 256/224 times `wanted`."""
    scale = MARGIN * max(wanted[0] / size[0], wanted[1] / size[1])
    return (max(round(size[0] * scale), wanted[0]), max(round(size[1] * scale), wanted[1]))
