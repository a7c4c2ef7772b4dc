"""What a source of images turns out to hold, before anything is held out."""

from typing import NamedTuple

from .base import Rows

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


class Names(NamedTuple):
    """What a source says of the values in its masks."""

    names: dict[int, str]  # of values, void ones included where they have a name
    colours: dict[int, tuple[int, int, int]] = {}  # of values; masks in colour are read by them
    void: frozenset[int] | None = None  # values that count for nothing; None: not said


class Found(NamedTuple):
    """Rows by split ("train", "val", "test"), each with its own classes; a source without splits is all "train"."""

    splits: dict[str, Rows]
    notes: tuple[str, ...] = ()
    names: Names | None = None  # of masks


def split_of(name: str) -> str | None:
    """The split that a folder, file or column value called `name` means, if any.

    >>> split_of("Valid")
    'val'
    """
    return SPLITS.get(name.strip().lower())
