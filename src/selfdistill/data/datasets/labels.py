"""Class indices from the labels that tables store, and one class numbering for several splits."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ...errors import did_you_mean
from .base import LabeledDataset

MAX_LABEL = 1_000_000  # a larger number is not a class


def number_labels(values: Sequence[Any], name: Callable[[int], str]) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Class indices and class names of labels.

    The labels are all integers from 0 (their classes are called "0", "1", ...), or else all are names. `name(i)`
    describes row `i` in errors. Raises `ValueError` for a label that is missing, NaN, negative, fractional or larger
    than `MAX_LABEL`.
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
        if label > MAX_LABEL:
            raise ValueError(f"{name(i)} has label {values[i]}, which is out of range: at most {MAX_LABEL} is allowed")
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


def align(dataset: LabeledDataset, classes: tuple[str, ...]) -> LabeledDataset:
    """Renumbers the labels of `dataset` as indices of `classes`.

    Integer labels of a table may stand for the classes of a data set that has names. Raises `ValueError` for a class
    that `classes` lacks.
    """
    if dataset.classes == classes:
        return dataset
    index = {name: k for k, name in enumerate(classes)}
    present_names = [dataset.classes[k] for k in dataset.find_present_classes()]
    if _are_numbers(dataset.classes) and not _are_numbers(classes):
        index = {str(k): k for k in range(len(classes))}
    for name in present_names:
        if name not in index:
            _refuse_class(dataset, name, classes)
    numbers = torch.tensor([index.get(name, -1) for name in dataset.classes], dtype=torch.int64)
    return dataset.renumber(classes, numbers)


def _are_numbers(classes: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in classes)


def _refuse_class(dataset: LabeledDataset, name: str, classes: tuple[str, ...]) -> None:
    first = int((dataset.labels == dataset.classes.index(name)).nonzero()[0])
    hint = did_you_mean(name, classes, otherwise=f"the {len(classes)} classes are {shorten(classes)}")
    raise ValueError(f"{dataset.name(first)} has class {name!r}, which no training image has{hint}")


def shorten(names: Sequence[str], max_names: int = 5) -> str:
    """Lists the first names, for a sentence.

    >>> shorten(["a", "b", "c"], max_names=2)
    "'a', 'b' and 1 more"
    """
    listed = ", ".join(repr(name) for name in names[:max_names])
    return listed + (f" and {len(names) - max_names} more" if len(names) > max_names else "")
