"""Labels as tables write them -> class numbers, and the class numbers of one split in terms of another's."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ...errors import did_you_mean
from .base import LabeledDataset

MOST = 1_000_000  # a larger number is no class


def number_labels(values: Sequence[Any], name: Callable[[int], str]) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Class numbers and class names of labels that are all integers from 0 (then "0", "1", ...) or else names.

    `name(i)` describes row `i` for the errors: a label that is missing, NaN, negative, fractional or impossibly large.
    """
    for i, value in enumerate(values):
        if _is_missing(value):
            raise ValueError(f"{name(i)} has no label ({value!r}); every image needs a class name or an integer from 0")
        if isinstance(value, list | dict) or value in (math.inf, -math.inf):
            raise ValueError(f"{name(i)} has label {value!r}; labels are integers from 0, or class names")
    numbers = [_as_number(value) for value in values]
    if None in numbers:
        return _from_names([str(value).strip() for value in values])
    for i, label in enumerate(numbers):
        if label < 0 or label != int(label):
            raise ValueError(f"{name(i)} has label {values[i]}; labels are integers from 0, or class names")
        if label > MOST:
            raise ValueError(f"{name(i)} has label {values[i]}, which is out of range: at most {MOST} is allowed")
    labels = torch.tensor([int(label) for label in numbers], dtype=torch.int64)
    return labels, tuple(str(k) for k in range(int(labels.max()) + 1 if len(labels) else 0))


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _from_names(names: list[str]) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    classes = tuple(sorted(set(names)))
    index = {name: k for k, name in enumerate(classes)}
    return torch.tensor([index[name] for name in names], dtype=torch.int64), classes


def align(rows: LabeledDataset, classes: tuple[str, ...]) -> LabeledDataset:
    """`rows` with their labels counted in `classes`; a class that is not among them is an error.

    Integer labels of a table may stand for the classes of a set that has names.
    """
    if rows.classes == classes:
        return rows
    index = {name: k for k, name in enumerate(classes)}
    present = [rows.classes[k] for k in rows.present()]
    if _are_numbers(rows.classes) and not _are_numbers(classes):
        index = {str(k): k for k in range(len(classes))}
    for name in present:
        if name not in index:
            _refuse_class(rows, name, classes)
    numbers = torch.tensor([index.get(name, -1) for name in rows.classes], dtype=torch.int64)
    return rows.renumber(classes, numbers)


def _are_numbers(classes: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in classes)


def _refuse_class(rows: LabeledDataset, name: str, classes: tuple[str, ...]) -> None:
    first = int((rows.labels == rows.classes.index(name)).nonzero()[0])
    hint = did_you_mean(name, classes, otherwise=f"the {len(classes)} classes are {shorten(classes)}")
    raise ValueError(f"{rows.name(first)} has class {name!r}, which no training image has{hint}")


def shorten(names: Sequence[str], most: int = 5) -> str:
    """The first names, for a sentence.

    >>> shorten(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
