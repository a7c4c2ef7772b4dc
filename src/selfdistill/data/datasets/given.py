"""Data sets that a Python program gives: anything with `len` and (image, label) by index.

Images that are PIL images, or integers of 8 bits, are stored images: they are resized, augmented and normalized as
those of files. Float tensors are finished: the data set has done all that, and each view of one is another draw.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from ...config.recipe import DataPart
from ...errors import UserCodeError, one_line
from ...imports import OBJECT, load
from ..random.seeds import isolate_generators
from .bands import Bands, count_bands
from .base import LabeledDataset
from .conversion import MODES, Stored
from .label_map import IGNORE_INDEX, LabelMap
from .mask_values import BORDER
from .masks import RawMaskDataset
from .multi_label import MultiLabelDataset
from .splits import DatasetSplits

ONE_AT_A_TIME = threading.RLock()  # a user's data set need not be made for several threads


class FinishedImage(Image.Image):
    """Stands for an image that comes as a finished tensor: its size and mode, and how to draw it; it has no pixels."""

    def __init__(self, size: tuple[int, int], mode: str, name: str, draw: Callable[[], tuple[Tensor, Any]]) -> None:
        super().__init__()
        self._size, self._mode, self.name, self.draw = size, mode, name, draw

    def load(self) -> None:
        raise ValueError(f"{self.name} comes as a finished tensor, and this needs a PIL image or 8-bit integers")


class GivenImages(LabeledDataset):
    """The images of a data set that a program gives, or its masks (`part` 1), with class numbers."""

    mirrorable = False

    def __init__(self, dataset: Any, title: str, *, part: int = 0) -> None:
        self.dataset, self.title, self.part = dataset, title, part
        self.labels, self.classes = torch.zeros(len(dataset), dtype=torch.int64), ()
        first = self.read_pair(0)[part]
        is_finished = part == 0 and isinstance(first, Tensor) and first.is_floating_point()
        self.shape = tuple(first.shape) if is_finished else None
        if is_finished and first.ndim != 3:
            raise ValueError(f"{self.name(0)} has the shape {self.shape}; give (channels, height, width)")
        if is_finished and first.shape[2] in MODES and first.shape[0] not in MODES:
            raise ValueError(f"{self.name(0)} has the shape {self.shape}, with the channels last; put them first")

    def read_pair(self, i: int) -> tuple[Any, Any]:
        """As `draw`; errors name the item."""
        with self.name_errors(i):
            return self.draw(i)

    def draw(self, i: int) -> tuple[Any, Any]:
        """Image and label, as the data set gives them now; raises `ValueError` for anything but such a pair."""
        with ONE_AT_A_TIME:
            try:
                item = self.dataset[i]
            except Exception as error:
                raise UserCodeError(f"{self.title} raised {one_line(error)}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            count = f" of {len(item)}" if isinstance(item, tuple | list | dict) else ""
            raise ValueError(f"a {type(item).__name__}{count} is no pair (image, label)")
        return item[0], item[1]

    def draw_finished(self, i: int) -> tuple[Tensor, Any]:
        """As `draw`; raises `ValueError` for anything but a float tensor of the first one's shape."""
        image, label = self.draw(i)
        if not isinstance(image, Tensor) or not image.is_floating_point() or tuple(image.shape) != self.shape:
            what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"{what}, and the first image is a float tensor {self.shape}")
        return image.to(torch.float32), label

    def source(self, i: int) -> Stored:
        if self.shape is None:
            with self.name_errors(i):
                value = self.draw(i)[self.part]
                return to_picture(to_stored_mask(value) if self.part else value)
        channels, height, width = self.shape
        mode = MODES.get(channels, "RGB")
        return FinishedImage((width, height), mode, self.name(i), partial(self.draw_finished, i))

    def name(self, i: int) -> str:
        return f"item {i} of {self.title}"

    def size(self, i: int) -> int:
        return 0  # the labels alone are compared, as reading all images would take long

    def settings(self) -> dict[str, Any]:
        """Finished images stay as they are."""
        if self.shape is None:
            return {}
        channels, *size = self.shape
        plain = {"mean": [0.0] * channels, "std": [1.0] * channels}
        return {"finished": True, "image_size": tuple(size), "channels": channels, "augment": [], **plain}


class Given(NamedTuple):
    """A data set that a program gives, as it is lent; `num_classes` of the method that learns from it, if known."""

    dataset: Any
    num_classes: int | None = None


def open_given(settings: DataPart, name: str) -> DatasetSplits:
    """Images with one label each: class numbers, or names."""
    given, images, title = _open(settings, name)
    labels = [*_read_labels(given.dataset, images)]
    names = _find_names(given.dataset)
    if all(isinstance(label, str) for label in labels):
        names = names or sorted(set(labels))
        known = {label: k for k, label in enumerate(names)}
        strange = next((label for label in labels if label not in known), None)
        if strange is not None:
            raise ValueError(f"{title} has the label {strange!r}, which is none of its classes")
        labels = [known[label] for label in labels]
    numbers = [_to_number(label, i, title) for i, label in enumerate(labels)]
    count = given.num_classes or len(names or ()) or max(numbers) + 1
    names = names if names and len(names) == count else [str(k) for k in range(count)]
    wrong = next((i for i, number in enumerate(numbers) if not 0 <= number < count), None)
    if wrong is not None:
        raise ValueError(f"item {wrong} of {title} has the label {numbers[wrong]}, and there are {count} classes")
    images.labels, images.classes = torch.tensor(numbers), tuple(names)
    return DatasetSplits({"train": images})


def open_given_labels(settings: DataPart, name: str) -> DatasetSplits:
    """Images with any number of classes each: 0 or 1 for every class."""
    given, images, title = _open(settings, name)
    rows = [torch.as_tensor(label) for label in _read_labels(given.dataset, images)]
    if any(row.shape != rows[0].shape or row.ndim != 1 or not _are_known_labels(row) for row in rows):
        raise ValueError(
            f"{title} must give 0 or 1 for every class of each image, or {IGNORE_INDEX} where that is not known, a "
            f"tensor (classes,)"
        )
    labels = torch.stack(rows).long()
    names = _find_names(given.dataset) or [str(k) for k in range(labels.shape[1])]
    return DatasetSplits({"train": MultiLabelDataset(images, labels, classes=tuple(names))})


def _are_known_labels(row: Tensor) -> bool:
    return bool(((row == 0) | (row == 1) | (row == IGNORE_INDEX)).all())


def open_given_masks(settings: DataPart, name: str) -> DatasetSplits:
    """Images with a class number for every pixel; negative ones and 255 count for nothing."""
    given, images, title = _open(settings, name)
    masks = GivenImages(given.dataset, f"the masks of {title}", part=1)
    names = _find_names(given.dataset)
    if given.num_classes is not None and (names is None or len(names) != given.num_classes):
        names = [str(k) for k in range(given.num_classes)]
    label_map = LabelMap(dict(enumerate(names)), ignored=frozenset({BORDER})) if names else None
    return DatasetSplits({"train": RawMaskDataset(images, masks)}, label_map=label_map)


def to_picture(image: Any) -> Stored:
    """A stored image from a PIL image, from an array (h, w, c) or (h, w), or from a tensor (c, h, w), of 8 or 16 bits.

    Raises `ValueError` for anything else.
    """
    if isinstance(image, Image.Image):
        return image
    is_tensor = isinstance(image, Tensor)
    pixels = image.detach().cpu().numpy() if is_tensor else image
    if isinstance(pixels, np.ndarray):
        pixels = pixels.transpose(1, 2, 0) if is_tensor and pixels.ndim == 3 else pixels
        if pixels.dtype in (np.uint8, np.uint16) and pixels.ndim in (2, 3):
            bands = Bands(np.ascontiguousarray(pixels[..., None] if pixels.ndim == 2 else pixels))
            single = bands.values[..., 0] if bands.values.shape[2] == 1 else bands.values
            return bands if count_bands(bands.mode) else Image.fromarray(single)
    what = f"{pixels.dtype} {tuple(image.shape)}" if isinstance(pixels, np.ndarray) else type(image).__name__
    raise ValueError(
        f"{what} is no picture; give a PIL image, integers (uint8 or uint16), or a finished float tensor (c, h, w)"
    )


def to_stored_mask(mask: Any) -> Any:
    """Class numbers (h, w) as a mask file holds them, 255 where they are negative; a PIL image as it is."""
    if isinstance(mask, Image.Image):
        return mask
    numbers = np.asarray(mask)
    if numbers.ndim != 2 or numbers.dtype.kind not in "iu":
        raise ValueError(f"a mask is {numbers.dtype} {numbers.shape}; give a class number for every pixel (h, w)")
    if numbers.size and numbers.max() > BORDER:
        raise ValueError(f"it holds the number {numbers.max()}; class numbers of pixels go up to 254")
    return np.where(numbers < 0, BORDER, numbers).astype(np.uint8)


def to_mask(label: Any) -> Int64[Tensor, "h w"]:
    """The class numbers of the pixels of a finished image, -100 where they count for nothing."""
    mask = torch.as_tensor(np.array(label) if isinstance(label, Image.Image) else label).long()
    return mask.where((mask >= 0) & (mask != BORDER), IGNORE_INDEX)


def _open(settings: DataPart, name: str) -> tuple[Given, GivenImages, str]:
    given = load(f"{OBJECT}:{name}")
    if not hasattr(given.dataset, "__len__") or not hasattr(given.dataset, "__getitem__"):
        raise ValueError(f"{name} has no length or no items by index; give a torch Dataset of (image, label)")
    if not len(given.dataset):
        raise ValueError(f"{name} is empty; a network needs images to learn from")
    images = GivenImages(given.dataset, name)
    if images.shape is not None:
        _refuse_idle(settings, images, name)
    elif settings.finished:
        raise ValueError(f"{name} gives stored images, and the run that goes on began with finished tensors")
    return given, images, name


def _refuse_idle(settings: DataPart, images: GivenImages, name: str) -> None:
    """Raises `ValueError` for settings that would change images which are finished."""
    unread = dict.fromkeys(("gray_range", "value_range", "short_side"))
    for setting, value in {**images.settings(), **unread}.items():
        set_value = getattr(settings, setting)
        set_value = (set_value, set_value) if setting == "image_size" and isinstance(set_value, int) else set_value
        if setting != "finished" and set_value not in (None, "auto", "none", value):
            raise ValueError(
                f"data.{setting}={set_value} does not fit {name}, whose images are finished float tensors "
                f"{images.shape} that stay as they are; give PIL images or uint8, or change the data set"
            )


def _read_labels(dataset: Any, images: GivenImages) -> Sequence[Any]:
    """The label of every item: from `targets`, as torchvision's data sets have it, or by drawing all items."""
    if isinstance(dataset, Subset):
        of_all = _read_labels(dataset.dataset, GivenImages(dataset.dataset, images.title))
        return [of_all[i] for i in dataset.indices]
    known = getattr(dataset, "targets", None)
    changes_both = getattr(dataset, "transforms", None) is not None and getattr(dataset, "transform", None) is None
    is_plain = getattr(dataset, "target_transform", None) is None and not changes_both
    if isinstance(known, Tensor | np.ndarray | list) and len(known) == len(dataset) and is_plain:
        return known.tolist() if isinstance(known, Tensor | np.ndarray) else known
    with isolate_generators():
        return [images.read_pair(i)[1] for i in range(len(dataset))]


def _find_names(dataset: Any) -> list[str] | None:
    """The names of the classes, where a data set tells them as torchvision's do."""
    names = _find_names(dataset.dataset) if isinstance(dataset, Subset) else getattr(dataset, "classes", None)
    is_list = isinstance(names, list | tuple) and len(names) > 1 and all(isinstance(name, str) for name in names)
    return [*names] if is_list else None


def _to_number(label: Any, i: int, title: str) -> int:
    is_scalar = isinstance(label, Tensor | np.ndarray) and label.ndim == 0
    value = label.item() if is_scalar or isinstance(label, np.generic) else label
    if isinstance(value, bool) or not isinstance(value, int):
        what = f"{label.dtype} {tuple(label.shape)}" if isinstance(label, Tensor | np.ndarray) else repr(label)
        raise ValueError(f"item {i} of {title} has the label {what}; give a class number, 0 or more, or a class name")
    return value
