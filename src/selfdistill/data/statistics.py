"""Mean and standard deviation of a data set's pixels."""

import threading

import numpy as np
from PIL import Image

from ..config.recipe import DataPart
from .datasets.base import LabeledDataset
from .datasets.image_io import convert_channels
from .reading import ImageUse
from .task_data import Show

NARROW = 16  # levels of 256; images that use no more have hardly any contrast


class PixelStatistics(ImageUse):
    """Counts the 8-bit values of at most `most` evenly spaced images, after `show`.

    The counts are exact, so order and threads cannot change the result.
    """

    def __init__(self, dataset: LabeledDataset, settings: DataPart, show: Show, most: int) -> None:
        assert settings.channels is not None, "the settings are not resolved"
        self.indices = frozenset(dataset.sample(most))
        self.channels, self.gray_range, self.show = settings.channels, settings.gray_range, show
        self.counts = np.zeros((self.channels, 256), dtype=np.int64)
        self.lock = threading.Lock()

    def add(self, i: int, image: Image.Image) -> None:
        pixels = np.asarray(self.show(convert_channels(image, self.channels, self.gray_range))).reshape(
            -1, self.channels
        )
        counts = [np.bincount(pixels[:, k], minlength=256) for k in range(self.channels)]
        with self.lock:
            self.counts += counts

    def finish(self) -> None:
        self.indices = frozenset()

    def find_narrow_range(self) -> tuple[int, int] | None:
        """The smallest and the largest value if they lie close together; None for usual images."""
        levels = self.counts.sum(axis=0).nonzero()[0]
        is_narrow = len(levels) > 0 and levels[-1] - levels[0] <= NARROW
        return (int(levels[0]), int(levels[-1])) if is_narrow else None

    def compute(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, of values in [0, 1]; a constant channel has std 1."""
        values = np.arange(256) / 255
        shares = self.counts / self.counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
        std[std == 0] = 1
        return [round(float(value), 6) for value in mean], [round(float(value), 6) for value in std]
