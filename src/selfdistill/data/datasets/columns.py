"""The columns of Parquet files and of data sets of the Hub: which hold images, and which labels or masks."""

import bisect
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ...config.recipe import DataPart
from .base import LabeledDataset, quote_names
from .image_io import Source
from .labels import number_labels
from .masks import RawMaskDataset
from .opener import LOCAL, FileOpener
from .parquet_blocks import BlockColumn
from .table import IMAGE_NAMES, LABEL_NAMES, MASK_NAMES, find_column
from .text_files import find_spelling


class ColumnReader(NamedTuple):
    """How the columns of a table become a data set."""

    find: Callable[..., tuple[str, ...]]  # takes features and origin; gives the columns to read, the image's first
    read: Callable[..., LabeledDataset | None]  # takes table, features, these columns and origin; None: no labels
    holds_labels: bool = True  # whether the columns behind the first are labels, which fit in memory


class WantedColumns(NamedTuple):
    """The columns that the user named, if any, and what reads them; None: one label for each image."""

    reader: ColumnReader | None = None
    image_column: str | None = None
    label_column: str | Sequence[str] | None = None
    separator: str | None = None  # of labels in text
    at_once: int = 0  # row groups that images are taken from at a time; 0: all, from memory or a cache
    opener: FileOpener = LOCAL

    @classmethod
    def of(cls, settings: DataPart, reader: ColumnReader | None = None) -> "WantedColumns":
        """What the data settings say."""
        columns = (settings.image_column, settings.label_column, settings.separator)
        return cls(reader, *columns, settings.blocks_at_once, FileOpener(settings.opener))


LABELS = WantedColumns()


class Origin(NamedTuple):
    """Where a table comes from, and which columns to read."""

    parts: list[tuple[str, int]]  # (file or split, number of rows), in order
    folder: str  # paths in the image column are relative to it
    wanted: WantedColumns

    @property
    def name(self) -> str:
        return self.parts[0][0]


class TableDataset(LabeledDataset):
    """Rows of an Arrow table whose image column holds encoded bytes, or paths."""

    def __init__(self, images: Any, origin: Origin) -> None:
        self.images, self.origin, self.classes = images, origin, ()
        self.labels = torch.zeros(len(images), dtype=torch.int64)
        self.ends = list(itertools.accumulate(count for _, count in origin.parts))
        self.blocks = images.blocks if isinstance(images, BlockColumn) else None

    def value(self, i: int) -> Any:
        """The stored value of row `i`: bytes, a path, or None."""
        value = self.images[i].as_py()
        if isinstance(value, dict):
            return value.get("path") if value.get("bytes") is None else value["bytes"]
        return value

    def source(self, i: int) -> Source:
        value = self.value(i)
        if value is None:
            raise ValueError(f"{self.name(i)} holds no image")
        if not isinstance(value, str):
            return value
        return os.path.join(self.origin.folder, find_spelling(self.origin.folder, value) or value)

    def name(self, i: int) -> str:
        number = bisect.bisect_right(self.ends, i)
        title, count = self.origin.parts[number]
        return f"row {i - self.ends[number] + count} of {title}"

    def key(self, i: int) -> str:
        return str(i)

    def size(self, i: int) -> int:
        return self.images.size(i) if isinstance(self.images, BlockColumn) else super().size(i)


def _find_label_columns(features: Any, origin: Origin) -> tuple[str, str]:
    """The names of the image and the label column."""
    wanted, where = origin.wanted, origin.name
    return find_image_column(features, wanted.image_column, where), _find_label_column(
        features, wanted.label_column, where
    )


def _read_labeled(table: Any, features: Any, columns: tuple[str, str], origin: Origin) -> TableDataset | None:
    """The labeled rows of a table; None if no row has a label, as in published test sets."""
    image, label = columns
    values = table.column(label).to_pylist()
    if values and all(value in (None, -1) for value in values):
        return None
    dataset = read_images(table, features, image, origin)
    dataset.labels, dataset.classes, dataset.label_notes = number_labels(values, dataset.name)
    if label in _list_columns_of_type(features, "ClassLabel"):
        names = tuple(features[label].names)
        for i in (dataset.labels >= len(names)).nonzero().flatten().tolist()[:1]:
            known = f"the {len(names)} classes {quote_names(names)}"
            raise ValueError(f"{dataset.name(i)} has label {values[i]}, out of range for {known}")
        dataset.classes = names
    return dataset


def _find_mask_columns(features: Any, origin: Origin) -> tuple[str, str]:
    """The names of the image and the mask column."""
    wanted, where = origin.wanted, origin.name
    typed = _list_columns_of_type(features, "Image")
    usual = [name for name in typed if name.lower() in MASK_NAMES]
    names = usual if usual and wanted.label_column is None else list(features)
    mask = find_column(names, wanted.label_column, MASK_NAMES, where, "label_column")
    others = {name: feature for name, feature in features.items() if name != mask}
    return find_image_column(others, wanted.image_column, where), mask


def _read_masked(table: Any, features: Any, columns: tuple[str, str], origin: Origin) -> RawMaskDataset | None:
    """The rows of a table with their masks; None if no row has a mask, as in published test sets."""
    image, mask = columns
    if len(table) and table.column(mask).null_count == len(table):
        return None
    images, masks = (read_images(table, features, name, origin) for name in (image, mask))
    return RawMaskDataset(images, masks)


def read_images(table: Any, features: Any, name: str, origin: Origin) -> TableDataset:
    """The images of a column, without labels."""
    dataset = TableDataset(table.column(name), origin)
    if len(table) and not isinstance(dataset.value(0), bytes | str | None):
        raise ValueError(f"column {name!r} of {origin.name} holds {features[name]}, not encoded images or their paths")
    return dataset


LABEL_READER = ColumnReader(_find_label_columns, _read_labeled)
MASK_READER = ColumnReader(_find_mask_columns, _read_masked, holds_labels=False)


def _list_columns_of_type(features: Any, feature_class: str) -> list[str]:
    """The columns whose type is the class `feature_class` of `datasets`."""
    import datasets

    return [name for name, feature in features.items() if isinstance(feature, getattr(datasets, feature_class))]


def find_image_column(features: Any, column_name: str | None, where: str) -> str:
    typed = _list_columns_of_type(features, "Image")
    if column_name is None and len(typed) == 1:
        return typed[0]
    return find_column(
        list(features) if column_name else typed or list(features), column_name, IMAGE_NAMES, where, "image_column"
    )


def _find_label_column(features: Any, column_name: str | None, where: str) -> str:
    typed = _list_columns_of_type(features, "ClassLabel")
    if column_name is None and len(typed) > 1 and "label" not in typed:
        raise ValueError(f"{where} has several label columns, {', '.join(typed)}; choose one with data.label_column")
    if column_name is None and len(typed) == 1:
        return typed[0]
    name = find_column(list(features), column_name, LABEL_NAMES, where, "label_column")
    if name in _list_columns_of_type(features, "Image"):
        raise ValueError(
            f"column {name!r} of {where} holds images (masks), not class labels; task=segmentation learns from masks"
        )
    return name
