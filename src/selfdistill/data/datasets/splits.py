"""The splits of a source of images, before anything is held out."""

from typing import NamedTuple

from .base import LabeledDataset
from .label_map import LabelMap

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


class DatasetSplits(NamedTuple):
    """Data sets by split: "train", "val", "test". Each has its own classes. Without splits, all is "train"."""

    splits: dict[str, LabeledDataset]
    notes: tuple[str, ...] = ()
    label_map: LabelMap | None = None  # the meaning of mask values, if the source gives it


def parse_split(name: str) -> str | None:
    """The split that a folder, file or column value called `name` means, if any.

    >>> parse_split("Valid")
    'val'
    """
    return SPLITS.get(name.strip().lower())
