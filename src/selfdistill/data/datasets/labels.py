"""Class indices from the labels that tables store, and one class numbering for several splits."""

import itertools
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ...errors import count_of, did_you_mean
from .base import LabeledDataset, quote_names

MAX_LABEL = 1_000_000  # a larger number is not a class
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")  # 1.0 too, as tables write whole numbers beside missing ones
SHORTEST_WORD = 5  # letters; shorter names that differ in one letter are mostly different words
CERTAIN = (";", "|")  # what separates labels and stands in few names
SEPARATORS = (*CERTAIN, ",", "/", "+", "&", " ")
SAYS_NOTHING = ("none", "null", "na", "n/a", "<na>", "nil", "unknown", "?", "-")  # how programs write a missing value


class NumberedLabels(NamedTuple):
    """Class indices, class names, and notes for the user on how the labels were read."""

    numbers: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def number_labels(values: Sequence[Any], name: Callable[[int], str]) -> NumberedLabels:
    """Numbers the labels that a table stores.

    The labels are all integers from 0 (their classes are called "0", "1", ...), or else all are names. Text is a number
    only if it is written in digits: 0_1 and 1e0 are names. `name(i)` describes row `i` in messages. Raises `ValueError`
    for a label that is missing, NaN, negative, fractional or larger than `MAX_LABEL`.
    """
    first = _find_first(values, name)
    rows = [*first.values()]  # of the distinct labels, in order
    numbers = [_as_number(values[i]) for i in rows]
    if None in numbers:
        names = [unicodedata.normalize("NFC", str(values[i]).strip()) for i in rows]
        classes = tuple(sorted(set(names)))
        index = {classname: k for k, classname in enumerate(classes)}
        labels = _spread([index[classname] for classname in names], values, first)
        return NumberedLabels(labels, classes, tuple(_say_empty_names(names, classes, rows, name)))
    for i, label in zip(rows, numbers, strict=True):
        if label < 0 or label != int(label):
            raise ValueError(f"{name(i)} has label {values[i]}; labels are integers from 0, or class names")
        if label > MAX_LABEL:
            raise ValueError(f"{name(i)} has label {values[i]}, which is out of range: at most {MAX_LABEL} is allowed")
    labels = _spread([int(label) for label in numbers], values, first)
    classes = tuple(str(k) for k in range(int(labels.max()) + 1 if len(labels) else 0))
    return NumberedLabels(labels, classes, tuple(_say_merged(values, rows, labels[rows].tolist(), name)))


Distinct = dict[tuple[type, Any], int]  # distinct values, by type, as 1 is not True -> where each occurs first


def _find_first(values: Sequence[Any], name: Callable[[int], str]) -> Distinct:
    """The distinct labels and their first rows, in order; raises `ValueError` for values that are no labels."""
    first: Distinct = {}
    for i, value in enumerate(values):
        if isinstance(value, list | dict):
            raise ValueError(f"{name(i)} has label {value!r}; labels are integers from 0, or class names")
        if first.setdefault((type(value), value), i) != i:
            continue
        if _is_missing(value):
            raise ValueError(f"{name(i)} has no label ({value!r}); every image needs a class name or an integer from 0")
        if value in (math.inf, -math.inf):
            raise ValueError(f"{name(i)} has label {value!r}; labels are integers from 0, or class names")
    return first


def _spread(numbers: Sequence[int], values: Sequence[Any], first: Distinct) -> Int64[Tensor, " n"]:
    """The class index of every row, from those of the distinct labels."""
    index = dict(zip(first, numbers, strict=True))
    return torch.from_numpy(np.fromiter((index[type(value), value] for value in values), np.int64, len(values)))


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        return float(text) if NUMBER.fullmatch(text) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _say_merged(
    values: Sequence[Any], rows: Sequence[int], labels: Sequence[int], name: Callable[[int], str]
) -> Iterator[str]:
    """A note if numbers that are written differently, such as 1 and 01, are one class; `rows` of distinct labels."""
    first: dict[int, int] = {}  # class -> row
    for i, label in zip(rows, labels, strict=True):
        other, value = first.setdefault(label, i), values[i]
        if str(value).strip().partition(".")[0] != str(values[other]).strip().partition(".")[0]:
            yield f"{name(other)} has label {values[other]} and {name(i)} has {values[i]}; both are the class {label}"
            return


def _say_empty_names(
    names: Sequence[str], classes: Sequence[str], rows: Sequence[int], name: Callable[[int], str]
) -> Iterator[str]:
    """Notes on names of classes with which programs say that there is no value; `rows` of the distinct `names`."""
    for classname in classes:
        if classname.lower() in SAYS_NOTHING:
            yield (
                f"{name(rows[names.index(classname)])} has label {classname!r}, which is taken for the name of a class;"
                " leave out the lines that have no label"
            )


def find_similar(classes: Sequence[str]) -> list[str]:
    """Lists the class names that differ from another one only in case, spaces, hyphens or underscores.

    The minus of a negative number counts.

    >>> find_similar(["cat", "Cat", "dog", "-1", "1"])
    ['cat', 'Cat']
    """
    plain = [unicodedata.normalize("NFKC", name).casefold() for name in classes]
    keys = [re.sub(r"(?!^-[0-9])[\s_-]+", " ", name).strip() for name in plain]
    counts = Counter(keys)
    return [name for name, key in zip(classes, keys, strict=True) if counts[key] > 1]


def find_combined(classes: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Lists the class names that look like several: name, separator and parts.

    All parts are class names too, or the separator is one that names hardly have and the parts occur in other names.

    >>> find_combined(["red", "blue", "red blue", "great dane"])
    [('red blue', ' ', ['red', 'blue'])]
    >>> [name for name, *_ in find_combined(["car;person", "person;dog"])]
    ['car;person', 'person;dog']
    """
    found = []
    for separator in SEPARATORS:
        parts = {name: [part.strip() for part in name.split(separator)] for name in classes if separator in name}
        shared = Counter(part for name in parts for part in set(parts[name]))
        for name, pieces in parts.items():
            are_classes = all(piece in classes for piece in pieces)
            is_certain = separator in CERTAIN and all(pieces) and any(shared[piece] > 1 for piece in pieces)
            if len(set(pieces)) > 1 and (are_classes or is_certain):
                found.append((name, separator, pieces))
    return found


def describe_combined(combined: Sequence[tuple[str, str, list[str]]]) -> str:
    """A sentence on class names that look like several.

    >>> describe_combined([("red;blue", ";", ["red", "blue"])])
    "1 class looks like several, 'red;blue' like 'red', 'blue'; where images show several, take task=multilabel"
    """
    name, _, parts = combined[0]
    looks = "looks" if len(combined) == 1 else "look"
    return (
        f"{count_of(len(combined), 'class')} {looks} like several, {name!r} like {quote_names(parts)}; where images "
        f"show several, take task=multilabel"
    )


def find_misspelled(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Lists the pairs of class names of five letters or more that differ in one: another, a missing or a doubled one.

    >>> find_misspelled(["labrador", "labradoor", "class1", "class2", "cat", "cut"])
    [('labrador', 'labradoor')]
    """
    long = [name for name in dict.fromkeys(classes) if sum(map(str.isalpha, name)) >= SHORTEST_WORD]
    by_rest: dict[str, list[str]] = {}  # what is left of a name without one of its letters, and the whole names
    for name in long:
        rests = {name[:k] + name[k + 1 :] for k, letter in enumerate(name) if letter.isalpha()}
        for rest in {name, *rests}:
            by_rest.setdefault(rest, []).append(name)
    pairs = {
        tuple(sorted(pair, key=long.index)) for names in by_rest.values() for pair in itertools.combinations(names, 2)
    }
    return sorted((a, b) for a, b in pairs if _is_one_apart(a, b))


def _is_one_apart(first: str, second: str) -> bool:
    """Whether one letter is other, missing or added."""
    start = len(os.path.commonprefix([first, second]))
    end = len(os.path.commonprefix([first[start:][::-1], second[start:][::-1]]))
    return max(len(first), len(second)) - start - end == 1


def align(dataset: LabeledDataset, classes: tuple[str, ...]) -> LabeledDataset:
    """Renumbers the labels of `dataset` as indices of `classes`.

    Integer labels of a table may stand for the classes of a data set that has names. Raises `ValueError` for a class
    that `classes` lacks.
    """
    if dataset.classes == classes:
        return dataset
    index = {name: k for k, name in enumerate(classes)}
    present_names = [dataset.classes[k] for k in dataset.find_present_classes()]
    if are_numbers(dataset.classes) and not are_numbers(classes):
        index = {str(k): k for k in range(len(classes))}
    for name in present_names:
        if name not in index:
            _refuse_class(dataset, name, classes)
    numbers = torch.tensor([index.get(name, -1) for name in dataset.classes], dtype=torch.int64)
    return dataset.renumber(classes, numbers)


def are_numbers(classes: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in classes)


def _refuse_class(dataset: LabeledDataset, name: str, classes: tuple[str, ...]) -> None:
    first = dataset.find_first(dataset.classes.index(name))
    hint = did_you_mean(name, classes, otherwise=f"the {len(classes)} classes are {quote_names(classes)}")
    raise ValueError(f"{dataset.name(first)} has class {name!r}, which no training image has{hint}")
