"""Which classes an image shows, from what tables store: a list, text with a separator, or a column for each class."""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from .base import quote_names
from .label_map import IGNORE_INDEX
from .labels import find_combined, number_labels

UNKNOWN = "?"  # before a label: whether the image shows it is not known; alone: nor of any class that is not listed
OPEN = dict.fromkeys((UNKNOWN, "-1", "-1.0"), IGNORE_INDEX)  # the same in a class's own column
YES_OR_NO = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, **OPEN}  # its values, as text


class LabelLists(NamedTuple):
    """Labels of images that show any number of classes, and notes for the user on how they were read."""

    labels: Int64[Tensor, "n k"]  # 1 where an image shows a class, `IGNORE_INDEX` where that is not known
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def number_label_lists(values: Sequence[Any], name: Callable[[int], str], separator: str | None) -> LabelLists:
    """Numbers the labels of a column that holds a list for each image, or text.

    Text is cut at each `separator`; without one it is a list as Python or JSON write it, or one label. An empty list or
    text shows no class. `?red` says that it is not known whether the image shows red; `?` alone says so of every class
    that the list does not name. Single labels are read as those of images with one label, see `number_labels`. Raises
    `ValueError` for anything else, and where labels without a separator look like several.
    """
    if separator is not None and values and not any(isinstance(value, str) for value in values):
        raise ValueError(f"data.separator={separator} has no effect on lists, as in {name(0)}")
    lists = [_split(value, name(i), separator) for i, value in enumerate(values)]
    named = [(i, *_unmark(label)) for i, labels in enumerate(lists) for label in labels if label != UNKNOWN]
    rows = [i for i, _, _ in named]
    numbered = number_labels([label for _, label, _ in named], lambda k: name(rows[k]))
    if combined := find_combined(numbered.classes):
        label, cut, parts = combined[0]
        given = "" if separator is None else f" instead of {separator!r}"
        raise ValueError(
            f"{name(rows[numbered.numbers.tolist().index(numbered.classes.index(label))])} has the label {label!r}, "
            f"which looks like {quote_names(parts)}; set data.separator={cut!r}{given}"
        )
    labels = torch.zeros(len(values), len(numbered.classes), dtype=torch.int64)
    labels[[UNKNOWN in names for names in lists]] = IGNORE_INDEX
    places, is_shown = torch.tensor(rows).long(), torch.tensor([is_known for _, _, is_known in named]).bool()
    for chosen, value in ((~is_shown, IGNORE_INDEX), (is_shown, 1)):
        labels[places[chosen], numbered.numbers[chosen]] = value
    return LabelLists(labels, numbered.classes, numbered.notes)


def _unmark(label: Any) -> tuple[Any, bool]:
    """A label without the mark before it, and whether it had none."""
    if isinstance(label, str) and label.startswith(UNKNOWN):
        return label.removeprefix(UNKNOWN).strip(), False
    return label, True


def _split(value: Any, where: str, separator: str | None) -> list[Any]:
    if isinstance(value, list | tuple):
        return [label.strip() if isinstance(label, str) else label for label in value]
    if isinstance(value, str):
        text = value.strip()
        if separator is None and text[:1] + text[-1:] == "[]":
            return _parse_list(text, where)
        return [part.strip() for part in (text.split(separator) if separator is not None else [text]) if part.strip()]
    if isinstance(value, dict) or value is None or value != value:
        raise ValueError(f"{where} has labels {value!r}; give a list, which is empty where an image shows no class")
    return [value]


def _parse_list(text: str, where: str) -> list[Any]:
    try:
        labels = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        labels = None
    if not isinstance(labels, list):
        raise ValueError(f"{where} has labels {text[:80]!r}, which are no list; write ['red', 'blue'] or red;blue")
    return labels


def read_class_columns(
    values: Mapping[str, Sequence[Any]], columns: Sequence[str], name: Callable[[int], str]
) -> LabelLists:
    """The labels of tables that have a column for each class, of 0 or 1, or of true or false; ? or -1: not known.

    Raises `ValueError` for other values, and where no label is a no: -1 may be meant as one.
    """
    labels = [[_read_yes_or_no(value) for value in values[column]] for column in columns]
    if bad := [(column.index(None), k) for k, column in enumerate(labels) if None in column]:
        i, k = min(bad)
        raise ValueError(
            f"{name(i)} has {values[columns[k]][i]!r} in its column {columns[k]!r}; a class's own column holds 1 where "
            f"an image shows it, 0 where it does not, and ? or -1 where that is not known"
        )
    if {code for column in labels for code in column} == {1, IGNORE_INDEX}:
        raise ValueError(
            f"the columns {quote_names(columns)} hold no 0; ? and -1 say that nothing is known, so write 0 where an "
            f"image does not show a class"
        )
    notes = [f"the classes are the columns {quote_names(columns, 10)}"]
    return LabelLists(torch.tensor(labels).T.contiguous(), tuple(column.strip() for column in columns), tuple(notes))


def find_class_columns(values: Mapping[str, Sequence[Any]], columns: Sequence[str]) -> list[str]:
    """The columns that hold nothing but 0, 1 and marks, and may be classes; none unless there are two."""
    read = {name: {_read_yes_or_no(value) for value in values[name]} for name in columns}
    found = [name for name in columns if None not in read[name] and read[name] != {IGNORE_INDEX}]
    return found if len(found) > 1 else []


def _read_yes_or_no(value: Any) -> int | None:
    return YES_OR_NO.get(str(value).strip().lower())
