"""What a segmenter says of an image, as files to look at and to read again: index masks and overlays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Integer
from PIL import Image
from torch import Tensor

from ..data.datasets.image_io import to_channels
from ..runs.student import StudentCard

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255
INDEXED = 255  # the largest value of an 8-bit mask


class Key(NamedTuple):
    """What stands for each class of a segmenter, in their order."""

    values: tuple[int, ...]  # in the masks that it learned from
    colours: tuple[Colour, ...]

    @property
    def palette(self) -> dict[int, Colour]:
        """The colour of each value."""
        return dict(zip(self.values, self.colours, strict=True))


def key(card: StudentCard) -> Key:
    """The mask values and the colours of a segmenter's classes."""
    assert card.masks is not None, "a segmenter's card tells its mask values"
    return Key(card.masks.values, card.masks.colours)


def write_mask(path: Path, values: Integer[Tensor, "h w"], palette: Mapping[int, Colour]) -> None:
    """Writes mask values as a PNG that stores these very numbers, from 0 to 65535.

    8 bits with the colours of `palette`, by value, for people; 16 bits of grey where a value exceeds 255.
    """
    stored = values.cpu().numpy()
    if max(int(stored.max(initial=0)), *palette, 0) > INDEXED:
        Image.fromarray(stored.astype(np.uint16)).save(path)
        return
    mask = Image.fromarray(stored.astype(np.uint8), mode="P")
    mask.putpalette([level for value in range(INDEXED + 1) for level in palette.get(value, (0, 0, 0))])
    mask.save(path)


def overlay(
    image: Image.Image, classes: Int64[Tensor, "h w"], colours: Sequence[Colour], *, opacity: float = 0.5
) -> Image.Image:
    """The picture with the colour of each pixel's class blended over it, in RGB.

    Pixels that lie beside another class are in their class's pure colour, so that borders stand out; those of negative
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
