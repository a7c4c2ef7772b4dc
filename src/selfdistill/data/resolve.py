"""What a recipe's data settings leave open, decided from the training images."""

from collections.abc import Sequence

import numpy as np

from ..recipe import DataPart
from .augment import DEFAULT_SIZE, Middle, augmentation_names, is_small, steps_of
from .images import GREY, to_channels
from .rows import Rows, Subset, over_rows, spread
from .splits import VAL_FRACTION, Splits

STATISTICS = {True: 10_000, False: 2_000}  # small images, larger ones: rows that mean and std are computed from


def resolve(part: DataPart, splits: Splits) -> DataPart:
    """`part` with everything decided that it leaves open, from the training images.

    Size: the images' own where all agree and no side exceeds 64, else 224. Channels: 1 where all images are grey, else
    3 (alpha is used only where 4 are asked for). `mean` and `std`: over all pixels of 10,000 evenly spaced images as
    evaluation shows them, 2,000 where they are larger than 64. `auto`: crop up to 64, resized_crop beyond, and flip
    where the data set's images may be mirrored. A resolved part stays as it is.
    """
    values = part.model_dump()
    formats = splits.train.formats if part.image_size is None or part.channels is None else frozenset()
    values["image_size"] = size = _size(part, {(found.height, found.width) for found in formats})
    values["channels"] = channels = part.channels or (1 if all(found.mode in GREY for found in formats) else 3)
    values["augment"] = augmentation_names(part.augment, size, splits.train.reflectable)
    steps_of(values["augment"], size, channels)  # unknown names and callables are refused here
    _check_statistics(part, channels)
    if part.mean is None or part.std is None:
        mean, std = statistics(splits.train, size, channels)
        values["mean"], values["std"] = part.mean or mean, part.std or std
    if part.val_fraction is None and _is_held_out(splits):
        values["val_fraction"] = VAL_FRACTION
    return DataPart.model_validate(values)


def _size(part: DataPart, sizes: set[tuple[int, int]]) -> tuple[int, int]:
    if isinstance(part.image_size, int):
        return (part.image_size, part.image_size)
    if part.image_size is not None:
        return part.image_size
    common = next(iter(sizes))
    return common if len(sizes) == 1 and is_small(common) else (DEFAULT_SIZE, DEFAULT_SIZE)


def _is_held_out(splits: Splits) -> bool:
    """Whether validation and training rows are parts of the same set."""
    train, val = splits.train, splits.val
    return isinstance(train, Subset) and isinstance(val, Subset) and train.rows is val.rows


def _check_statistics(part: DataPart, channels: int) -> None:
    for name, values in (("mean", part.mean), ("std", part.std)):
        if values is None:
            continue
        if len(values) != channels:
            raise ValueError(f"data.{name} has {len(values)} values, but the images have {channels} channels")
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"data.{name}={values} is not of values in [0, 1]; divide by 255")


def statistics(rows: Rows, size: tuple[int, int], channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels, of values in [0, 1].

    Exact: 8-bit values are counted, so that order and threads cannot change the result. A constant channel has std 1.
    """
    middle = Middle(size)

    def count(block: Sequence[int]) -> np.ndarray:
        counts = np.zeros((channels, 256), dtype=np.int64)
        for i in block:
            pixels = np.asarray(middle(to_channels(rows.image(i), channels))).reshape(-1, channels)
            counts += [np.bincount(pixels[:, k], minlength=256) for k in range(channels)]
        return counts

    counts = sum(over_rows(count, spread(len(rows), STATISTICS[is_small(size)])))
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
    std[std == 0] = 1
    return [round(float(value), 6) for value in mean], [round(float(value), 6) for value in std]
