"""Mean and standard deviation of a data set's pixels."""

import threading

import numpy as np
from PIL import Image
from torch import Tensor

from ..config.recipe import DataPart
from .datasets.base import LabeledDataset
from .datasets.conversion import PixelFormat, Stored
from .reading import ImageUse
from .task_data import Show

NARROW = 16  # levels of 256; images that use no more have hardly any contrast
LEVELS, FINE_LEVELS = 256, 2**16  # that are told apart: of 8 bits, and of floats


class PixelStatistics(ImageUse):
    """Counts the values of at most `most` evenly spaced images, after `show`; floats in 65,536 steps.

    Counts are whole numbers, so order and threads cannot change the result.
    """

    def __init__(self, dataset: LabeledDataset, settings: DataPart, show: Show, most: int) -> None:
        self.indices = frozenset(dataset.sample(most))
        self.format, self.show = PixelFormat.of(settings), show
        self.levels = FINE_LEVELS if self.format.is_deep else LEVELS
        self.counts = np.zeros((self.format.channels, self.levels), dtype=np.int64)
        self.lock = threading.Lock()

    def add(self, i: int, image: Stored) -> None:
        pixels = self._list_levels(self.show(self.format.convert(image)))
        counts = [np.bincount(channel, minlength=self.levels) for channel in pixels]
        with self.lock:
            self.counts += counts

    def _list_levels(self, image: Image.Image | Tensor) -> np.ndarray:
        """The levels (c, pixels) of an image."""
        if isinstance(image, Tensor):
            return np.round(image.flatten(1).numpy() * (FINE_LEVELS - 1)).astype(np.int64)
        return np.asarray(image).reshape(-1, self.format.channels).T

    def finish(self) -> None:
        self.indices = frozenset()

    def find_narrow_range(self) -> tuple[int, int] | None:
        """The smallest and the largest of 256 levels if they lie close together; None for usual images."""
        levels = self.counts.reshape(-1, LEVELS, self.levels // LEVELS).sum(axis=(0, 2)).nonzero()[0]
        is_narrow = len(levels) > 0 and levels[-1] - levels[0] <= NARROW
        return (int(levels[0]), int(levels[-1])) if is_narrow else None

    def compute(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, of values in [0, 1]; a constant channel has std 1."""
        values = np.arange(self.levels) / (self.levels - 1)
        shares = self.counts / self.counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
        std[std == 0] = 1
        return [round(float(value), 6) for value in mean], [round(float(value), 6) for value in std]
