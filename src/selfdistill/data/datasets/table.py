"""CSV and JSON-lines files that name one image and its label per line."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from ...errors import did_you_mean
from .base import ImageFileDataset
from .labels import number_labels
from .mask_folder import create_mask_file_dataset
from .masks import RawMaskDataset
from .splits import SPLITS, DatasetSplits, parse_split
from .table_columns import Table, read_table
from .text_files import find_spelling

IMAGE_NAMES = ("path", "file", "filename", "image", "file_name", "file_path", "filepath", "image_path", "img")
LABEL_NAMES = ("label", "class", "target", "labels", "category", "class_name")
MASK_NAMES = ("mask", "label", "annotation", "segmentation", "masks", "labels", "mask_path", "label_path", "target")
SPLIT_NAMES = ("split",)
MANY = 50  # files of a folder that a table names, from which on the folder is listed


def open_table(table: str, *, image_column: str | None = None, label_column: str | None = None) -> DatasetSplits:
    """Opens the rows of a `.csv` or `.tsv` (with a header) or `.jsonl` file, by its `split` column if it has one.

    Paths are relative to the table. Raises `ValueError`, naming the line, for unreadable lines and missing files.
    """

    def choose(names: list[str]) -> tuple[str, ...]:
        image = find_column(names, image_column, IMAGE_NAMES, table, "image_column")
        return image, find_column(names, label_column, LABEL_NAMES, table, "label_column"), *_find_split_column(names)

    rows = read_table(table, choose)
    image, label = [*rows.columns][:2]
    groups = group_by_split(rows)
    return DatasetSplits(
        {split: _create_dataset(group, image, label) for split, group in groups.items()},
        tuple(_say_repeated(groups, image, label)),
    )


def open_mask_table(table: str, *, image_column: str | None = None, label_column: str | None = None) -> DatasetSplits:
    """As `open_table`, for lines that name an image and its mask."""

    def choose(names: list[str]) -> tuple[str, ...]:
        mask = find_column(names, label_column, MASK_NAMES, table, "label_column")
        others = [name for name in names if name != mask]
        return find_column(others, image_column, IMAGE_NAMES, table, "image_column"), mask, *_find_split_column(names)

    rows = read_table(table, choose)
    image, mask = [*rows.columns][:2]
    return DatasetSplits(
        {split: _create_mask_dataset(group, image, mask) for split, group in group_by_split(rows).items()}
    )


def group_by_split(table: Table) -> dict[str, Table]:
    """The rows of each split, by the column called so; all are for training without one."""
    columns = _find_split_column([*table.columns])
    if not columns:
        return {"train": table}
    values = [str(value) for value in table.columns[columns[0]]]
    splits: dict[str, str] = {}  # by what the table says
    for value in dict.fromkeys(values):
        split = parse_split(value)
        if split is None:
            where = table.say(values.index(value))
            raise ValueError(f"{where} has split {value!r}; allowed are {', '.join(SPLITS)}")
        splits[value] = split
    names = [*dict.fromkeys(splits.values())]
    numbers = np.fromiter((names.index(splits[value]) for value in values), np.int8, len(values))
    return {name: table.select((numbers == number).nonzero()[0]) for number, name in enumerate(names)}


def _find_split_column(names: list[str]) -> list[str]:
    """The column that names the split of each row, if there is one."""
    return [name for name in names if name.lower() in SPLIT_NAMES][:1]


def find_column(names: list[str], user_choice: str | None, usual: tuple[str, ...], where: str, setting: str) -> str:
    """Finds the column that the user named, else the first one with a usual name in any case."""
    if user_choice is not None:
        if user_choice in names:
            return user_choice
        hint = did_you_mean(user_choice, names, otherwise=f"it has: {', '.join(names)}")
        raise ValueError(f"{where} has no column {user_choice!r} ({setting}){hint}")
    for usual_name in usual:
        alike = [name for name in names if name.strip().lower() == usual_name]
        if len(alike) > 1:
            raise ValueError(f"{where} has the columns {' and '.join(alike)}; choose one with data.{setting}")
        if alike:
            return alike[0]
    wanted = f"none of them called {', '.join(usual[:4])}"
    raise ValueError(f"{where} has the columns {', '.join(names)}, {wanted}; name it with data.{setting}")


def _create_dataset(table: Table, image: str, label: str) -> ImageFileDataset:
    labels = number_labels(table.columns[label], table.say)
    dataset = ImageFileDataset(
        os.path.dirname(table.path), find_paths(table, image), labels.numbers, classes=labels.classes
    )
    dataset.label_notes = labels.notes
    return dataset


def _say_repeated(groups: dict[str, Table], image: str, label: str) -> Iterator[str]:
    """A note on the first two lines that name one image, for each of the ways in which they mislead."""
    paths = {path.strip() for table in groups.values() for path in table.columns[image]}
    if len(paths) == sum(map(len, groups.values())):
        return
    first: dict[str, tuple[str, int]] = {}  # path -> split and row
    said: set[str] = set()
    for split, table in groups.items():
        for row, path in enumerate(table.columns[image]):
            other_split, other = first.setdefault(path.strip(), (split, row))
            places = ((groups[other_split], other), (table, row))
            labels = [str(rows.columns[label][i]).strip() for rows, i in places]
            if labels[0] != labels[1]:
                trouble = f"with the labels {labels[0]!r} and {labels[1]!r}"
            elif split != other_split:
                trouble = f"in the splits {other_split} and {split}, so the scores are not those of unseen images"
            elif other != row and len(groups) == 1:
                trouble = "twice; if one of them is held out, its score is not that of an unseen image"
            else:
                continue
            kind = trouble.split()[0]
            if kind not in said:
                said.add(kind)
                numbers = f"{groups[other_split].numbers[other]} and {table.numbers[row]}"
                yield f"lines {numbers} of {table.path} name the same image {trouble}"


def _create_mask_dataset(table: Table, image: str, mask: str) -> RawMaskDataset:
    root = os.path.dirname(table.path)
    return create_mask_file_dataset(root, find_paths(table, image), find_paths(table, mask))


def find_paths(table: Table, column: str) -> list[str]:
    """The existing files that a column names, relative to the table; raises `ValueError` for the first that is none."""
    root = os.path.dirname(table.path)
    paths, files = [], _Files(root)
    for row, value in enumerate(table.columns[column]):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{table.say(row)} names no image in its column {column!r}")
        path = value.strip()
        existing = path if path in files else find_spelling(root, path)
        if existing is None:
            raise ValueError(f"{table.say(row)} names {os.path.join(root, path)}, which does not exist")
        paths.append(existing)
    return paths


class _Files:
    """The files below a folder. Of folders that many are asked of, all names are read at once, which is faster."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.asked: Counter[str] = Counter()
        self.names: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder = path[: path.rfind("/") + 1]
        if path[len(folder) :] in self.names.get(folder, ()):
            return True
        self.asked[folder] += 1
        if self.asked[folder] == MANY:
            with suppress(OSError), os.scandir(os.path.join(self.root, folder)) as entries:
                self.names[folder] = {entry.name for entry in entries if entry.is_file()}
        return os.path.isfile(os.path.join(self.root, path))
