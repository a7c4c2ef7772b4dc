"""The scanned digits of scikit-learn, which need no download."""

import numpy as np
from PIL import Image

from .base import PairDataset
from .splits import DatasetSplits


def open_digits() -> DatasetSplits:
    """scikit-learn's 1,797 scanned 8x8 digits, their 17 gray levels spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pairs = [(Image.fromarray(image), int(label)) for image, label in zip(pixels, digits.target, strict=True)]
    names = [str(name) for name in digits.target_names]
    return DatasetSplits(
        {"train": PairDataset(pairs, digits.target.tolist(), classes=names, title="digits", mirrorable=False)}
    )
