"""Reads the values in masks, which store numbers or colors, and chooses colors for classes."""

import itertools

import numpy as np
from PIL import Image

from .image_io import GRAY, get_stored_mode

INDEXED = GRAY | {"P", "PA", "I"}  # modes that store one number per pixel
COLORED = frozenset({"RGB", "RGBA", "RGBX"})

Color = tuple[int, int, int]


def read_mask_values(mask: Image.Image, colors: dict[int, Color]) -> np.ndarray:
    """Reads the integer values (h, w) of a mask: the stored numbers, or the values of its `colors`.

    A color mask with equal channels everywhere is gray. A gray mask is looked up in `colors` if all of them are gray,
    else its numbers are the values. Raises `ValueError`, with the end of a sentence, for masks that cannot be read.
    """
    if mask.format == "JPEG":
        raise ValueError("is a JPEG, whose compression changes values; store masks as PNG")
    mode = get_stored_mode(mask)
    if mode == "1":
        return np.asarray(mask.convert("L")) // 255
    if mode in INDEXED:
        values = np.asarray(mask if mode != "LA" else mask.getchannel(0))
        gray = colors and mask.mode == "L" and all(r == g == b for r, g, b in colors.values())
        return _look_up_colors(np.repeat(values[..., None], 3, axis=2), colors) if gray else values
    if mode not in COLORED:
        raise ValueError(f"has the mode {mode}; masks are gray, have a palette, or are in RGB colors")
    pixels = np.asarray(mask.convert("RGB"))
    if colors:
        return _look_up_colors(pixels, colors)
    if (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    raise ValueError("is in color; name what its colors mean with data.palette, a CSV of name, r, g, b")


def _look_up_colors(pixels: np.ndarray, colors: dict[int, Color]) -> np.ndarray:
    """Looks up the values of the colors (h, w, 3)."""
    codes = dict(zip(_encode_colors(np.array(list(colors.values()))).tolist(), colors, strict=True))
    known, wanted = np.array(sorted(codes)), _encode_colors(pixels)
    nearest = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    unknown = known[nearest] != wanted
    if not unknown.any():
        return np.array([codes[code] for code in known.tolist()])[nearest]
    if (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    color = pixels[unknown][0].astype(np.int64)
    near = min(colors.values(), key=lambda other: np.abs(np.array(other) - color).sum())
    raise ValueError(f"holds the color {tuple(color.tolist())}, which its palette lacks; the nearest in it is {near}")


def find_distinct_values(values: np.ndarray) -> list[int]:
    """Finds the distinct values. Counting is ten times as fast as sorting, but takes memory up to the largest value."""
    are_small = values.size and values.min() >= 0 and values.max() < 2**16
    return (np.flatnonzero(np.bincount(values.ravel())) if are_small else np.unique(values)).tolist()


def _encode_colors(colors: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return (red * 256 + green) * 256 + blue


def choose_distinct_colors(count: int) -> tuple[Color, ...]:
    """Chooses `count` colors from an even grid, black first, each as far as possible from those before it.

    >>> choose_distinct_colors(2)
    ((0, 0, 0), (255, 255, 255))
    """
    side = next(n for n in itertools.count(6) if n**3 >= count)
    levels = [255 * k // (side - 1) for k in range(side)]
    grid = np.array(list(itertools.product(levels, repeat=3)))
    chosen = [grid[0]]
    distance = np.full(len(grid), np.inf)
    while len(chosen) < count:
        # weights: the eye distinguishes greens best and blues worst
        distance = np.minimum(distance, ((grid - chosen[-1]) ** 2 * (3, 4, 2)).sum(axis=1))
        chosen.append(grid[distance.argmax()])
    return tuple((int(r), int(g), int(b)) for r, g, b in chosen[:count])
