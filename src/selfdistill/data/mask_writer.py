"""Writes masks as image files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from PIL import Image
from torch import Tensor

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
