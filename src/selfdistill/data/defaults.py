"""What a recipe's data settings leave open, decided from the training images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..config.recipe import DataPart
from .datasets.base import LabeledDataset, Subset, count_threads, evenly_spaced, map_blocks
from .datasets.image_io import GRAY, to_channels
from .split import VAL_FRACTION, Splits
from .transforms import image_mask
from .transforms import names as augment
from .transforms.names import DEFAULT_SIZE
from .transforms.pipeline import CenterCrop, is_small

STATISTICS = {True: 10_000, False: 2_000}  # small images, larger ones: rows that mean and std are computed from
MASK_STATISTICS = 500  # the same of images with masks, which are shown whole

Size = tuple[int, int]  # height, width
Show = Callable[[Image.Image], Image.Image]


def resolve(part: DataPart, splits: Splits, kind: str = "classification") -> DataPart:
    """`part` with everything decided that it leaves open, from the training images, for a kind of task.

    Channels: 1 where all images are gray, else 3 (alpha is used only where 4 are asked for). A resolved part stays as
    it is. Further, for classification:

    Size: the images' own where all agree and no side exceeds 64, else 224. `mean` and `std`: over all pixels of 10,000
    evenly spaced images as evaluation shows them, 2,000 where they are larger than 64. `auto`: crop up to 64,
    resized_crop beyond, and flip where the data set's images may be mirrored.

    For segmentation: Size, of the training crops: the images' own, with `short_side` applied, where all agree and no
    side exceeds 512, else 512 (less, a multiple of 32, where all images are smaller). `mean` and `std`: of 500 images.
    `auto`: scale, crop, and flip. `classes` and `void`: names of the mask values, and values that count for nothing.
    """
    choice = CHOICES[kind]
    _refuse_idle(part, kind)
    values = part.model_dump()
    formats = splits.train.formats if part.image_size is None or part.channels is None else frozenset()
    values["image_size"] = size = _size(part, {(found.height, found.width) for found in formats}, choice)
    values["channels"] = channels = part.channels or (1 if all(found.mode in GRAY for found in formats) else 3)
    values["augment"] = choice.names(part.augment, size, splits.train.mirrorable)
    choice.check(values["augment"], size, channels)  # unknown names and callables are refused here
    _check_statistics(part, channels)
    if part.mean is None or part.std is None:
        mean, std = statistics(splits.train, channels, *choice.shown(part, size))
        values["mean"], values["std"] = part.mean or mean, part.std or std
    if part.val_fraction is None and _is_held_out(splits):
        values["val_fraction"] = VAL_FRACTION
    return DataPart.model_validate(values | splits.train.settings())


class Choice(NamedTuple):
    """What is decided in another way for each kind of task."""

    size: Callable[[DataPart, set[Size]], Size]  # of images of these sizes
    names: Callable[[str | list[str], Size, bool], list[str]]  # of augmentations; whether images may be mirrored
    check: Callable[[list[str], Size, int], object]  # of these names; raises `ValueError`
    shown: Callable[[DataPart, Size], tuple[Show, int]]  # what evaluation shows; images that mean and std are of


def _own_or_usual(part: DataPart, sizes: set[Size]) -> Size:
    common = next(iter(sizes))
    return common if len(sizes) == 1 and is_small(common) else (DEFAULT_SIZE, DEFAULT_SIZE)


def _middles(part: DataPart, size: Size) -> tuple[Show, int]:
    return CenterCrop(size), STATISTICS[is_small(size)]


def _of_crops(part: DataPart, sizes: set[Size]) -> Size:
    return image_mask.default_size(sizes, part.short_side)


def _check_image_mask(names: list[str], size: Size, channels: int) -> object:
    return image_mask.steps_of(names, size, [0.0] * channels)


def _wholes(part: DataPart, size: Size) -> tuple[Show, int]:
    return lambda image: image_mask.evaluated(image, part.short_side), MASK_STATISTICS


CHOICES = {
    "classification": Choice(_own_or_usual, augment.augmentation_names, augment.steps_of, _middles),
    "segmentation": Choice(_of_crops, image_mask.augmentation_names, _check_image_mask, _wholes),
}
OF_MASKS = ("classes", "void", "palette", "short_side", "window")  # settings without effect on labels of whole images


def _refuse_idle(part: DataPart, kind: str) -> None:
    for name in OF_MASKS if kind == "classification" else ():
        if getattr(part, name) != DataPart.model_fields[name].default:
            raise ValueError(f"data.{name}={getattr(part, name)} has no effect on task=classification")


def _size(part: DataPart, sizes: set[Size], choice: Choice) -> Size:
    if isinstance(part.image_size, int):
        return (part.image_size, part.image_size)
    return part.image_size or choice.size(part, sizes)


def _is_held_out(splits: Splits) -> bool:
    """Whether validation and training rows are parts of the same set."""
    train, val = splits.train, splits.val
    return isinstance(train, Subset) and isinstance(val, Subset) and train.dataset is val.dataset


def _check_statistics(part: DataPart, channels: int) -> None:
    for name, values in (("mean", part.mean), ("std", part.std)):
        if values is None:
            continue
        if len(values) != channels:
            raise ValueError(f"data.{name} has {len(values)} values, but the images have {channels} channels")
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"data.{name}={values} is not of values in [0, 1]; divide by 255")


def statistics(rows: LabeledDataset, channels: int, show: Show, most: int) -> tuple[list[float], list[float]]:
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
