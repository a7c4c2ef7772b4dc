"""What a recipe's data settings leave open, decided from the training images."""

from collections.abc import Sequence

import numpy as np

from ..config.recipe import DataPart
from .datasets.base import LabeledDataset, Subset, count_threads, evenly_spaced, map_blocks
from .datasets.image_io import GRAY, to_channels
from .split import VAL_FRACTION, Splits
from .task_data import Show, Size, TaskData


def choose_defaults(settings: DataPart, splits: Splits, task: TaskData) -> DataPart:
    """`settings` with everything decided that they leave open, from the training images; decided ones stay as they are.

    Channels: 1 where all images are gray, else 3 (alpha is used only where 4 are asked for). Size, augmentations and
    the view of an image that `mean` and `std` are computed on are the task's choice. What was found out about labels,
    such as the names of mask values, becomes a setting too.
    """
    _refuse_idle(settings, task)
    values = settings.model_dump()
    formats = splits.train.formats if settings.image_size is None or settings.channels is None else frozenset()
    size = _choose_size(settings, {(image.height, image.width) for image in formats}, task)
    channels = settings.channels or (1 if all(image.mode in GRAY for image in formats) else 3)
    augmentations = task.choose_augmentations(settings, size, mirrorable=splits.train.mirrorable)
    values |= {"image_size": size, "channels": channels, "augment": augmentations}
    task.check_augmentations(augmentations, size, channels)
    _check_statistics(settings, channels)
    if settings.mean is None or settings.std is None:
        mean, std = compute_statistics(splits.train, channels, *task.statistics_view(settings, size))
        values |= {"mean": settings.mean or mean, "std": settings.std or std}
    if settings.val_fraction is None and _is_held_out(splits):
        values["val_fraction"] = VAL_FRACTION
    return DataPart.model_validate(values | splits.train.settings())


def _refuse_idle(settings: DataPart, task: TaskData) -> None:
    for name in task.idle_settings:
        if getattr(settings, name) != DataPart.model_fields[name].default:
            raise ValueError(f"data.{name}={getattr(settings, name)} has no effect on task={task.name}")


def _choose_size(settings: DataPart, sizes: set[Size], task: TaskData) -> Size:
    if isinstance(settings.image_size, int):
        return (settings.image_size, settings.image_size)
    return settings.image_size or task.choose_size(settings, sizes)


def _is_held_out(splits: Splits) -> bool:
    """Whether validation and training images are parts of the same set."""
    train, val = splits.train, splits.val
    return isinstance(train, Subset) and isinstance(val, Subset) and train.dataset is val.dataset


def _check_statistics(settings: DataPart, channels: int) -> None:
    for name, values in (("mean", settings.mean), ("std", settings.std)):
        if values is None:
            continue
        if len(values) != channels:
            raise ValueError(f"data.{name} has {len(values)} values, but the images have {channels} channels")
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"data.{name}={values} is not of values in [0, 1]; divide by 255")


def compute_statistics(rows: LabeledDataset, channels: int, show: Show, most: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels of `most` images at most, of values in [0, 1].

    Exact: 8-bit values are counted, so that order and threads cannot change the result. A constant channel has std 1.
    """

    def count(block: Sequence[int]) -> np.ndarray:
        counts = np.zeros((channels, 256), dtype=np.int64)
        for i in block:
            pixels = np.asarray(show(to_channels(rows.image(i), channels))).reshape(-1, channels)
            counts += [np.bincount(pixels[:, k], minlength=256) for k in range(channels)]
        return counts

    counts = sum(map_blocks(count, evenly_spaced(len(rows), most), threads=count_threads(rows)))
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
    std[std == 0] = 1
    return [round(float(value), 6) for value in mean], [round(float(value), 6) for value in std]
