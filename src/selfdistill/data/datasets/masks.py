"""Images with a mask: what masks store, what that means, and the class number of every pixel."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ...errors import nearest
from .base import DECODED, Rows, Subset
from .image_io import Format, Source, read_format, read_image
from .labels import shortened
from .mask_values import Colour, different, separated_colours, stored_values

VOID = -100  # `Task.void`: the class number of pixels that count for nothing
UNKNOWN = -1


class Legend(NamedTuple):
    """What the values that masks store mean."""

    classes: tuple[str, ...]
    numbers: dict[int, int]  # value -> class number, or -100 for one that counts for nothing
    colours: dict[int, Colour]  # of values, where the data says; masks in colour are read by them
    names: dict[int, str]  # of values, void ones included where they have a name

    def refuse(self, value: int) -> ValueError:
        """The error for a value that has no meaning, or that of a class of another source alone."""
        if value in self.names:
            return ValueError(
                f"holds the class {self.names[value]!r} (value {value}), which is none of the"
                f" {len(self.classes)} to tell apart{nearest(self.names[value], self.classes)}"
            )
        known = _ranges([each for each, number in self.numbers.items() if number != VOID])
        void = _ranges([each for each, number in self.numbers.items() if number == VOID]) or "none"
        return ValueError(
            f"holds the value {value}, which is neither a class (values {known}) nor void ({void});"
            " name it in data.classes or in data.void"
        )


class Pairs(Rows):
    """Images and masks row by row, before it is known what the masks' values mean."""

    shares: ClassVar[str] = "the images of"

    def __init__(self, images: Rows, masks: Rows) -> None:
        assert len(images) == len(masks)
        self.images, self.masks = images, masks
        self.classes, self.reflectable = (), images.reflectable
        self.labels = torch.zeros(len(images), dtype=torch.int64)  # one number per image says nothing here
        self.colours_of_values: dict[int, Colour] = {}
        self.cache: dict[str, frozenset[int]] = {}  # values by the mask's name, since reading masks costs most

    def source(self, i: int) -> Source:
        return self.images.source(i)

    def name(self, i: int) -> str:
        return self.images.name(i)

    def key(self, i: int) -> str:
        return self.images.key(i)

    def mask_name(self, i: int) -> str:
        """The mask of row `i` in words, also where it lies in the same row of a table as its image."""
        name = self.masks.name(i)
        return f"the mask of {name}" if name == self.name(i) else name

    def groups(self) -> list[Int64[Tensor, " members"]]:
        return [torch.arange(len(self))]

    def present(self) -> list[int]:
        return []

    def absent(self) -> list[int]:
        return []

    def format(self, i: int, *, decode: bool = False) -> Format:
        """As of images alone; the mask must have the image's size, and values that are known where it is decoded."""
        found = super().format(i, decode=decode)
        if decode:
            self.values_in(i)
        else:
            header = read_format(self.masks.source(i), self.mask_name(i), turn=False)
            self._compare(i, (header.width, header.height), found)
        return found

    def values_in(self, i: int) -> frozenset[int]:
        """The different values that the mask of row `i` stores."""
        name = self.masks.name(i)
        if name not in self.cache:
            self.cache[name] = frozenset(different(self.stored(i)))
        return self.cache[name]

    def stored(self, i: int) -> np.ndarray:
        """The whole numbers (h, w) that the mask of row `i` stores; `ValueError` for a mask that does not fit."""
        mask = read_image(self.masks.source(i), self.mask_name(i), turn=False)
        self._compare(i, mask.size, self.images.format(i))
        try:
            return stored_values(mask, self.colours_of_values)
        except ValueError as error:
            raise ValueError(f"{self.mask_name(i)} {error}") from None

    def _compare(self, i: int, size: tuple[int, int], image: Format) -> None:
        if size != (image.width, image.height):
            raise ValueError(
                f"{self.mask_name(i)} is {size[0]}x{size[1]} pixels large, and its image {self.name(i)}"
                f" {image.width}x{image.height}; they must have the same size"
            )

    def read_by(self, legend: Legend) -> "MaskRows":
        """The same rows, now that it is known what the values mean."""
        rows = MaskRows(self.images, self.masks, legend)
        if legend.colours == self.colours_of_values:
            rows.cache = self.cache
        return rows


class MaskRows(Pairs):
    """Images with a class number for every pixel.

    `classes` are those that count: the numbers in `mask(i)`, which is -100 elsewhere. `values` are what the masks store
    for them, and `colours` what they are shown in.
    """

    def __init__(self, images: Rows, masks: Rows, legend: Legend) -> None:
        super().__init__(images, masks)
        self.legend, self.classes, self.colours_of_values = legend, legend.classes, legend.colours

    def shown(self, i: int, transform: Callable[..., Any]) -> tuple[Any, Any]:
        """What `transform(image, mask)` makes of row `i`; its `ValueError`s name the row."""
        image, mask = self.image(i), self.mask(i)
        with self.named(i):
            return transform(image, mask)

    def mask(self, i: int) -> Int64[Tensor, "h w"]:
        """Class numbers of the pixels of row `i`, -100 for those that count for nothing."""
        values, (table, first) = self.stored(i), self._table
        if values.dtype == np.uint8:  # which the table covers; of others, what lies outside meets one of its ends
            numbers = table[-first:][values]
        else:
            numbers = table[np.clip(values.astype(np.int64), first, first + len(table) - 1) - first]
        if (numbers == UNKNOWN).any():
            self._refuse(i, int(values[numbers == UNKNOWN][0]))
        return torch.from_numpy(numbers)

    @cached_property
    def _table(self) -> tuple[np.ndarray, int]:
        """The class numbers of consecutive values, those of a byte among them, and the first of these values.

        The first and the last are values without a meaning.
        """
        known = self.legend.numbers
        first = min(0, *known) - 1
        table = np.full(max(255, *known) + 2 - first, UNKNOWN, dtype=np.int64)
        table[[value - first for value in known]] = list(known.values())
        return table, first

    def _refuse(self, i: int, value: int) -> None:
        raise ValueError(f"{self.mask_name(i)} {self.legend.refuse(value)}")

    def values_in(self, i: int) -> frozenset[int]:
        found = super().values_in(i)
        for value in sorted(found - self.legend.numbers.keys()):
            self._refuse(i, value)
        return found

    @cached_property
    def values(self) -> tuple[int, ...]:
        """The stored value of each class; -1 for a class that only another source's masks have."""
        stored = {number: value for value, number in reversed(self.legend.numbers.items())}
        return tuple(stored.get(k, -1) for k in range(len(self.classes)))

    @cached_property
    def colours(self) -> tuple[Colour, ...]:
        """A colour (r, g, b) for each class: the palette's, else the masks' own, else well separated ones."""
        colours = self.legend.colours or self._own_colours()
        found = tuple(colours[value] for value in self.values if value in colours)
        distinct = len(set(found)) == len(self.classes)
        return found if distinct else separated_colours(len(self.classes))

    def _own_colours(self) -> dict[int, Colour]:
        """The palette that the first mask brings along."""
        mask = read_image(self.masks.source(0), self.mask_name(0), turn=False) if len(self) else None
        if mask is None or mask.mode != "P":
            return {}
        palette = mask.getpalette("RGB") or []
        return {value: tuple(palette[3 * value : 3 * value + 3]) for value in range(len(palette) // 3)}

    def counts(self) -> Int64[Tensor, " k"]:
        """Images in which a class has a pixel; every mask is read, once."""
        counts = torch.zeros(len(self.classes), dtype=torch.int64)
        for i in range(len(self)):
            numbers = {self.legend.numbers[value] for value in self.values_in(i)} - {VOID}
            counts[list(numbers)] += 1
        return counts

    def all_void(self) -> bool:
        return len(self) <= DECODED and not self.counts().any()

    def remarks(self) -> list[str]:
        """On classes without a pixel and masks without a class; of large sets, whose masks are not read, nothing."""
        if len(self) > DECODED:
            return []
        where = f"of the {len(self)} masks from {self.mask_name(0)} on"
        missing = [self.classes[k] for k in (self.counts() == 0).nonzero().flatten().tolist()]
        void = {value for value, number in self.legend.numbers.items() if number == VOID}
        empty = sum(self.values_in(i) <= void for i in range(len(self)))
        return [f"none {where} has a pixel of the class {shortened(missing)}"] * bool(missing) + [
            f"{empty} {where} have no pixel of any class: all of them are void"
        ] * bool(empty)

    def settings(self) -> dict[str, Any]:
        """`classes` and `void` of a recipe that reads these masks' values in the same way."""
        names = self.legend.names
        classes = [names.get(value, "void") for value in range(max(names) + 1)]
        return {"classes": classes, "void": sorted(v for v, number in self.legend.numbers.items() if number == VOID)}

    def about(self) -> dict[str, Any]:
        return {"masks": {"values": list(self.values), "colours": [list(colour) for colour in self.colours]}}

    def subset(self, indices: Int64[Tensor, " n"]) -> "MaskSubset":
        return MaskSubset(self, indices)

    def renumbered(self, classes: tuple[str, ...], numbers: Int64[Tensor, " k"]) -> "MaskRows":
        """Classes that `classes` lacks lose their meaning: a pixel of one is an error that names the file."""
        fresh = {v: number if number == VOID else int(numbers[number]) for v, number in self.legend.numbers.items()}
        kept = {value: number for value, number in fresh.items() if number != UNKNOWN}
        return self.read_by(self.legend._replace(classes=classes, numbers=kept))

    def fingerprint(self) -> str:
        """Hex digest of images, masks and what the masks' values mean."""
        parts = [self.classes, sorted(self.legend.numbers.items()), self.images.fingerprint(), self.masks.fingerprint()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class MaskSubset(MaskRows, Subset):
    """Some rows of another set of images with masks."""

    def __init__(self, rows: MaskRows, indices: Int64[Tensor, " n"]) -> None:
        MaskRows.__init__(self, rows.images.subset(indices), rows.masks.subset(indices), rows.legend)
        self.rows, self.indices, self.cache = rows, indices, rows.cache

    def subset(self, indices: Int64[Tensor, " n"]) -> "MaskSubset":
        return self.rows.subset(self.indices[indices])


def _ranges(values: Sequence[int]) -> str:
    """Numbers in few words.

    >>> _ranges([0, 1, 2, 5, 255])
    '0 to 2, 5, 255'
    """
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
