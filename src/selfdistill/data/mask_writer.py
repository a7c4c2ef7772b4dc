"""Writes masks and overlays as image files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer
from PIL import Image
from torch import Tensor

from .datasets.image_io import convert_channels

Color = tuple[int, int, int]  # red, green, blue, 0 to 255
INDEXED = 255  # the largest value of an 8-bit mask


def write_mask(path: Path, values: Integer[Tensor, "h w"], palette: Mapping[int, Color]) -> None:
    """Writes mask values from 0 to 65535 as a PNG that stores exactly these numbers.

    The PNG has 8 bits and the colors of `palette`, by value. It has 16 bits of gray if a value exceeds 255.
    """
    stored = values.cpu().numpy()
    if max(int(stored.max(initial=0)), *palette, 0) > INDEXED:
        Image.fromarray(stored.astype(np.uint16)).save(path)
        return
    mask = Image.fromarray(stored.astype(np.uint8), mode="P")
    mask.putpalette([level for value in range(INDEXED + 1) for level in palette.get(value, (0, 0, 0))])
    mask.save(path)


def draw_overlay(
    image: Image.Image, classes: Int64[Tensor, "h w"], colors: Sequence[Color], *, opacity: float = 0.5
) -> Image.Image:
    """Blends the color of each pixel's class over the image, in RGB.

    Pixels beside another class get the pure color of their class, so that borders stand out. Pixels with a negative
    number have no class and stay as they are.
    """
    numbers = classes.cpu().numpy()
    colors_of_pixels = np.array([*colors], dtype=np.float32)[numbers.clip(min=0)]
    share = np.where(_find_borders(numbers), 1.0, opacity) * (numbers >= 0)
    picture = np.asarray(convert_channels(image, 3), dtype=np.float32)
    blended = picture + share[..., None] * (colors_of_pixels - picture)
    return Image.fromarray(blended.round().astype(np.uint8))


def _find_borders(numbers: np.ndarray) -> np.ndarray:
    """Marks the pixels (h, w) with a different number in one of the four pixels beside them."""
    borders = np.zeros(numbers.shape, dtype=bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = numbers[one] != numbers[other]
        borders[one] |= differs
        borders[other] |= differs
    return borders
