"""Scanned digits that come with the package, so that nothing need be downloaded to try it.

They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998,
https://doi.org/10.24432/C50P49, license CC BY 4.0), with the rows in the order of scikit-learn's `load_digits`.
`digits.npz` holds them unchanged: `scans` (1797, 8, 8) of 0 to 16, and `labels`.
"""

import functools
from importlib.resources import files

import numpy as np
from PIL import Image

from .base import PairDataset
from .splits import DatasetSplits


def open_digits() -> DatasetSplits:
    """1,797 scanned 8x8 digits, their 17 gray levels spread over 0..255."""
    scans, labels = load_scans()
    pixels = np.round(scans * (255 / 16)).astype(np.uint8)
    pairs = [(Image.fromarray(image), int(label)) for image, label in zip(pixels, labels, strict=True)]
    names = [str(number) for number in range(10)]
    return DatasetSplits(
        {"train": PairDataset(pairs, labels.tolist(), classes=names, title="digits", mirrorable=False)}
    )


@functools.cache
def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """The scans, (1797, 8, 8) of 0..16, and their labels; only to be read, since a process keeps them."""
    with files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file) as archive:
        return archive["scans"].astype(np.float64), archive["labels"].astype(np.int64)
