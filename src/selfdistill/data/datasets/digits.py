"""The scanned digits of scikit-learn, which need no download."""

import functools

import numpy as np
from PIL import Image

from .base import PairDataset
from .splits import DatasetSplits


def open_digits() -> DatasetSplits:
    """scikit-learn's 1,797 scanned 8x8 digits, their 17 gray levels spread over 0..255."""
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
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target
