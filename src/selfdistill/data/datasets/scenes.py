"""Built-in scenes of several scanned digits on textured ground, with a label for every pixel or the digits shown.

They are computed from raw words of PCG64 in integer arithmetic only, so they are the same on every machine and with
every version of numpy.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter

from ..random.seeds import derive
from .base import LabeledDataset
from .digits import load_scans
from .label_map import LabelMap
from .masks import RawMaskDataset
from .multi_label import MultiLabelDataset
from .splits import DatasetSplits

SCENES = {"train": 400, "val": 80, "test": 120}
DIGIT_SCENES = {"train": 1500, "val": 300, "test": 400}
SHARES = {"train": 60, "val": 15, "test": 25}  # of the digits, in percent; no digit is in two splits
TRIES = 8  # to find room for a digit
CLOUDS = 6  # cells of the ground's texture, both ways
INK = 110  # of 255: pixels from this level on belong to the digit
STEEPNESS = 6  # of the change from ground to ink: 0 to 255 within 43 of the 256 levels of ink
GROUND = 120  # of 255: the ground's color has no component above it
CONTRAST = 90  # minimum difference in brightness of ink and ground
BORDER = 255  # the value of the rim around a digit
TAKEN = 254  # marks a rim that becomes ground, so that other digits keep off it
CLASSES = ("ground", *(f"digit {k}" for k in range(10)))


class Layout(NamedTuple):
    """The size of a scene and of what it shows, in pixels."""

    size: int  # both ways
    digits: tuple[int, int]  # minimum and maximum in a scene
    sides: tuple[int, int]  # smallest and largest digit


FOR_MASKS = Layout(64, digits=(2, 4), sides=(24, 40))
FOR_DIGITS = Layout(32, digits=(1, 4), sides=(11, 15))


class RawNumbers:
    """Whole numbers from the raw words of PCG64, a stream that numpy promises to keep."""

    def __init__(self, *parts: int) -> None:
        self.words = np.random.PCG64(derive(*parts))

    def draw_below(self, count: int) -> int:
        return int(self.words.random_raw()) % count

    def draw_between(self, first: int, last: int) -> int:
        return first + self.draw_below(last - first + 1)

    def draw_noise(self, height: int, width: int) -> np.ndarray:
        """Random bytes (height, width)."""
        words = self.words.random_raw(-(-height * width // 8)).astype("<u8")
        return words.view(np.uint8)[: height * width].reshape(height, width)


class Scenes:
    """The scenes of one split, (image, mask) by number. Each is drawn on first use and kept."""

    def __init__(self, split: str, layout: Layout = FOR_MASKS) -> None:
        self.split, self.layout = split, layout
        self.cache: dict[int, tuple[Image.Image, Image.Image]] = {}
        self.digits, self.labels = load_digits_of_split(split)

    def __getitem__(self, i: int) -> tuple[Image.Image, Image.Image]:
        if i not in self.cache:
            self.cache[i] = draw_scene(
                self.digits, self.labels, RawNumbers(list(SCENES).index(self.split), i), self.layout
            )
        return self.cache[i]


class SceneDataset(LabeledDataset):
    """The images of scenes (member 0) or their masks (member 1)."""

    mirrorable = False

    def __init__(self, scenes: Scenes, member: int, count: int) -> None:
        self.scenes, self.member, self.classes = scenes, member, ()
        self.labels = torch.zeros(count, dtype=torch.int64)

    def source(self, i: int) -> Image.Image:
        return self.scenes[i][self.member]

    def name(self, i: int) -> str:
        return f"scene {i} ({self.scenes.split})"


def open_scenes() -> DatasetSplits:
    """400, 80 and 120 scenes of 64x64 pixels in color, made from the 1,797 scanned 8x8 digits.

    Class 0 is the ground, class k + 1 the digit k; a rim of about one pixel around half of the digits is void.
    """
    scenes = {split: Scenes(split) for split in SCENES}
    pairs = {
        split: RawMaskDataset(*(SceneDataset(split_scenes, member, SCENES[split]) for member in range(2)))
        for split, split_scenes in scenes.items()
    }
    return DatasetSplits(pairs, label_map=LabelMap(dict(enumerate(CLASSES)), ignored=frozenset({BORDER})))


def open_digit_scenes() -> DatasetSplits:
    """1500, 300 and 400 such scenes of 32x32 pixels, each with the digits that it shows."""
    splits: dict[str, LabeledDataset] = {}
    for split, count in DIGIT_SCENES.items():
        scenes = Scenes(split, FOR_DIGITS)
        images, masks = (SceneDataset(scenes, member, count) for member in range(2))
        drawn = (np.asarray(masks.source(i)).ravel() for i in range(count))
        pixels = np.stack([np.bincount(mask, minlength=BORDER + 1)[1 : len(CLASSES)] for mask in drawn])
        labels = torch.from_numpy(pixels > 0).long()
        splits[split] = MultiLabelDataset(images, labels, classes=tuple(map(str, range(10))))
    return DatasetSplits(splits)


@functools.cache
def load_digits_of_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The split's share of the digits, uint8 (n, 8, 8), and their labels; only to be read."""
    scans, labels = load_scans()
    order = sorted(range(len(labels)), key=derive)
    ends = np.cumsum([0, *SHARES.values()]) * len(order) // 100
    number = list(SHARES).index(split)
    chosen = order[ends[number] : ends[number + 1]]
    return (scans[chosen] * 255 // 16).astype(np.uint8), labels[chosen]


def draw_scene(
    digits: np.ndarray, labels: np.ndarray, numbers: RawNumbers, layout: Layout = FOR_MASKS
) -> tuple[Image.Image, Image.Image]:
    """Draws an RGB image and its mask: 0 is ground, k + 1 is digit k, 255 is the rim of about half of the digits."""
    base = [numbers.draw_below(GROUND) for _ in range(3)]
    pixels = draw_ground(base, numbers, layout.size)
    mask = np.zeros((layout.size, layout.size), dtype=np.uint8)
    for _ in range(numbers.draw_between(*layout.digits)):
        number, color, rim = (
            numbers.draw_below(len(digits)),
            choose_bright_color(base, numbers),
            (BORDER, TAKEN)[numbers.draw_below(2)],
        )
        side = numbers.draw_between(*layout.sides)
        large = Image.fromarray(digits[number]).resize((side, side), Image.Resampling.BICUBIC)
        ink = np.pad(np.asarray(large), 1)  # room for the rim
        if (window := find_free_window(mask, ink, numbers)) is not None:
            opacity = ((ink.astype(np.int32) - INK) * STEEPNESS + 128).clip(0, 255)[..., None]
            pixels[window] += (np.array(color) - pixels[window]) * opacity // 255
            mask[window] = np.where(
                find_marked_pixels(ink), np.where(ink >= INK, labels[number] + 1, rim), mask[window]
            )
    mask[mask == TAKEN] = 0
    return Image.fromarray(pixels.astype(np.uint8)), Image.fromarray(mask)


def draw_ground(base: Sequence[int], numbers: RawNumbers, size: int) -> np.ndarray:
    """Draws clouds and grain (h, w, 3) around a color, int32 in 0..255."""
    clouds = Image.fromarray(numbers.draw_noise(CLOUDS, CLOUDS)).resize((size, size), Image.Resampling.BICUBIC)
    texture = (np.asarray(clouds).astype(np.int32) - 128) // 3 + (
        numbers.draw_noise(size, size).astype(np.int32) - 128
    ) // 6
    return (np.array(base, dtype=np.int32) + texture[..., None]).clip(0, 255).astype(np.int32)


def choose_bright_color(base: Sequence[int], numbers: RawNumbers) -> list[int]:
    """Draws a color that is clearly brighter than `base`."""
    while True:
        color = [numbers.draw_below(256) for _ in range(3)]
        if compute_brightness(color) - compute_brightness(base) >= CONTRAST:
            return color


def compute_brightness(color: Sequence[int]) -> int:
    red, green, blue = color
    return (3 * red + 6 * green + blue) // 10


def find_free_window(mask: np.ndarray, ink: np.ndarray, numbers: RawNumbers) -> tuple[slice, slice] | None:
    """Finds a window of the scene that is still free under the digit and its rim; None after `TRIES` failures."""
    for _ in range(TRIES):
        top, left = (numbers.draw_below(len(mask) - len(ink) + 1) for _ in range(2))
        window = (slice(top, top + len(ink)), slice(left, left + len(ink)))
        if not mask[window][find_marked_pixels(ink)].any():
            return window
    return None


def find_marked_pixels(ink: np.ndarray) -> np.ndarray:
    """Marks the pixels of a digit and of its rim, bool."""
    return np.asarray(Image.fromarray((ink >= INK).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) > 0
