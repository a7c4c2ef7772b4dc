"""The stages from a PIL image to a normalised tensor, and the sizes at which images are looked at."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from PIL import Image
from torch import Tensor

from ...config.recipe import DataPart
from ..datasets.image_io import to_channels
from ..random.keys import branch
from .base import Stages, UserTransform, as_floats, as_pixels, as_tensor, image_shape, mean_and_std
from .batch import Batched

SMALL = 64  # pixels; images up to this side are shown whole, larger ones cut out of a resized one
MARGIN = 256 / 224  # larger images: how much the resized short side exceeds the cut

Step = Callable[..., Any]


class ImageTransform(Stages):
    """The steps in order, then float32 in [0, 1], then (x - mean) / std per channel, and then the erasers.

    Those steps that can be batched, and behind which no other comes, are.
    """

    def __init__(self, part: DataPart, steps: Sequence[Step], erasers: Sequence[Batched] = ()) -> None:
        self.shape = image_shape(part)
        self.mean, self.std = mean_and_std(part)
        self.memory_format = torch.contiguous_format
        numbered = list(enumerate(steps))
        behind = next((n for n, step in numbered if not isinstance(step, Resizing)), len(numbered))
        last = next((n for n, step in reversed(numbered) if not isinstance(step, Batched)), -1)
        self.resizing: list[Resizing] = [step for _, step in numbered[:behind]]
        self.alone, self.together = numbered[behind : last + 1], numbered[max(behind, last + 1) :]
        self.erasers = list(enumerate(erasers, len(numbered)))

    def __call__(self, image: Image.Image) -> Float[Tensor, "c h w"]:
        """All of it, for one image; its key is drawn from torch's global generator."""
        draws = self.alone or self.together or self.erasers
        keys = torch.randint(2**63 - 1, (1,)) if draws else torch.zeros(1, dtype=torch.int64)
        return self.finish(self.one(self.head(image), keys)[None], keys)[0]

    @property
    def random(self) -> bool:
        return bool(self.alone)

    @property
    def settled(self) -> bool:
        """Whether `head` gives every image at its final size, and `one` has nothing to do but to take its pixels."""
        return not self.alone and any(isinstance(step, CenterCrop) for step in self.resizing)

    def head(self, image: Image.Image) -> Image.Image:
        """The image with the wanted channels, resized as far as nothing random comes before that."""
        image = to_channels(image, self.shape[0])
        for step in self.resizing:
            image = step(image)
        return image

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that `head` gives an image of this one."""
        for step in self.resizing:
            size = step.result(size)
        return size

    def one(self, shown: Any, keys: Int64[Tensor, " 1"]) -> Shaped[Tensor, "c h w"]:
        """The pixels of what `head` gave, at their final size: uint8, or float32 in [0, 1] behind a user's function."""
        own = False
        for number, step in self.alone:
            own |= isinstance(step, UserImageTransform)
            shown = _alone(step, shown, branch(keys, number)) if isinstance(step, Batched) else step(shown)
        tensor = as_tensor(shown, self.shape[0]) if own else as_pixels(shown, self.shape[0])
        if tuple(tensor.shape) != self.shape:
            raise ValueError(f"the transforms make a tensor of shape {tuple(tensor.shape)}, not {self.shape}")
        return tensor

    def finish(self, images: Shaped[Tensor, "n c h w"], keys: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """A batch of what `one` gave, augmented and normalised; fresh, whatever the steps."""
        for number, step in self.together:
            images = step(images, branch(keys, number))
        normalised = as_floats(images, self.memory_format).sub_(self.mean).div_(self.std)
        for number, eraser in self.erasers:
            normalised = eraser(normalised, branch(keys, number))
        return normalised

    def on(self, device: torch.device, memory_format: torch.memory_format) -> "ImageTransform":
        moved = copy.copy(self)
        moved.mean, moved.std, moved.memory_format = self.mean.to(device), self.std.to(device), memory_format
        return moved


def _alone(step: Batched, shown: Any, keys: Int64[Tensor, " 1"]) -> Any:
    """A batched step for a single image, PIL or tensor, which it stays."""
    if isinstance(shown, Tensor):
        return step(shown[None], keys)[0]
    pixels = step(as_pixels(shown, len(shown.getbands()))[None], keys)[0].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


class Resizing(ABC):
    """A step without randomness that changes an image's size."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    @abstractmethod
    def __call__(self, image: Any) -> Any: ...

    @abstractmethod
    def result(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that it gives an image of this one."""


class CenterCrop(Resizing):
    """What evaluation shows of an image."""

    def __call__(self, image: Any) -> Any:
        from torchvision.transforms.v2 import functional

        if is_small(self.size):
            return resized(image, self.size)
        covering = resized(image, covering_size(_size_of(image), self.size))
        return functional.center_crop(covering, list(self.size))

    def result(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.size


class ResizeToCover(Resizing):
    """Resizes a larger image so that a crop of `size` has a margin of 256/224."""

    def __call__(self, image: Any) -> Any:
        return resized(image, self.result(_size_of(image)))

    def result(self, size: tuple[int, int]) -> tuple[int, int]:
        return covering_size(size, self.size)


class UserImageTransform(UserTransform):
    """A user's callable, with its result checked. It may draw into the image: that is a copy."""

    def __call__(self, image: Any) -> Any:
        shown = self.called(image.clone() if isinstance(image, Tensor) else image.copy())
        if not isinstance(shown, Image.Image | Tensor):
            kind = type(shown).__name__
            raise ValueError(f"the transform {self.name} returned a {kind}, not a PIL image or a tensor")
        return shown


def is_small(size: tuple[int, int]) -> bool:
    return max(size) <= SMALL


def resized(image: Any, size: tuple[int, int]) -> Any:
    from torchvision.transforms.v2 import functional

    return image if _size_of(image) == size else functional.resize(image, list(size))


def covering_size(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) of the aspect of `size` that covers 256/224 of the wanted one."""
    scale = MARGIN * max(wanted[0] / size[0], wanted[1] / size[1])
    return (max(round(size[0] * scale), wanted[0]), max(round(size[1] * scale), wanted[1]))


def _size_of(image: Any) -> tuple[int, int]:
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[-2], image.shape[-1])
