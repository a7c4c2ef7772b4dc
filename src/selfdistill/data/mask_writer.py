"""Masks and overlays as image files, to look at and to read again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer
from PIL import Image
from torch import Tensor

from .datasets.image_io import to_channels

Color = tuple[int, int, int]  # red, green, blue, 0 to 255
INDEXED = 255  # the largest value of an 8-bit mask


def write_mask(path: Path, values: Integer[Tensor, "h w"], palette: Mapping[int, Color]) -> None:
    """Writes mask values as a PNG that stores these very numbers, from 0 to 65535.

    8 bits with the colors of `palette`, by value, for people; 16 bits of gray where a value exceeds 255.
    """
    stored = values.cpu().numpy()
    if max(int(stored.max(initial=0)), *palette, 0) > INDEXED:
        Image.fromarray(stored.astype(np.uint16)).save(path)
        return
    mask = Image.fromarray(stored.astype(np.uint8), mode="P")
    mask.putpalette([level for value in range(INDEXED + 1) for level in palette.get(value, (0, 0, 0))])
    mask.save(path)


def overlay(
    image: Image.Image, classes: Int64[Tensor, "h w"], colours: Sequence[Color], *, opacity: float = 0.5
) -> Image.Image:
    """The picture with the color of each pixel's class blended over it, in RGB.

    Pixels that lie beside another class are in their class's pure color, so that borders stand out; those of negative
    numbers, which are no class, are left as they are.
    """
    numbers = classes.cpu().numpy()
    below = np.array([*colours], dtype=np.float32)[numbers.clip(min=0)]
    share = np.where(_borders(numbers), 1.0, opacity) * (numbers >= 0)
    picture = np.asarray(to_channels(image, 3), dtype=np.float32)
    blended = picture + share[..., None] * (below - picture)
    return Image.fromarray(blended.round().astype(np.uint8))


def _borders(numbers: np.ndarray) -> np.ndarray:
    """Which pixels (h, w) have a neighbour at one of their sides that holds another number."""
    found = np.zeros(numbers.shape, dtype=bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = numbers[one] != numbers[other]
        found[one] |= differs
        found[other] |= differs
    return found
