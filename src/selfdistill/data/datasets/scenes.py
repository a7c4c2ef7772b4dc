"""Built-in scenes for segmentation: several scanned digits on textured ground, with a label for every pixel.

Nothing but raw words of PCG64 and whole numbers goes into them, so that they are the same on every machine and with
every version of numpy.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter

from ..random.seeds import derive
from .base import LabeledDataset
from .label_map import LabelMap
from .masks import RawMaskDataset
from .splits import DatasetSplits

SIZE = 64  # pixels, both ways
SCENES = {"train": 400, "val": 80, "test": 120}
SHARES = {"train": 60, "val": 15, "test": 25}  # of the digits, in percent; no digit is in two splits
DIGITS = (2, 4)  # fewest and most in a scene
SIDES = (24, 40)  # smallest and largest digit, in pixels
TRIES = 8  # to find room for a digit
CLOUDS = 6  # cells of the ground's texture, both ways
INK = 110  # of 255: from here on a pixel is the digit's
STEEPNESS = 6  # of the change from ground to ink: 0 to 255 within 43 of the 256 levels of ink
GROUND = 120  # of 255: the ground's color has no component above it
CONTRAST = 90  # by which ink is brighter than ground at least
BORDER = 255  # the value of the rim around a digit
TAKEN = 254  # the same where the rim will be ground: other digits keep off it
CLASSES = ("ground", *(f"digit {k}" for k in range(10)))


class RawNumbers:
    """Whole numbers from the raw words of PCG64, a stream that numpy promises to keep."""

    def __init__(self, *parts: int) -> None:
        self.words = np.random.PCG64(derive(*parts))

    def below(self, count: int) -> int:
        return int(self.words.random_raw()) % count

    def between(self, first: int, last: int) -> int:
        return first + self.below(last - first + 1)

    def noise(self, height: int, width: int) -> np.ndarray:
        """Bytes (height, width)."""
        words = self.words.random_raw(-(-height * width // 8)).astype("<u8")
        return words.view(np.uint8)[: height * width].reshape(height, width)


class Scenes:
    """The scenes of one split, (image, mask) by number; made when they are first asked for and kept."""

    def __init__(self, split: str) -> None:
        self.split = split
        self.made: dict[int, tuple[Image.Image, Image.Image]] = {}
        self.digits, self.labels = digits_of(split)

    def __getitem__(self, i: int) -> tuple[Image.Image, Image.Image]:
        if i not in self.made:
            self.made[i] = scene(self.digits, self.labels, RawNumbers(list(SCENES).index(self.split), i))
        return self.made[i]


class SceneDataset(LabeledDataset):
    """The images of scenes (member 0) or their masks (member 1)."""

    mirrorable = False

    def __init__(self, scenes: Scenes, member: int) -> None:
        self.scenes, self.member, self.classes = scenes, member, ()
        self.labels = torch.zeros(SCENES[scenes.split], dtype=torch.int64)

    def source(self, i: int) -> Image.Image:
        return self.scenes[i][self.member]

    def name(self, i: int) -> str:
        return f"scene {i} ({self.scenes.split})"


def open_scenes() -> DatasetSplits:
    """400, 80 and 120 scenes of 64x64 pixels in color, made from scikit-learn's 1,797 scanned 8x8 digits.

    Class 0 is the ground, class k + 1 the digit k; a rim of about one pixel around half of the digits is void.
    """
    scenes = {split: Scenes(split) for split in SCENES}
    pairs = {
        split: RawMaskDataset(SceneDataset(split_scenes, 0), SceneDataset(split_scenes, 1))
        for split, split_scenes in scenes.items()
    }
    return DatasetSplits(pairs, label_map=LabelMap(dict(enumerate(CLASSES)), ignored=frozenset({BORDER})))


def digits_of(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The split's share of the digits, uint8 (n, 8, 8), and what they are."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = sorted(range(len(digits.target)), key=derive)
    ends = np.cumsum([0, *SHARES.values()]) * len(order) // 100
    number = list(SHARES).index(split)
    chosen = order[ends[number] : ends[number + 1]]
    return (digits.images[chosen] * 255 // 16).astype(np.uint8), digits.target[chosen]


def scene(digits: np.ndarray, labels: np.ndarray, numbers: RawNumbers) -> tuple[Image.Image, Image.Image]:
    """An image in color and its mask: 0 ground, k + 1 digit k, 255 the rim around every other digit or so."""
    base = [numbers.below(GROUND) for _ in range(3)]
    pixels = ground(base, numbers)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for _ in range(numbers.between(*DIGITS)):
        number, color, rim = (
            numbers.below(len(digits)),
            choose_bright_color(base, numbers),
            (BORDER, TAKEN)[numbers.below(2)],
        )
        side = numbers.between(*SIDES)
        large = Image.fromarray(digits[number]).resize((side, side), Image.Resampling.BICUBIC)
        ink = np.pad(np.asarray(large), 1)  # room for the rim
        if (window := free_place(mask, ink, numbers)) is not None:
            opacity = ((ink.astype(np.int32) - INK) * STEEPNESS + 128).clip(0, 255)[..., None]
            pixels[window] += (np.array(color) - pixels[window]) * opacity // 255
            mask[window] = np.where(marks(ink), np.where(ink >= INK, labels[number] + 1, rim), mask[window])
    mask[mask == TAKEN] = 0
    return Image.fromarray(pixels.astype(np.uint8)), Image.fromarray(mask)


def ground(base: Sequence[int], numbers: RawNumbers) -> np.ndarray:
    """Clouds and grain (h, w, 3) around a color, int32 in 0..255."""
    clouds = Image.fromarray(numbers.noise(CLOUDS, CLOUDS)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    texture = (np.asarray(clouds).astype(np.int32) - 128) // 3 + (numbers.noise(SIZE, SIZE).astype(np.int32) - 128) // 6
    return (np.array(base, dtype=np.int32) + texture[..., None]).clip(0, 255).astype(np.int32)


def choose_bright_color(base: Sequence[int], numbers: RawNumbers) -> list[int]:
    """A color that is clearly brighter than `base`."""
    while True:
        color = [numbers.below(256) for _ in range(3)]
        if brightness(color) - brightness(base) >= CONTRAST:
            return color


def brightness(color: Sequence[int]) -> int:
    red, green, blue = color
    return (3 * red + 6 * green + blue) // 10


def free_place(mask: np.ndarray, ink: np.ndarray, numbers: RawNumbers) -> tuple[slice, slice] | None:
    """Where in the scene nothing lies under the digit and its rim yet; None where no try finds such a place."""
    for _ in range(TRIES):
        top, left = (numbers.below(SIZE - len(ink) + 1) for _ in range(2))
        window = (slice(top, top + len(ink)), slice(left, left + len(ink)))
        if not mask[window][marks(ink)].any():
            return window
    return None


def marks(ink: np.ndarray) -> np.ndarray:
    """The pixels of a digit and of its rim, bool."""
    return np.asarray(Image.fromarray((ink >= INK).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) > 0
