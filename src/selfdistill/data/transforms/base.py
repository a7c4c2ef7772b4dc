"""The interface of transforms, and what the transforms of all tasks share."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from PIL import Image
from torch import Tensor

from ...config.recipe import DataPart
from ...errors import UserCodeError, did_you_mean, one_line
from ...imports import load, suggest_colon
from ..datasets.base import Sample
from ..datasets.conversion import PixelFormat, Stored, convert_channels

NO_TARGET = torch.zeros((), dtype=torch.int64)
CACHED = 2**19  # values that are normalized at once on a CPU, as all steps then find them in its cache
NO_KEYS = torch.zeros(1, dtype=torch.int64)  # for transforms that draw nothing


class Transform(ABC):
    """A transform of samples in three parts.

    `cached` is not random, so its images can be kept. `per_image` runs for each use of an image. `batch` runs on whole
    batches on the training device. The last two draw from the key of each image, see `random/keys.py`; `per_image` may
    draw from the global generators instead.
    """

    pixels: PixelFormat  # of the images after `cached`
    draws_per_image: bool  # whether `per_image` draws from the global generators
    fixed_size: bool  # whether `cached` gives images of one size, and `per_image` only reads their pixels
    keeps_target: bool  # whether `cached` does not change the target, so that only images are kept
    draft_side: int = 0  # with which `read_image` may read the images; 0: whole

    @abstractmethod
    def cached(self, sample: Sample) -> Sample:
        """The sample in the format `pixels`, after the resizing that precedes random steps."""

    @abstractmethod
    def per_image(self, sample: Sample, keys: Int64[Tensor, " 1"]) -> Sample:
        """The sample with pixels (c, h, w), uint8 or float in [0, 1]. In training they have the final size."""

    @abstractmethod
    def batch(self, images: Shaped[Tensor, "n c h w"], keys: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """The input of the network from stacked images: augmented and normalized, in new memory."""

    @abstractmethod
    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Transform":
        """The same transform, with a `batch` for images on this device that returns this memory format."""

    @property
    def channels(self) -> int:
        return self.pixels.channels

    def __call__(self, sample: Sample, keys: Int64[Tensor, " 1"] = NO_KEYS) -> Sample:
        """Applies all three parts to one sample."""
        image, target = self.per_image(self.cached(sample), keys)
        return Sample(self.batch(image[None], keys)[0], target)

    def show(self, image: Stored, keys: Int64[Tensor, " 1"] = NO_KEYS) -> Float[Tensor, "c h w"]:
        """Applies all three parts to an image without a target."""
        return self(Sample(image, NO_TARGET), keys).image


def image_shape(settings: DataPart) -> tuple[int, int, int]:
    """(C, H, W) of resolved settings' training images."""
    assert settings.channels is not None and isinstance(settings.image_size, tuple), "the settings are not resolved"
    return (settings.channels, *settings.image_size)


def get_scoring_window(settings: DataPart) -> tuple[int, int] | None:
    """(H, W) of the windows for scoring images under resolved settings; None for whole images."""
    return image_shape(settings)[1:] if settings.window else None


class Normalization:
    """Pixels -> float32 in [0, 1] -> (x - mean) / std per channel, with mean and std from resolved settings."""

    def __init__(self, settings: DataPart) -> None:
        assert settings.mean is not None and settings.std is not None, "the settings are not resolved"
        self.mean, self.std = torch.tensor(settings.mean)[:, None, None], torch.tensor(settings.std)[:, None, None]
        self.memory_format = torch.contiguous_format

    def __call__(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        mean, std = (self._spread(number, images.shape[1:]) for number in (self.mean, self.std))
        normalized = torch.empty(
            images.shape, dtype=torch.float32, device=images.device, memory_format=self.memory_format
        )
        at_once = max(CACHED // math.prod(images.shape[1:]), 1) if images.device.type == "cpu" else max(len(images), 1)
        for part, out in zip(images.split(at_once), normalized.split(at_once), strict=True):
            out.copy_(part).div_(count_levels(images)).sub_(mean).div_(std)
        return normalized

    def _spread(self, numbers: Float[Tensor, "c 1 1"], shape: torch.Size) -> Float[Tensor, "c h w"]:
        """The number of each value; where a pixel's channels lie side by side, one for each channel is slow."""
        if self.memory_format != torch.channels_last:
            return numbers.expand(shape)
        return numbers.expand(shape).permute(1, 2, 0).contiguous().permute(2, 0, 1)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Normalization":
        moved = copy.copy(self)
        moved.mean, moved.std, moved.memory_format = self.mean.to(device), self.std.to(device), memory_format
        return moved


def as_pixels(image: Image.Image | Tensor, channels: int) -> Shaped[Tensor, "c h w"]:
    """A copy of the pixels of an image, uint8; a tensor as it is."""
    if isinstance(image, Tensor):
        return image
    pixels = np.array(convert_channels(image, channels))  # half the cost of v2.functional.to_image
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def as_tensor(image: Image.Image | Tensor, channels: int) -> Tensor:
    """A new float32 tensor (c, h, w) in [0, 1]; a tensor keeps its channels."""
    return as_floats(as_pixels(image, channels))


def as_floats(images: Shaped[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """New float32 values; integers are divided by 255."""
    return images.to(torch.float32, memory_format=torch.contiguous_format, copy=True).div_(count_levels(images))


def count_levels(images: Tensor) -> int:
    """The number that is 1 as a float: 255 of bytes."""
    return 1 if images.is_floating_point() else 255


def choose_names(augment: str | list[str], auto: list[str]) -> list[str]:
    """The augmentations that a recipe names; `auto` replaces the word auto."""
    if augment == "auto":
        return auto
    if augment == "none":
        return []
    return [augment] if isinstance(augment, str) else list(augment)


class UserTransform:
    """A user's function. Its exceptions become a `UserCodeError` that names it."""

    def __init__(self, name: str) -> None:
        self.name, self.function = name, load(name)

    def call(self, *arguments: Any) -> Any:
        try:
            return self.function(*arguments)
        except Exception as error:
            raise UserCodeError(f"the transform {self.name} raised {one_line(error)}") from error


def get_size(image: Image.Image | Tensor) -> tuple[int, int]:
    """(height, width) of an image, or of a tensor (..., h, w)."""
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[-2], image.shape[-1])


def say_unknown(name: str, known: Sequence[str], images: str) -> ValueError:
    """The error for an unknown augmentation, with the nearest known name or all of them."""
    if name in ("auto", "none"):
        return ValueError(f"augment={name} stands alone, not in a list")
    choice = f"there are {', '.join(known)}, auto, none and package.module:function"
    hint = suggest_colon(name) or did_you_mean(name, known, otherwise=choice, cutoff=0.6)
    return ValueError(f"no augmentation of {images} is called {name!r}{hint}")
