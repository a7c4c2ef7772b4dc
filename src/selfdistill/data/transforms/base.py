"""What the presentations of all tasks have in common: shape, statistics, users' functions, unknown names."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from PIL import Image
from torch import Tensor

from ...config.recipe import DataPart
from ...errors import load, reason
from ..datasets.image_io import to_channels


class Stages(ABC):
    """A transform in parts, each of them done where and as often as it must be.

    `head`, whose result is always the same, may be done once; `one` is done image by image; `finish` with a whole batch
    on the device that trains on it. In the last two, an image draws from the key that it is given, see `dice`, or, in
    `one` alone, from the global generators.
    """

    random: bool  # whether `one` draws anything
    settled: bool  # whether `head` gives PIL images of one size, and `one` has nothing to do but to take their pixels

    @abstractmethod
    def head(self, *stored: Any) -> Any:
        """What becomes of a stored image, or an image and its mask, before anything is drawn."""

    @abstractmethod
    def one(self, shown: Any, keys: Int64[Tensor, " 1"]) -> Any:
        """What of the head's result is stacked: pixels (c, h, w) at their final size; with masks a pair of tensors."""

    @abstractmethod
    def finish(self, images: Shaped[Tensor, "n c h w"], keys: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """What the network sees of a batch."""

    @abstractmethod
    def on(self, device: torch.device, memory_format: torch.memory_format) -> "Stages":
        """The same, for batches on this device, which `finish` gives in this format where it makes them anew."""


def image_shape(part: DataPart) -> tuple[int, int, int]:
    """(C, H, W) of a resolved part's training images."""
    assert part.channels is not None and isinstance(part.image_size, tuple), "the part is not resolved"
    return (part.channels, *part.image_size)


def window(part: DataPart) -> tuple[int, int] | None:
    """(H, W) of the windows in which a resolved part's images are scored; None for whole images."""
    return image_shape(part)[1:] if part.window else None


def mean_and_std(part: DataPart) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
    """Those of a resolved part, per channel."""
    assert part.mean is not None and part.std is not None, "the part is not resolved"
    return torch.tensor(part.mean)[:, None, None], torch.tensor(part.std)[:, None, None]


def as_pixels(image: Image.Image, channels: int) -> UInt8[Tensor, "c h w"]:
    """The image's pixels, copied."""
    pixels = np.array(to_channels(image, channels))  # half the cost of v2.functional.to_image
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def as_tensor(shown: Image.Image | Tensor, channels: int) -> Tensor:
    """A fresh float32 tensor (c, h, w) in [0, 1]; of a tensor as many channels as it has."""
    return as_floats(as_pixels(shown, channels) if isinstance(shown, Image.Image) else shown)


def as_floats(
    images: Shaped[Tensor, "*b c h w"], memory_format: torch.memory_format = torch.contiguous_format
) -> Float[Tensor, "*b c h w"]:
    """Fresh float32 values, those of whole numbers divided by 255."""
    scale = 1 if images.is_floating_point() else 255
    return images.to(torch.float32, memory_format=memory_format, copy=True).div_(scale)


def chosen_names(augment: str | list[str], auto: list[str]) -> list[str]:
    """The augmentations that a recipe names; `auto` for that word."""
    if augment == "auto":
        return auto
    if augment == "none":
        return []
    return [augment] if isinstance(augment, str) else list(augment)


class UserTransform:
    """A user's callable; what it raises is a `ValueError` that names it."""

    def __init__(self, name: str) -> None:
        self.name, self.function = name, load(name)

    def called(self, *shown: Any) -> Any:
        try:
            return self.function(*shown)
        except Exception as error:
            raise ValueError(f"the transform {self.name} raised {reason(error)}") from error


def refuse_color_change(name: str, channels: int) -> None:
    """Raises `ValueError` for colors to be changed in images with alpha."""
    if channels == 4:
        raise ValueError(f"augment={name} works on 1 or 3 channels, not on 4")


def unknown(name: str, known: Sequence[str], images: str) -> ValueError:
    """The sentence that says so and gives the nearest of the names that such `images` know, or all."""
    if name in ("auto", "none"):
        return ValueError(f"augment={name} stands alone, not in a list")
    near = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"there are {', '.join(known)}, auto, none and package.module:function"
    )
    return ValueError(f"no augmentation of {images} is called {name!r}; {hint}")
