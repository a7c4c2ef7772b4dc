"""What the presentations of all tasks have in common: shape, statistics, users' functions, unknown names."""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..foreign import load, reason
from ..recipe import DataPart
from .images import to_channels


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


def as_tensor(shown: Image.Image | Tensor, channels: int) -> Tensor:
    """A fresh float32 tensor (c, h, w) in [0, 1]."""
    if isinstance(shown, Image.Image):
        pixels = np.array(to_channels(shown, channels))  # a copy, and half the cost of v2.functional.to_image
        shown = torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)
    scale = 1 if shown.is_floating_point() else 255
    return shown.to(torch.float32, memory_format=torch.contiguous_format, copy=True).div_(scale)


def chosen_names(augment: str | list[str], auto: list[str]) -> list[str]:
    """The augmentations that a recipe names; `auto` for that word."""
    if augment == "auto":
        return auto
    if augment == "none":
        return []
    return [augment] if isinstance(augment, str) else list(augment)


class Own:
    """A user's callable; what it raises is a `ValueError` that names it."""

    def __init__(self, name: str) -> None:
        self.name, self.function = name, load(name)

    def called(self, *shown: Any) -> Any:
        try:
            return self.function(*shown)
        except Exception as error:
            raise ValueError(f"the transform {self.name} raised {reason(error)}") from error


def refuse_colours(name: str, channels: int) -> None:
    """Raises `ValueError` for colours to be changed in images with alpha."""
    if channels == 4:
        raise ValueError(f"augment={name} works on 1 or 3 channels, not on 4")


def unknown(name: str, known: Sequence[str], kind: str) -> ValueError:
    """The sentence that says so and gives the nearest of the names that a kind of task knows, or all."""
    if name in ("auto", "none"):
        return ValueError(f"augment={name} stands alone, not in a list")
    near = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"there are {', '.join(known)}, auto, none and package.module:function"
    )
    return ValueError(f"no augmentation for task={kind} is called {name!r}; {hint}")
