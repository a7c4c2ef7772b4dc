"""Opens images that show any number of classes: tables, Parquet files, and folders of links."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import count_of, did_you_mean
from .base import ImageFileDataset
from .columns import ColumnReader, Origin, find_image_column, read_images
from .image_folder import open_folder
from .label_lists import LabelLists, find_class_columns, number_label_lists, read_class_columns
from .label_map import IGNORE_INDEX
from .multi_label import MultiLabelDataset
from .splits import DatasetSplits
from .table import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SPLIT_NAMES,
    find_column,
    find_paths,
    group_by_split,
)
from .table_columns import Table, read_table

NAMES = ("labels", "tags", "classes", "categories", *LABEL_NAMES)
Values = Mapping[str, Sequence[Any]]  # of each column
Columns = str | Sequence[str]  # the one that holds all labels of an image, or one for each class


def open_multi_label_table(
    table: str, *, image_column: str | None, label_column: Columns | None, separator: str | None
) -> DatasetSplits:
    """Opens a `.csv`, `.tsv` or `.jsonl` file as `open_table` does.

    `label_column` as in `choose_columns`. The labels of several lines that name one image are taken together.
    """
    rows = read_table(table)
    image = find_column([*rows.columns], image_column, IMAGE_NAMES, table, "image_column")
    columns = choose_columns(rows.columns, image, label_column, table)
    splits = {split: _create_dataset(group, image, columns, separator) for split, group in group_by_split(rows).items()}
    keys = [key for dataset in splits.values() for key in map(dataset.key, range(len(dataset)))]
    note = (
        f"{count_of(len(keys) - len(set(keys)), 'image')} of {table} in several splits: scores are not of unseen ones"
    )
    return DatasetSplits(splits, (note,) * (len(keys) > len(set(keys))))


def choose_columns(values: Values, image: str, wanted: Columns | None, where: str) -> Columns:
    """The column that holds the labels of an image, or the columns of 0 and 1 that each stand for a class.

    Where the user named none it is a column with a usual name, else all columns that hold nothing but 0 and 1.
    """
    names = list(values)
    if isinstance(wanted, str):
        return find_column(names, wanted, NAMES, where, "label_column")
    if wanted is not None:
        for name in wanted:
            if name not in names:
                raise ValueError(f"{where} has no column {name!r} (label_column){did_you_mean(name, names)}")
        return list(wanted)
    if any(name.strip().lower() in NAMES for name in names):
        return find_column(names, None, NAMES, where, "label_column")
    others = [name for name in names if name != image and name.lower() not in SPLIT_NAMES]
    if columns := find_class_columns(values, others):
        return columns
    raise ValueError(
        f"{where} has the columns {', '.join(names)}, none of them called labels and no two that hold 0 and 1 alone; "
        f"name them with data.label_column"
    )


def read_labels(values: Values, columns: Columns, name: Any, separator: str | None) -> LabelLists:
    """The labels of rows; raises `ValueError` for a separator where each class has a column of its own."""
    if isinstance(columns, str):
        return number_label_lists(values[columns], name, separator)
    if separator is not None:
        raise ValueError(f"data.separator={separator} has no effect on a column for each class")
    return read_class_columns(values, columns, name)


def _create_dataset(table: Table, image: str, columns: Columns, separator: str | None) -> MultiLabelDataset:
    paths = find_paths(table, image)
    read = read_labels(table.columns, columns, table.say, separator)
    images = ImageFileDataset(os.path.dirname(table.path), paths, [0] * len(paths), classes=())
    dataset, repeated = _join_same(images, read.labels, paths, classes=read.classes)
    notes = [f"{count_of(repeated, 'line')} of {table.path} name an image again, whose labels are taken together"]
    dataset.label_notes = (*read.notes, *notes * (repeated > 0))
    return dataset


def _join_same(
    images: ImageFileDataset, labels: torch.Tensor, keys: Sequence[Any], *, classes: tuple[str, ...]
) -> tuple[MultiLabelDataset, int]:
    """One image for each key, with the labels of all that have it; and how many were left out for that.

    An image shows what one of them says. What no one says and one does not know is not known.
    """
    first: dict[Any, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    numbers = {key: number for number, key in enumerate(first)}
    places, none = torch.tensor([numbers[key] for key in keys]), torch.zeros(len(first), labels.shape[1]).long()
    shown, unknown = (none.index_add(0, places, (labels == value).long()) > 0 for value in (1, IGNORE_INDEX))
    joined = none.where(~unknown, IGNORE_INDEX).where(~shown, 1)
    kept = images.subset(torch.tensor(list(first.values())))
    return MultiLabelDataset(kept, joined, classes=classes), len(keys) - len(first)


def open_linked_folders(folder: str) -> DatasetSplits:
    """Opens class folders as `open_folder` does; an image that several of them link to shows all these classes.

    Symbolic and hard links count, copies do not.
    """
    opened = open_folder(folder)
    splits, shared = {}, 0
    for split, images in opened.splits.items():
        assert isinstance(images, ImageFileDataset)
        labels = torch.nn.functional.one_hot(images.labels, len(images.classes))
        files = [os.stat(images.source(i)) for i in range(len(images))]
        keys = [(file.st_dev, file.st_ino) for file in files]
        splits[split], repeated = _join_same(images, labels, keys, classes=images.classes)
        shared += repeated
    note = f"{folder}: no image is in more than one class folder; link those that show several classes"
    return opened._replace(splits=splits, notes=(*opened.notes, *[note] * (shared == 0)))


def _find_columns(features: Any, origin: Origin) -> tuple[str, ...]:
    """The image column, and those that may hold labels."""
    wanted, where = origin.wanted, origin.name
    image = find_image_column(features, wanted.image_column, where)
    candidates = [name for name in features if _may_be_class(features[name]) and name != image]
    has_usual = any(name.strip().lower() in NAMES for name in features)
    if wanted.label_column is None and not has_usual and len(candidates) > 1:
        return image, *candidates
    chosen = choose_columns({name: [None] for name in features}, image, wanted.label_column, where)
    return image, *([chosen] if isinstance(chosen, str) else chosen)


def _may_be_class(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("bool", "int", "uint", "float"))


def _read_table(table: Any, features: Any, columns: tuple[str, ...], origin: Origin) -> MultiLabelDataset | None:
    """The rows of a table; None if no row has labels, as in published test sets."""
    image, *names = columns
    values = {name: table.column(name).to_pylist() for name in names}
    if len(table) and all(value is None for column in values.values() for value in column):
        return None
    images = read_images(table, features, image, origin)
    chosen = choose_columns(values, image, origin.wanted.label_column, origin.name)
    classes = _find_class_names(features[chosen]) if isinstance(chosen, str) else None
    if classes is not None:
        values = {chosen: [[classes[k] for k in numbers or ()] for numbers in values[chosen]]}
    read = read_labels(values, chosen, images.name, origin.wanted.separator)
    dataset = MultiLabelDataset(images, read.labels, classes=read.classes)
    if classes is not None:
        dataset = dataset.renumber(tuple(classes), torch.tensor([classes.index(name) for name in read.classes]))
    dataset.label_notes = read.notes
    return dataset


def _find_class_names(feature: Any) -> list[str] | None:
    """The names in a column of lists of `datasets.ClassLabel`; None for any other column."""
    names = getattr(getattr(feature, "feature", None), "names", None)
    return None if names is None else list(names)


MULTI_LABEL_READER = ColumnReader(_find_columns, _read_table)
