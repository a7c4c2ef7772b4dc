"""Images with masks, and the class index of every pixel."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from .base import (
    DECODED,
    LabelCounts,
    LabeledDataset,
    RelabeledDataset,
    Sample,
    Subset,
    quote_names,
    say_some,
)
from .conversion import Stored
from .image_io import Format, is_turned, read_format, read_image
from .label_map import IGNORE_INDEX, LabelMap
from .mask_values import (
    BORDER,
    Color,
    choose_distinct_colors,
    find_distinct_values,
    read_mask_values,
    read_palette_colors,
    say_palette,
)
from .palettes import find_known_colors
from .threads import map_blocks

COUNTED = 1000  # masks whose pixels are counted for class weights, at most
UNKNOWN = -1  # marks values without a meaning in a table of class indices


class RawMaskDataset(RelabeledDataset):
    """Images and their masks, before the meaning of the mask values is known."""

    shares: ClassVar[str] = "the images of"

    def __init__(self, images: LabeledDataset, masks: LabeledDataset) -> None:
        assert len(images) == len(masks)
        super().__init__(images)
        self.masks, self.classes = masks, ()
        self.labels = torch.zeros(len(images), dtype=torch.int64)  # unused: every pixel has a label
        self.palette: dict[int, Color] = {}
        self.known_values: dict[str, frozenset[int]] = {}  # by the mask's name, because reading masks takes long
        self.known_colors: dict[int, tuple[Color, str]] = {}  # of a number in palettes, and the mask that showed it

    def set_limits(self, max_megapixels: float, channels: int) -> None:
        super().set_limits(max_megapixels, channels)
        self.masks.set_limits(max_megapixels, 1)

    def mask_name(self, i: int) -> str:
        """The mask of image `i` in words, also if it is in the same table row as its image."""
        name = self.masks.name(i)
        return f"the mask of {name}" if name == self.name(i) else name

    def find_classes(self, i: int) -> list[int] | None:
        return None

    def groups(self) -> list[Int64[Tensor, " members"]]:
        return [torch.arange(len(self))]

    def find_present_classes(self) -> list[int]:
        return []

    def find_absent_classes(self) -> list[int]:
        return []

    def format(self, i: int, *, decode: bool = False) -> Format:
        """As for images without masks. Also checks the size of the mask, and its values if it is decoded.

        The masks of data sets up to 5,000 images are decoded later, so their headers are not read here.
        """
        image_format = super().format(i, decode=decode)
        if decode:
            self.read_values(i, image_format.size)
        elif not self.is_decoded_by_check:
            header = read_format(self.masks.source(i), self.mask_name(i), max_megapixels=self.masks.max_megapixels)
            self._compare_sizes(i, header.size, image_format.size)
        return image_format

    def check(self, i: int) -> None:
        image_format = self.format(i, decode=not self.is_decoded)
        self.read_values(i, image_format.size)  # whose meaning was not known when the mask was decoded before

    def read(self, i: int) -> Stored:
        """As for images without masks. Also checks the size and the values of the mask."""
        image = super().read(i)
        self.read_values(i, image.size)
        return image

    def read_values(self, i: int, image_size: tuple[int, int] | None = None) -> frozenset[int]:
        """Reads the distinct values in the mask of image `i`; `image_size` as in `mask_values`.

        Raises `ValueError` also for a number that has another color in the palette of this mask than in that of
        another one, unless the colors are the labels.
        """
        name = self.masks.name(i)
        if name not in self.known_values:
            mask = self._read_mask(i, image_size)
            values = frozenset(find_distinct_values(self._read_values(i, mask)))
            if not self.palette:
                self._compare_palettes(i, read_palette_colors(mask))
            self.known_values[name] = values
        return self.known_values[name]

    def is_void(self, value: int) -> bool:
        """Whether a mask value is void, as far as this is known."""
        return value == BORDER

    def _compare_palettes(self, i: int, colors: dict[int, Color]) -> None:
        for number, color in colors.items():
            if self.is_void(number):
                continue
            other, name = self.known_colors.setdefault(number, (color, self.mask_name(i)))
            if other != color:
                raise ValueError(
                    f"{name} shows the number {number} in the color {other} and {self.mask_name(i)} in {color}, so the"
                    " numbers of these palettes are no classes; name the colors in data.palette, a CSV of name, r, g, b"
                )

    def mask_values(self, i: int, image_size: tuple[int, int] | None = None) -> np.ndarray:
        """The integers (h, w) in the mask of image `i`. Raises `ValueError` for a mask of another size.

        `image_size` is the image's (width, height); None reads the image's header.
        """
        return self._read_values(i, self._read_mask(i, image_size))

    def _read_mask(self, i: int, image_size: tuple[int, int] | None) -> Stored:
        mask = self._decode_mask(i)
        self._compare_sizes(i, mask.size, image_size or self.images.format(i).size)
        return mask

    def _decode_mask(self, i: int) -> Stored:
        return read_image(self.masks.source(i), self.mask_name(i), max_megapixels=self.masks.max_megapixels)

    def _read_values(self, i: int, mask: Stored) -> np.ndarray:
        try:
            return read_mask_values(mask, self.palette)
        except ValueError as error:
            raise ValueError(f"{self.mask_name(i)} {error}") from None

    def _compare_sizes(self, i: int, mask_size: tuple[int, int], image_size: tuple[int, int]) -> None:
        if mask_size != image_size:
            raise ValueError(
                f"{self.mask_name(i)} is {mask_size[0]}x{mask_size[1]} pixels large, and its image {self.name(i)}"
                f" {image_size[0]}x{image_size[1]}; they must have the same size"
            )

    def subset(self, indices: Int64[Tensor, " n"]) -> "RawMaskDataset":
        chosen = RawMaskDataset(self.images.subset(indices), self.masks.subset(indices))
        chosen.palette = self.palette
        return chosen

    def apply_label_map(self, label_map: LabelMap) -> "MaskDataset":
        """The same images and masks, with values read by a label map."""
        dataset = MaskDataset(self.images, self.masks, label_map)
        if label_map.palette == self.palette:
            dataset.known_values, dataset.known_colors = self.known_values, self.known_colors
        return dataset


class MaskDataset(RawMaskDataset):
    """Images with a class index for every pixel.

    `mask(i)` holds indices of `classes`, and -100 for ignored pixels.
    """

    def __init__(self, images: LabeledDataset, masks: LabeledDataset, label_map: LabelMap) -> None:
        super().__init__(images, masks)
        self.label_map, self.classes, self.palette = label_map, label_map.classes, label_map.palette
        self._label_counts: LabelCounts | None = None

    def __getitem__(self, i: int) -> Sample:
        """The decoded image, and its mask as the target."""
        image = self.image(i)
        return Sample(image, self.mask(i, image.size))

    def mask(self, i: int, image_size: tuple[int, int] | None = None) -> Int64[Tensor, "h w"]:
        """Class indices of the pixels of image `i`, -100 for ignored pixels.

        `image_size` as in `mask_values`.
        """
        values, (table, first) = self.mask_values(i, image_size), self._table
        if values.dtype == np.uint8:  # the table covers all of these values; other types are clipped to its ends
            indices = table[-first:][values]
        else:
            indices = table[np.clip(values.astype(np.int64), first, first + len(table) - 1) - first]
        if (indices == UNKNOWN).any():
            self._refuse(i, int(values[indices == UNKNOWN][0]))
        return torch.from_numpy(indices)

    @cached_property
    def _table(self) -> tuple[np.ndarray, int]:
        """The class indices of consecutive values, and the first value.

        The values include 0 to 255. The first and the last value have no meaning.
        """
        known = self.label_map.index
        first = min(0, *known) - 1
        table = np.full(max(255, *known) + 2 - first, UNKNOWN, dtype=np.int64)
        table[[value - first for value in known]] = list(known.values())
        return table, first

    def _refuse(self, i: int, value: int) -> None:
        raise ValueError(f"{self.mask_name(i)} {self.label_map.refuse(value)}")

    def read_values(self, i: int, image_size: tuple[int, int] | None = None) -> frozenset[int]:
        values = super().read_values(i, image_size)
        for value in sorted(values - self.label_map.index.keys()):
            self._refuse(i, value)
        return values

    @property
    def values(self) -> tuple[int, ...]:
        """The mask value of each class; -1 for a class that only masks of another source have."""
        return self.label_map.values

    @cached_property
    def colors(self) -> tuple[Color, ...]:
        """The color (r, g, b) of each class: from the palette, the masks or the published ones; else well separated."""
        palette = self.label_map.palette or self._read_palette()
        colors = tuple(palette[value] for value in self.values if value in palette)
        if len(set(colors)) == len(self.classes):
            return colors
        return find_known_colors(self.classes) or choose_distinct_colors(len(self.classes))

    def is_void(self, value: int) -> bool:
        return value in (self.label_map.ignored or ())

    def _read_palette(self) -> dict[int, Color]:
        """Reads the palette in the file of the first mask."""
        mask = self._decode_mask(0) if len(self) else None
        if mask is None or mask.mode != "P":
            return {}
        palette = mask.getpalette("RGB") or []
        return {value: tuple(palette[3 * value : 3 * value + 3]) for value in range(len(palette) // 3)}

    def counts(self) -> Int64[Tensor, " k"]:
        """The number of images with a pixel of each class; reads every mask once."""
        counts = torch.zeros(len(self.classes), dtype=torch.int64)
        for i in range(len(self)):
            present = {self.label_map.index[value] for value in self.read_values(i)} - {IGNORE_INDEX}
            counts[list(present)] += 1
        return counts

    def count_labels(self) -> LabelCounts:
        """The labeled pixels of each class in all masks, or in 1,000 evenly spaced ones, and the masks that show it."""
        if self._label_counts is None:
            indices = self.sample(COUNTED)
            blocks = map_blocks(self._count_pixels, indices)
            pixels = torch.cat(blocks)
            sampled = None if len(indices) == len(self) else len(indices)
            self._label_counts = LabelCounts(pixels.sum(dim=0), (pixels > 0).sum(dim=0), sampled)
        return self._label_counts

    def _count_pixels(self, block: Sequence[int]) -> Int64[Tensor, "images k"]:
        masks = [self.mask(i) for i in block]
        return torch.stack([torch.bincount(mask[mask >= 0], minlength=len(self.classes)) for mask in masks])

    def is_all_ignored(self) -> bool:
        return self.is_decoded_by_check and not self.counts().any()

    def describe_single_class(self) -> str | None:
        present = self.counts().nonzero().flatten().tolist() if self.is_decoded_by_check else []
        if len(present) != 1:
            return None
        name = self.classes[present[0]]
        if not self.is_void(BORDER) or all(BORDER not in self.read_values(i) for i in range(len(self))):
            return f"no pixel of the masks from {self.mask_name(0)} on has another class than {name!r}"
        value = self.values[present[0]]
        return (
            f"the masks from {self.mask_name(0)} on hold the value {value} ({name}) and {BORDER}, which is void;"
            f" {say_palette([value, BORDER], {number: color for number, (color, _) in self.known_colors.items()})}"
        )

    def describe_labels(self) -> list[str]:
        """Sentences on classes without a pixel, masks without a class, and masks that may lie the wrong way."""
        return [*self._describe_counts(), *self._describe_turned()]

    def _describe_turned(self) -> list[str]:
        indices = self.sample(DECODED)
        turned = sum(is_turned(self.images.source(i)) and not is_turned(self.masks.source(i)) for i in indices)
        if not turned:
            return []
        upright = "their masks, which do not, are taken as drawn on the upright image"
        of = say_some(turned, len(indices), "image", self.name(0))
        return [f"{of} {'is turned by its' if turned == 1 else 'are turned by their'} EXIF orientation; {upright}"]

    def _describe_counts(self) -> list[str]:
        """Sentences on classes without a pixel and masks without a class; none for large data sets."""
        if not self.is_decoded_by_check:
            return []
        missing = [self.classes[k] for k in (self.counts() == 0).nonzero().flatten().tolist()]
        ignored = self.label_map.ignored or frozenset()
        empty = sum(self.read_values(i) <= ignored for i in range(len(self)))
        none, some = (say_some(number, len(self), "mask", self.mask_name(0)) for number in (0, empty))
        lacks, have = "lacks" if len(self) == 1 else "has", "has" if empty == 1 else "have"
        return [f"{none} {lacks} a pixel of the class {quote_names(missing)}"] * bool(missing) + [
            f"{some} {have} no pixel of any class, only void"
        ] * bool(empty)

    def settings(self) -> dict[str, Any]:
        """`classes` and `void` of a recipe that gives the mask values the same meaning."""
        return {**self.images.settings(), **self.label_map.settings()}

    def describe_for_card(self) -> dict[str, Any]:
        return {"masks": {"values": list(self.values), "colours": [list(color) for color in self.colors]}}

    def subset(self, indices: Int64[Tensor, " n"]) -> "MaskSubset":
        return MaskSubset(self, indices)

    def renumber(self, classes: tuple[str, ...], indices: Int64[Tensor, " k"]) -> "MaskDataset":
        """As for any data set; reading a pixel of a class that `classes` lacks raises an error that names the file."""
        return self.apply_label_map(self.label_map.renumber(classes, indices.tolist()))

    def fingerprint(self) -> str:
        """Hex digest of images, masks and the meaning of mask values."""
        meaning = sorted(self.label_map.index.items())
        parts = [self.classes, meaning, self.images.fingerprint(), self.masks.fingerprint()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class MaskSubset(MaskDataset, Subset):
    """Some images of another data set, with their masks."""

    def __init__(self, dataset: MaskDataset, indices: Int64[Tensor, " n"]) -> None:
        MaskDataset.__init__(self, dataset.images.subset(indices), dataset.masks.subset(indices), dataset.label_map)
        self.dataset, self.indices = dataset, indices
        self.known_values, self.known_colors = dataset.known_values, dataset.known_colors

    def subset(self, indices: Int64[Tensor, " n"]) -> "MaskSubset":
        return self.dataset.subset(self.indices[indices])
