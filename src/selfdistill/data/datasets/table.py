"""CSV and JSON-lines files that name one image and its label per line."""

import csv
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...errors import did_you_mean
from .base import ImageFileDataset
from .labels import number_labels
from .mask_folder import create_mask_file_dataset
from .masks import RawMaskDataset
from .splits import SPLITS, DatasetSplits, parse_split
from .text_files import find_spelling, open_text, refuse_repeated

IMAGE_NAMES = ("path", "file", "filename", "image", "file_name", "file_path", "filepath", "image_path", "img")
LABEL_NAMES = ("label", "class", "target", "labels", "category", "class_name")
MASK_NAMES = ("mask", "label", "annotation", "segmentation", "masks", "labels", "mask_path", "label_path", "target")
SPLIT_NAMES = ("split",)


class Line(NamedTuple):
    number: int  # from 1
    values: dict[str, Any]


def open_table(table: str, *, image_column: str | None = None, label_column: str | None = None) -> DatasetSplits:
    """Opens the rows of a `.csv` or `.tsv` (with a header) or `.jsonl` file, by its `split` column if it has one.

    Paths are relative to the table. Raises `ValueError`, naming the line, for unreadable lines and missing files.
    """
    lines = read_lines(table)
    image = find_column(list_columns(lines), image_column, IMAGE_NAMES, table, "image_column")
    label = find_column(list_columns(lines), label_column, LABEL_NAMES, table, "label_column")
    groups = group_by_split(lines, table)
    return DatasetSplits(
        {split: _create_dataset(table, group, image, label) for split, group in groups.items()},
        tuple(_say_repeated(table, groups, image, label)),
    )


def open_mask_table(table: str, *, image_column: str | None = None, label_column: str | None = None) -> DatasetSplits:
    """As `open_table`, for lines that name an image and its mask."""
    lines = read_lines(table)
    mask = find_column(list_columns(lines), label_column, MASK_NAMES, table, "label_column")
    others = [name for name in list_columns(lines) if name != mask]
    image = find_column(others, image_column, IMAGE_NAMES, table, "image_column")
    return DatasetSplits(
        {
            split: _create_mask_dataset(table, group, image, mask)
            for split, group in group_by_split(lines, table).items()
        }
    )


def read_lines(table: str) -> list[Line]:
    lines = list(_read_csv(table) if table.lower().endswith((".csv", ".tsv")) else _read_json_lines(table))
    if not lines:
        raise ValueError(f"{table} has no rows")
    return lines


def list_columns(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line.values))


def group_by_split(lines: list[Line], table: str) -> dict[str, list[Line]]:
    column = next((name for name in list_columns(lines) if name.lower() in SPLIT_NAMES), None)
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(_find_split(line, column, table) if column else "train", []).append(line)
    return groups


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


def _read_csv(table: str) -> Iterator[Line]:
    with open_text(table, "CSV") as file:
        text = next((line.strip() for line in file if line.strip()), "")
        file.seek(0)
        names_delimiter = text[:4].lower() == "sep=" and len(text) == 5  # the first line, for spreadsheets
        delimiter = text[4] if names_delimiter else _find_delimiter(table, text)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        rows = (row for row in reader if row)
        if names_delimiter:
            next(rows)
        header = next(rows, [])
        refuse_repeated(header, table)
        for row in rows:
            if len(row) > len(header):
                where = f"line {reader.line_num} of {table}"
                raise ValueError(f"{where} has more fields than the header; quote what holds {delimiter!r}")
            yield Line(reader.line_num, dict(itertools.zip_longest(header, row)))


def _find_delimiter(table: str, header: str) -> str:
    return "\t" if table.lower().endswith(".tsv") else max(",;\t", key=header.count)


def _read_json_lines(table: str) -> Iterator[Line]:
    with open_text(table, "JSON lines") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield Line(number, _parse_json(text, f"line {number} of {table}"))


def _parse_json(text: str, where: str) -> dict[str, Any]:
    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_repeated([name for name, _ in pairs], where)
        return dict(pairs)

    try:
        values = json.loads(text, object_pairs_hook=read_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is not a row: it is nested too deep") from None
    if not isinstance(values, dict):
        raise ValueError(f"{where} holds a {type(values).__name__}, not an object with a path and a label")
    return values


def _find_split(line: Line, column: str, table: str) -> str:
    value = str(line.values.get(column))
    if (split := parse_split(value)) is None:
        raise ValueError(f"line {line.number} of {table} has split {value!r}; allowed are {', '.join(SPLITS)}")
    return split


def _create_dataset(table: str, lines: list[Line], image: str, label: str) -> ImageFileDataset:
    root = os.path.dirname(table)
    paths = [find_path(line, image, table, root) for line in lines]
    labels = number_labels([line.values.get(label) for line in lines], lambda i: f"line {lines[i].number} of {table}")
    dataset = ImageFileDataset(root, paths, labels.numbers, classes=labels.classes)
    dataset.label_notes = labels.notes
    return dataset


def _say_repeated(table: str, groups: dict[str, list[Line]], image: str, label: str) -> Iterator[str]:
    """A note on the first two lines that name one image, for each of the ways in which they mislead."""
    first: dict[str, tuple[str, Line]] = {}  # path -> split and line
    said: set[str] = set()
    for split, lines in groups.items():
        for line in lines:
            other_split, other = first.setdefault(str(line.values[image]).strip(), (split, line))
            labels = [str(row.values.get(label)).strip() for row in (other, line)]
            if labels[0] != labels[1]:
                trouble = f"with the labels {labels[0]!r} and {labels[1]!r}"
            elif split != other_split:
                trouble = f"in the splits {other_split} and {split}, so the scores are not those of unseen images"
            elif other is not line and len(groups) == 1:
                trouble = "twice; if one of them is held out, its score is not that of an unseen image"
            else:
                continue
            kind = trouble.split()[0]
            if kind not in said:
                said.add(kind)
                yield f"lines {other.number} and {line.number} of {table} name the same image {trouble}"


def _create_mask_dataset(table: str, lines: list[Line], image: str, mask: str) -> RawMaskDataset:
    root = os.path.dirname(table)
    return create_mask_file_dataset(
        root, *([find_path(line, column, table, root) for line in lines] for column in (image, mask))
    )


def find_path(line: Line, column: str, table: str, root: str) -> str:
    path = line.values.get(column)
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"line {line.number} of {table} names no image in its column {column!r}")
    existing = find_spelling(root, path.strip())
    if existing is None:
        where = os.path.join(root, path.strip())
        raise ValueError(f"line {line.number} of {table} names {where}, which does not exist")
    return existing
