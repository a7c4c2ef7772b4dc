"""Labeled images by index, independent of where they are stored."""

import copy
import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Int32, Int64
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserCodeError, count_of
from ..cache.blocks import Blocks
from .conversion import Range, Stored, get_stored_mode, get_values, is_deep, refuse_mode
from .image_io import MAX_MEGAPIXELS, Format, Source, read_format, read_image
from .threads import map_blocks

HEADERS = 50_000  # maximum number of images whose headers are read, at about 20 us each
DECODED = 5_000  # a check decodes all images of data sets up to this size
SAMPLED_IMAGES, SAMPLED_PIXELS = 1000, 4096  # for the range of gray values
SAMPLED_BLOCKS = 16  # where images are fetched in blocks
OUTSIDE = 1e-4  # share of the values below, and above, that range: dead and hot pixels


class Sample(NamedTuple):
    """An image and its target, as stored or after some parts of a transform."""

    image: Stored | Tensor
    target: Tensor  # a class index (), which classes are there (k,), or the class index of every pixel (h, w)


class LabelCounts(NamedTuple):
    """How often each class occurs."""

    labels: Int64[Tensor, " k"]  # images, or labeled pixels
    images: Int64[Tensor, " k"]  # images that show the class
    sampled: int | None = None  # images that were read for it; None: all
    known: Int64[Tensor, " k"] | None = None  # images of which it is known whether they show the class; None: all


class LabeledDataset(ABC, Dataset[Sample]):
    """Images with a label each: a class index, or a mask in subclasses.

    `labels` are indices of `classes`, (n,), or other integers in subclasses. `mirrorable` says whether a mirrored image
    keeps its label.
    """

    classes: tuple[str, ...]
    labels: Int64[Tensor, "n ..."]
    mirrorable: bool = True
    max_megapixels: float = MAX_MEGAPIXELS  # of one image, in millions of pixels; larger ones are refused
    channels: int = 1  # gray pages of a TIFF that make one image
    is_checked: bool = False  # whether a check has read the images
    is_decoded: bool = False  # whether each image was decoded before, so that a check need not do it
    blocks: Blocks | None = None  # where images are fetched block by block, not one by one
    label_notes: tuple[str, ...] = ()  # sentences for the user on how the labels were read
    shares: ClassVar[str] = "each class of"  # for messages: "20 % of each class of digits is held out"

    @abstractmethod
    def source(self, i: int) -> Source:
        """The stored image `i`: a path, an encoded image, or a decoded one."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Image `i` in words, for messages: its file, or "row 17 of train.parquet"."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        """The decoded image and its target."""
        return Sample(self.image(i), self.labels[i])

    def image(self, i: int, draft_side: int = 0) -> Stored:
        """The decoded image, upright, in its stored mode; see `read_image` for `draft_side`."""
        return read_image(
            self.source(i),
            self.name(i),
            max_megapixels=self.max_megapixels,
            channels=self.channels,
            draft_side=draft_side,
        )

    def set_limits(self, max_megapixels: float, channels: int) -> None:
        """Sets how many millions of pixels an image may have, and how many gray pages of a TIFF make one."""
        self.max_megapixels, self.channels = max_megapixels, channels

    @contextmanager
    def name_errors(self, i: int) -> Iterator[None]:
        """Puts the name of image `i` in front of a `ValueError`, and behind one of the user's code."""
        try:
            yield
        except UserCodeError as error:
            raise UserCodeError(f"{error}, given {self.name(i)}") from error.__cause__ or error
        except ValueError as error:
            raise ValueError(f"{self.name(i)}: {error}") from error

    def format(self, i: int, *, decode: bool = False) -> Format:
        """Size and mode. Reads only the header unless `decode`. `ValueError` for an unusable image."""
        image_format = read_format(
            self.source(i),
            self.name(i),
            decode=decode,
            max_megapixels=self.max_megapixels,
            channels=self.channels,
        )
        with self.name_errors(i):
            refuse_mode(image_format.mode)
        return image_format

    def read(self, i: int) -> Stored:
        """The decoded image, after checking its mode and, in subclasses, its target."""
        image = self.image(i)
        with self.name_errors(i):
            refuse_mode(get_stored_mode(image))
        return image

    def check(self, i: int) -> None:
        """Raises `ValueError` for an image that cannot be used; JPEGs are decoded at an eighth of their size."""
        self.format(i, decode=not self.is_decoded)

    @property
    def is_decoded_by_check(self) -> bool:
        """Whether a check decodes all images. For larger data sets it reads only headers."""
        return len(self) <= DECODED

    @cached_property
    def formats(self) -> frozenset[Format]:
        """The distinct sizes and modes in the headers of all images, or of 50,000 evenly spaced ones.

        Raises `ValueError` that names the first image whose header cannot be used, and counts the others.
        """
        formats, self._sizes = self._read_headers(self.sample(HEADERS))
        return formats

    def read_sizes(self) -> Int32[np.ndarray, "n 2"]:
        """The (height, width) in the headers of all images, which are read once. Errors as in `formats`."""
        if len(self._sizes) != len(self):
            _, self._sizes = self._read_headers(range(len(self)))
        return self._sizes

    @cached_property
    def _sizes(self) -> Int32[np.ndarray, "m 2"]:
        """The (height, width) of the images whose headers were read."""
        return np.zeros((0, 2), np.int32)

    def _read_headers(self, indices: Sequence[int]) -> tuple[frozenset[Format], Int32[np.ndarray, "m 2"]]:
        """The distinct sizes and modes of some images, and the (height, width) of each."""
        numbers: dict[Format, int] = {}
        order, errors = [], []
        for formats, block_errors in map_blocks(self._read_formats, indices):
            order += [numbers.setdefault(each, len(numbers)) for each in formats]
            errors += block_errors
        if errors:
            raise ValueError(summarize_errors(errors))
        sizes = np.array([(each.height, each.width) for each in numbers], np.int32).reshape(-1, 2)
        return frozenset(numbers), sizes[order]

    def find_value_range(self, channels: int) -> Range | list[Range]:
        """The range of the values of 1,000 images, evenly spaced, without the 1 in 10,000 at either end.

        One range for gray and RGB, else one for each of `channels`; 0 to 255 where a channel has 8 bits. NaN and
        infinities do not count.
        """
        if channels not in self._value_ranges:
            blocks = map_blocks(lambda block: self._sample_values(block, channels), self.sample(SAMPLED_IMAGES))
            samples = [sample for block in blocks for sample in block]
            if channels in (1, 3):
                self._value_ranges[channels] = _find_range([sample.ravel() for sample in samples])
            else:
                columns = [[sample[:, k] for sample in samples] for k in range(channels)]
                self._value_ranges[channels] = [_find_range(column) for column in columns]
        return self._value_ranges[channels]

    @cached_property
    def _value_ranges(self) -> dict[int, Range | list[Range]]:
        """What `find_value_range` found, by channels."""
        return {}

    def _sample_values(self, block: Sequence[int], channels: int) -> list[np.ndarray]:
        """Values (n, c) of some images; of those with other than `channels` only where these share a range."""
        samples = []
        for i in block:
            with suppress(ValueError):  # a check will name images that cannot be read
                image = self.image(i)
                values = get_values(image, channels)
                if values.shape[2] == channels or (channels in (1, 3) and is_deep(get_stored_mode(image))):
                    pixels, wanted = values.reshape(-1, values.shape[2]), SAMPLED_PIXELS * 4 // max(channels, 4)
                    samples.append(pixels[:: len(pixels) // max(wanted, 1) | 1].copy())  # an odd step
        return samples

    def _read_formats(self, block: Sequence[int]) -> tuple[list[Format], list[str]]:
        formats, errors = [], []
        for i in block:
            try:
                formats.append(self.format(i))
            except ValueError as error:
                errors.append(str(error))
        return formats, errors

    def counts(self) -> Int64[Tensor, " k"]:
        """Images per class."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    def count_labels(self) -> LabelCounts:
        """How many labels each class has."""
        counts = self.counts()
        return LabelCounts(counts, counts)

    def groups(self) -> list[Int64[Tensor, " members"]]:
        """The indices of each class, in order. `data.val_fraction` and `data.limit` take equal shares of each group."""
        return list(torch.argsort(self.labels, stable=True).split(self.counts().tolist()))

    def find_classes(self, i: int) -> list[int] | None:
        """The class indices of image `i`; None where every pixel has one, or labels are something else."""
        return [int(self.labels[i])] if self.labels.ndim == 1 else None

    def describe_label(self, i: int) -> str | None:
        """The classes of image `i` in words; None where it has none of its own."""
        indices = self.find_classes(i)
        return None if indices is None else ", ".join(self.classes[k] for k in indices) or "no class"

    @property
    def has_one_label(self) -> bool:
        """Whether each image has one class."""
        return self.labels.ndim == 1 and len(self) > 0 and self.find_classes(0) is not None

    def find_first(self, k: int) -> int:
        """The first image of class `k`, which has one."""
        return int((self.labels == k).nonzero()[0])

    def find_present_classes(self) -> list[int]:
        """The class indices that occur, as far as this is known before opening an image."""
        return self.labels.unique().tolist()

    def find_absent_classes(self) -> list[int]:
        """The class indices that do not occur, as far as this is known before opening an image."""
        return (self.counts() == 0).nonzero().flatten().tolist()

    def is_all_ignored(self) -> bool:
        """Whether no image or pixel has a label, as far as they were read."""
        return False

    def describe_single_class(self) -> str | None:
        """Why there is nothing to tell apart: all that has a label is of one class. None if that is not so."""
        return None

    def describe_labels(self) -> list[str]:
        """Sentences for the user about what reading the labels has shown."""
        absent = [self.classes[k] for k in self.find_absent_classes()]
        if not absent:
            return []
        verb = "lacks" if len(self) == 1 else "has"
        return [f"{say_some(0, len(self), 'image', self.name(0))} {verb} the class {quote_names(absent)}"]

    def describe_for_card(self) -> dict[str, Any]:
        """What student.json records about the labels besides the class names."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Data settings that record what was found out about the labels."""
        return {}

    def sample(self, most: int) -> list[int]:
        """At most so many indices, evenly spaced; of images in blocks, those of few evenly spaced blocks."""
        if self.blocks is None:
            return select_evenly(len(self), most)
        numbers = self.blocks.numbers.unique()
        chosen = numbers[select_evenly(len(numbers), SAMPLED_BLOCKS)]
        inside = torch.isin(self.blocks.numbers, chosen).nonzero().flatten()
        return inside[select_evenly(len(inside), most)].tolist()

    def subset(self, indices: Int64[Tensor, " n"]) -> "Subset":
        """Some of the images, in the order of `indices`."""
        return Subset(self, indices)

    def renumber(self, classes: tuple[str, ...], indices: Int64[Tensor, " k"]) -> "LabeledDataset":
        """The same images, with class `k` renumbered as `indices[k]` of `classes`; -1 for a class without images."""
        renumbered = copy.copy(self)
        renumbered.classes, renumbered.labels = classes, indices[self.labels]
        return renumbered

    def key(self, i: int) -> str:
        """`name` without what differs between machines."""
        return self.name(i)

    def size(self, i: int) -> int:
        """Bytes of the stored image."""
        source = self.source(i)
        if isinstance(source, str):
            return os.path.getsize(source)
        return len(source) if isinstance(source, bytes) else source.width * source.height * len(source.getbands())

    def fingerprint(self) -> str:
        """Hex digest of classes, names, labels and sizes in bytes. It does not depend on the machine."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for i, label in enumerate(self.labels.tolist()):
            digest.update(f"\n{self.key(i)}\t{label}\t{self.size(i)}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


class Subset(LabeledDataset):
    """Some images of another data set, in the order of `indices`."""

    def __init__(self, dataset: LabeledDataset, indices: Int64[Tensor, " n"]) -> None:
        self.dataset, self.indices = dataset, indices
        self.max_megapixels, self.channels = dataset.max_megapixels, dataset.channels
        self.classes, self.labels, self.mirrorable = dataset.classes, dataset.labels[indices], dataset.mirrorable
        self.blocks = None if dataset.blocks is None else dataset.blocks.select(indices)

    def source(self, i: int) -> Source:
        return self.dataset.source(int(self.indices[i]))

    def name(self, i: int) -> str:
        return self.dataset.name(int(self.indices[i]))

    def key(self, i: int) -> str:
        return self.dataset.key(int(self.indices[i]))

    def size(self, i: int) -> int:
        return self.dataset.size(int(self.indices[i]))

    def settings(self) -> dict[str, Any]:
        return self.dataset.settings()

    def subset(self, indices: Int64[Tensor, " n"]) -> "Subset":
        return self.dataset.subset(self.indices[indices])


class RelabeledDataset(LabeledDataset):
    """The images of another data set, with labels of its own."""

    def __init__(self, images: LabeledDataset) -> None:
        self.images, self.mirrorable, self.blocks = images, images.mirrorable, images.blocks
        self.max_megapixels, self.channels = images.max_megapixels, images.channels

    def set_limits(self, max_megapixels: float, channels: int) -> None:
        super().set_limits(max_megapixels, channels)
        self.images.set_limits(max_megapixels, channels)

    def source(self, i: int) -> Source:
        return self.images.source(i)

    def name(self, i: int) -> str:
        return self.images.name(i)

    def key(self, i: int) -> str:
        return self.images.key(i)


class ImageFileDataset(LabeledDataset):
    """Image files; `paths` are relative to `root`, or absolute."""

    def __init__(
        self,
        root: str,
        paths: Sequence[str],
        labels: Sequence[int] | Tensor,
        *,
        classes: Sequence[str],
        mirrorable: bool = True,
    ) -> None:
        self.root, self.paths, self.mirrorable = root, paths, mirrorable
        self.labels, self.classes = torch.as_tensor(labels, dtype=torch.int64), tuple(classes)

    def source(self, i: int) -> str:
        return os.path.join(self.root, self.paths[i])

    def name(self, i: int) -> str:
        return self.source(i)

    def key(self, i: int) -> str:
        return self.paths[i]


class PairDataset(LabeledDataset):
    """Images of a data set that yields (decoded image, label) pairs, for example from memory."""

    def __init__(
        self, pairs: Any, labels: Sequence[int] | Tensor, *, classes: Sequence[str], title: str, mirrorable: bool
    ) -> None:
        self.pairs, self.title, self.mirrorable = pairs, title, mirrorable
        self.labels, self.classes = torch.as_tensor(labels, dtype=torch.int64), tuple(classes)

    def source(self, i: int) -> Image.Image:
        return self.pairs[i][0]

    def name(self, i: int) -> str:
        return f"row {i} of {self.title}"


def _find_range(samples: Sequence[np.ndarray]) -> Range:
    """The range of values, in whole numbers if all of them are; a range of one value gets a width of 1."""
    if samples and all(sample.dtype == np.uint8 for sample in samples):
        return 0.0, 255.0
    values = np.concatenate([np.zeros(0), *samples])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, (OUTSIDE, 1 - OUTSIDE)).tolist() if values.size else (0.0, 1.0)
    if (values == np.round(values)).all():
        low, high = float(math.floor(low)), float(math.ceil(high))
    return low, high if high > low else low + 1.0


def quote_names(names: Sequence[str], max_names: int = 5) -> str:
    """Lists the first names, for a sentence.

    >>> quote_names(["a", "b", "c"], max_names=2)
    "'a', 'b' and 1 more"
    """
    listed = ", ".join(repr(name) for name in names[:max_names])
    return listed + (f" and {len(names) - max_names} more" if len(names) > max_names else "")


def summarize_errors(errors: Sequence[str]) -> str:
    """The first error, and the number of others.

    >>> summarize_errors(["a.png is empty", "b.png is empty"])
    'a.png is empty (and 1 more such image)'
    """
    return errors[0] + (f" (and {count_of(len(errors) - 1, 'more such image')})" if len(errors) > 1 else "")


def say_some(number: int, total: int, noun: str, first: str) -> str:
    """How many of all images or masks, the first of which is named, as the subject of a sentence.

    >>> say_some(0, 5, "mask", "0.png"), say_some(1, 1, "mask", "0.png")
    ('none of the 5 masks from 0.png on', 'the only mask, 0.png,')
    """
    if total == 1:
        return f"the only {noun}, {first},"
    return f"{number or 'none'} of the {count_of(total, noun)} from {first} on"


def select_evenly(count: int, most: int) -> list[int]:
    """All of `range(count)`, or `most` of them evenly spaced.

    >>> select_evenly(10, 4)
    [0, 2, 5, 7]
    """
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]
