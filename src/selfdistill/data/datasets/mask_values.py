"""Reads the values in masks, which store numbers or colors, and chooses colors for classes."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from .conversion import GRAY, Stored, get_stored_mode

BORDER = 255  # the value that is ignored by default
INDEXED = (GRAY - {"F"}) | {"P", "PA"}  # modes that store one number per pixel
COLORED = frozenset({"RGB", "RGBA", "RGBX"})

Color = tuple[int, int, int]


def read_mask_values(mask: Stored, colors: dict[int, Color]) -> np.ndarray:
    """Reads the integer values (h, w) of a mask: the stored numbers, or the values of its `colors`.

    A color mask with equal channels everywhere is gray. A gray mask is looked up in `colors` if all of them are gray,
    and a mask with a palette if it shows these colors; else the numbers are the values. Raises `ValueError`, with the
    end of a sentence, for masks that cannot be read.
    """
    if isinstance(mask, Image.Image) and mask.format == "JPEG":
        raise ValueError("is a JPEG, whose compression changes values; store masks as PNG")
    mode = get_stored_mode(mask)
    if mode == "1":
        return np.asarray(mask.convert("L")) // 255
    if mode in INDEXED:
        values = np.asarray(mask if mode != "LA" else mask.getchannel(0))
        if colors and mode in ("P", "PA") and _shows_colors(read_palette_colors(mask), colors):
            return _look_up_colors(np.asarray(mask.convert("RGB")), colors)
        is_gray = colors and mode in GRAY and all(r == g == b for r, g, b in colors.values())
        if is_gray and values.size and values.max() <= 255:
            return _look_up_colors(np.repeat(values[..., None], 3, axis=2), colors)
        return values
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


def read_palette_colors(mask: Image.Image) -> dict[int, Color]:
    """Reads the color of each number that occurs in a mask with a palette; {} for a mask without one."""
    if mask.mode != "P":
        return {}
    palette = mask.getpalette("RGB") or []
    values = [value for value in find_distinct_values(np.asarray(mask)) if 3 * value + 3 <= len(palette)]
    return {value: tuple(palette[3 * value : 3 * value + 3]) for value in values}


def _shows_colors(shown: dict[int, Color], colors: dict[int, Color]) -> bool:
    """Whether the colors of a mask's palette are meant by `colors`, rather than its numbers.

    They are if all of them are known (255 may be void), or if one of them is known by another number.
    """
    values = {color: value for value, color in colors.items()}
    is_known = all(color in values for number, color in shown.items() if number != BORDER)
    return is_known or any(values.get(color, number) != number for number, color in shown.items())


def find_distinct_values(values: np.ndarray) -> list[int]:
    """Finds the distinct values. Counting is ten times as fast as sorting, but takes memory up to the largest value."""
    are_small = values.size and values.min() >= 0 and values.max() < 2**16
    return (np.flatnonzero(np.bincount(values.ravel())) if are_small else np.unique(values)).tolist()


def say_palette(values: Sequence[int], colors: Mapping[int, Color]) -> str:
    """The end of a sentence: how to name the values of masks, by their `colors` or their gray levels.

    >>> say_palette([0, 255], {})
    'name the classes in data.palette, a CSV of the lines name,r,g,b and NAME,0,0,0 and NAME,255,255,255'
    """
    lines = [f"NAME,{','.join(map(str, colors.get(value, (value,) * 3)))}" for value in values[:4]]
    lines += ["so on"] * (len(values) > 4)
    if values and max(values) > BORDER:
        return "name all values from 0 on in data.classes"
    return f"name the classes in data.palette, a CSV of the lines name,r,g,b and {' and '.join(lines)}"


def _encode_colors(colors: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return (red * 256 + green) * 256 + blue


def choose_distinct_colors(count: int) -> tuple[Color, ...]:
    """Chooses `count` colors from an even grid, each as far as possible from black, white and those before it.

    >>> choose_distinct_colors(3)
    ((0, 255, 51), (255, 0, 204), (0, 102, 255))
    """
    side = next(n for n in itertools.count(6) if n**3 >= count + 2)
    levels = [255 * k // (side - 1) for k in range(side)]
    grid = np.array(list(itertools.product(levels, repeat=3)))
    chosen = [grid[0], grid[-1]]  # black and white, which are left out below: pictures have them already
    distance = np.full(len(grid), np.inf)
    while len(chosen) < count + 2:
        for color in chosen[-2:]:
            # weights: the eye distinguishes greens best and blues worst
            distance = np.minimum(distance, ((grid - color) ** 2 * (3, 4, 2)).sum(axis=1))
        chosen.append(grid[distance.argmax()])
    return tuple((int(r), int(g), int(b)) for r, g, b in chosen[2:])
