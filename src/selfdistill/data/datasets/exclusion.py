"""Images that are left out of a data set, by name."""

from collections.abc import Iterator, Sequence

import torch

from ...config.recipe import DataPart
from ...errors import did_you_mean
from .base import LabeledDataset
from .splits import DatasetSplits
from .text_files import open_text
from .threads import find_errors

OTHER = "data.val"  # in front of the images of a validation source of its own


def leave_out(stored: DatasetSplits, settings: DataPart, source: str) -> DatasetSplits:
    """The splits of a source without the images that `data.exclude` names.

    Raises `ValueError` for a name that no image has.
    """
    names = {name for name in list_excluded(settings) if name.startswith(f"{OTHER}/") == (source != settings.source)}
    if not names or source not in (settings.source, settings.val):
        return stored
    splits, unknown = {}, set(names)
    for split, dataset in stored.splits.items():
        found = {name: i for i, name in enumerate(name_images(settings, source, split, dataset)) if name in names}
        unknown -= found.keys()
        splits[split] = dataset
        if found:
            kept = sorted(set(range(len(dataset))) - set(found.values()))
            splits[split] = dataset.subset(torch.tensor(kept, dtype=torch.int64))
            splits[split].label_notes = dataset.label_notes
    if unknown:
        known = [n for split, each in stored.splits.items() for n in name_images(settings, source, split, each)]
        name = sorted(unknown)[0]
        hint = did_you_mean(name, known, otherwise=f"; its first one is {known[0]!r}" if known else "")
        raise ValueError(f"data.exclude names {name!r}, and {source} has no such image{hint}")
    return stored._replace(splits=splits)


def list_excluded(settings: DataPart) -> Sequence[str]:
    """The names in `data.exclude`, or in the lines of the file that it names."""
    if isinstance(settings.exclude, str):
        with open_text(settings.exclude) as file:
            return [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return settings.exclude or []


def name_images(settings: DataPart, source: str, split: str, dataset: LabeledDataset) -> Iterator[str]:
    """What `data.exclude` calls each image of a split."""
    prefix = split if source == settings.source else f"{OTHER}/{split}"
    for i in range(len(dataset)):
        yield f"{prefix}/{dataset.key(i)}"


def find_unusable(settings: DataPart, source: str, stored: DatasetSplits) -> dict[str, str]:
    """The images that cannot be used, by the name that `data.exclude` knows, each with the reason; reads all of them.

    JPEGs are decoded at an eighth of their size.
    """
    unusable: dict[str, str] = {}
    for split, dataset in stored.splits.items():
        errors = find_errors(dataset.check, range(len(dataset)))
        if errors:
            names = list(name_images(settings, source, split, dataset))
            unusable |= {names[i]: error for i, error in errors.items()}
    return unusable
