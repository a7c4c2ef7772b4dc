"""Tar shards in the layout of WebDataset: `0007.jpg` and `0007.cls` are the image and the label of a sample.

Archives are not unpacked. An index says where the bytes of each image lie, so that images are read one by one in any
order, as files in a folder are. No shard stays open, and memory holds the index alone.
"""

import bisect
import functools
import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Int

from ...config.recipe import DataPart
from ...errors import count_of
from ..cache.blocks import BlockFolder, Blocks
from .base import LabeledDataset, quote_names
from .image_folder import is_hidden, list_folders
from .label_files import find_label_map
from .label_lists import number_label_lists
from .labels import are_numbers, number_labels
from .masks import RawMaskDataset
from .multi_label import MultiLabelDataset
from .opener import LOCAL, FileOpener
from .patterns import expand_braces, group_by_split, is_pattern, list_files
from .splits import DatasetSplits, parse_split
from .tar_index import NO_LABEL, ShardIndex, ShardState, copy_bytes, find_stored, read_index
from .tar_parts import Holds, WantedParts
from .threads import THREADS

SUFFIX = ".tar"
COMPRESSED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Samples:
    """The samples of several shards, one after the other."""

    def __init__(self, indices: Sequence[ShardIndex], folder: BlockFolder | None = None) -> None:
        self.shards, self.folder = [(index.path, index.state) for index in indices], folder
        self.root = os.path.commonpath([os.path.dirname(index.path) for index in indices])
        self.keys = [index.keys for index in indices]
        self.key_ends = [np.flatnonzero(np.frombuffer(index.keys, np.uint8) == 0) for index in indices]
        self.ends = list(itertools.accumulate(len(index.images) for index in indices))
        self.broken = {
            end - len(index.images) + row: reason
            for index, end in zip(indices, self.ends, strict=True)
            for row, reason in index.broken.items()
        }

    def locate(self, i: int) -> tuple[int, int]:
        """The number of the shard of sample `i`, and its row in it."""
        shard = bisect.bisect_right(self.ends, i)
        return shard, i - (self.ends[shard - 1] if shard else 0)

    def key(self, i: int) -> str:
        shard, row = self.locate(i)
        ends = self.key_ends[shard]
        return self.keys[shard][ends[row - 1] + 1 if row else 0 : ends[row]].decode()

    def read(self, i: int, offset: int, size: int) -> bytes:
        """Reads bytes of the shard of sample `i`; `ValueError` if it is not the file that was indexed."""
        number = self.locate(i)[0]
        if self.folder is not None:
            return self.folder.read(number, lambda copy: _read_span(copy, offset, size))
        path, state = self.shards[number]
        with LOCAL.open(path) as file:
            refuse_changed(file, path, state)
            file.seek(offset)
            return file.read(size)


class ShardFetcher:
    """Copies whole shards."""

    def __init__(self, indices: Sequence[ShardIndex], wanted: WantedParts, opener: FileOpener) -> None:
        self.shards, self.wanted, self.opener = [(index.path, index.state) for index in indices], wanted, opener

    def __call__(self, number: int, copy: Path) -> None:
        path, state = self.shards[number]
        with self.opener.open(path) as stream, copy.open("wb") as target:
            if self.opener.function is None:
                refuse_changed(stream, path, state)
            copied = copy_bytes(stream, target)
        if self.opener.function is not None and copied != state:
            stored = find_stored(path, self.wanted, self.opener)
            if stored is not None:
                stored.unlink(missing_ok=True)
            raise ValueError(f"{path} has changed since its index was read, which is forgotten now; start again")


def refuse_changed(file: BinaryIO, path: str, state: ShardState) -> None:
    status = os.fstat(file.fileno())
    if (status.st_size, status.st_mtime_ns) != state:
        raise ValueError(f"{path} has changed since the run began; start again")


def _read_span(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


class ShardImages(LabeledDataset):
    """The images, or the masks, of the samples of tar shards."""

    def __init__(self, samples: Samples, spans: Int[np.ndarray, "n 2"]) -> None:
        self.samples, self.spans, self.classes = samples, spans, ()
        self.labels = torch.zeros(len(spans), dtype=torch.int64)
        if samples.folder is not None:
            counts = torch.tensor(samples.ends).diff(prepend=torch.zeros(1, dtype=torch.int64))
            self.blocks = Blocks(torch.arange(len(counts)).repeat_interleave(counts), samples.folder)

    def source(self, i: int) -> bytes:
        if i in self.samples.broken:
            raise ValueError(f"{self.name(i)} {self.samples.broken[i]}")
        return self.samples.read(i, *self.spans[i].tolist())

    def name(self, i: int) -> str:
        return f"sample {self.samples.key(i)} of {self.samples.shards[self.samples.locate(i)[0]][0]}"

    def key(self, i: int) -> str:
        shard = os.path.relpath(self.samples.shards[self.samples.locate(i)[0]][0], self.samples.root)
        return f"{shard.removesuffix(SUFFIX)}/{self.samples.key(i)}"

    def size(self, i: int) -> int:
        return int(self.spans[i, 1])


def open_shards(settings: DataPart, location: str, holds: Holds = "label") -> DatasetSplits:
    """Opens the splits of a shard, of a folder of shards, or of a pattern such as `train-{000..099}.tar`.

    Names say what is what: `train-000.tar`, `imagenet-val-000.tar`, `test/000.tar`. A single shard, and shards that are
    all of one split, are training images, as are shards without such names. Raises `ValueError` for a shard that does
    not exist or is damaged, and for samples without image or label, unless `on_error` or `exclude` leave them out.
    """
    opener, at_once = FileOpener(settings.opener), settings.blocks_at_once
    paths = list_shards(location) if opener.function is None else expand_braces(location)
    missing = [path for path in paths if opener.function is None and not os.path.isfile(path)]
    if missing:
        more = f" (and {count_of(len(missing) - 1, 'more shard')})" if len(missing) > 1 else ""
        raise ValueError(
            f"the shard {missing[0]} does not exist{more}; {location} names {count_of(len(paths), 'file')}"
        )
    if isinstance(settings.label_column, list):
        columns = ", ".join(settings.label_column)
        raise ValueError(f"data.label_column={columns} names several columns, and samples of {location} have one part")
    wanted = WantedParts(holds, settings.image_column, settings.label_column)
    splits, notes = {}, []
    for split, members in group_by_split(paths, location, _find_split, usual="train-*.tar").items():
        with ThreadPoolExecutor(THREADS) as pool:
            indices = list(pool.map(functools.partial(read_index, wanted=wanted, opener=opener), members))
        folder = BlockFolder(ShardFetcher(indices, wanted, opener), at_once) if at_once else None
        splits[split] = _create_dataset(indices, Samples(indices, folder), settings, location, holds)
        if other := sum(index.num_other for index in indices):
            notes.append(f"{location}: left out {count_of(other, 'file')} of the {split} shards, not images or labels")
    return DatasetSplits(splits, tuple(notes))


def has_shard_names(location: str) -> bool:
    """Whether a name, or each that a pattern means, is one of a shard."""
    return location.lower().endswith(SUFFIX)


def list_shards(location: str) -> list[str]:
    """The paths of a shard, of the shards in a folder, or of those that a pattern names; [] for any other source."""
    if os.path.isdir(location):
        return _list_in_folder(location)
    if os.path.exists(location):
        return [location] if location.lower().endswith((SUFFIX, *COMPRESSED)) else []
    if not is_pattern(location) or not location.lower().endswith((SUFFIX, *COMPRESSED)):
        return []
    return list_files(location)


def _list_in_folder(folder: str) -> list[str]:
    """Shards in a folder without folders, or in folders that are all called as splits."""
    folders = list_folders(folder)
    if folders and not all(map(parse_split, folders)):
        return []
    places = [os.path.join(folder, name) for name in folders] or [folder]
    if any(list_folders(place) for place in places if folders):
        return []
    return [
        os.path.join(place, name)
        for place in places
        for name in sorted(os.listdir(place))
        if name.lower().endswith(SUFFIX) and not is_hidden(name)
    ]


def _find_split(path: str) -> str:
    """The split that a part of a shard's name means, else its folder's; "" for none."""
    folder, name = os.path.split(path)
    parts = [*re.split(r"[-_.]", name), os.path.basename(folder)]
    return next((split for part in parts if (split := parse_split(part))), "")


def _create_dataset(
    indices: Sequence[ShardIndex], samples: Samples, settings: DataPart, location: str, holds: Holds
) -> LabeledDataset:
    images = ShardImages(samples, np.concatenate([index.images for index in indices]))
    if samples.broken and settings.on_error == "stop" and settings.exclude is None:
        first, more = min(samples.broken), len(samples.broken) - 1
        others = f" (and {count_of(more, 'more such sample')})" if more else ""
        raise ValueError(f"{images.name(first)} {samples.broken[first]}{others}; data.on_error=skip leaves them out")
    if holds == "mask":
        return RawMaskDataset(images, ShardImages(samples, np.concatenate([index.masks for index in indices])))
    return _add_labels(images, collect_labels(indices), location, settings.separator, holds)


class StoredLabels(NamedTuple):
    """The labels of samples, before they get a meaning."""

    values: list[Any]  # the distinct ones
    codes: Int[np.ndarray, " n"]  # place in `values` of each sample's, or NO_LABEL


def collect_labels(indices: Sequence[ShardIndex]) -> StoredLabels:
    distinct = {repr(label): label for index in indices for label in index.labels}
    numbers = {text: number for number, text in enumerate(distinct)}
    codes = [np.array([*(numbers[repr(label)] for label in index.labels), NO_LABEL])[index.codes] for index in indices]
    return StoredLabels(list(distinct.values()), np.concatenate(codes))


def _add_labels(
    images: ShardImages, stored: StoredLabels, location: str, separator: str | None, holds: Holds
) -> LabeledDataset:
    """The images with their labels; a sample without one counts as class 0, or as none, and cannot be read."""
    labeled = np.flatnonzero(stored.codes != NO_LABEL)
    first = labeled[np.unique(stored.codes[labeled], return_index=True)[1]].tolist()  # sample of each distinct value

    def name(k: int) -> str:
        return images.name(first[k])

    names = _find_names(location)
    if holds == "labels":
        lists = number_label_lists(stored.values, name, separator)
        labels = lists.labels.new_zeros(len(images), len(lists.classes))
        labels[labeled] = lists.labels[stored.codes[labeled]]
        several = MultiLabelDataset(images, labels, classes=lists.classes)
        several.label_notes = lists.notes
        if names and are_numbers(lists.classes):
            _refuse_numbers(lists.classes, names, location)
            several = several.renumber(names, torch.arange(len(lists.classes)))
        return several
    numbered = number_labels(stored.values, name)
    images.labels[labeled] = numbered.numbers[stored.codes[labeled]]
    images.classes, images.label_notes = numbered.classes, numbered.notes
    if names and are_numbers(images.classes):
        _refuse_numbers(images.classes, names, location)
        images.classes = names
    return images


def _refuse_numbers(classes: Sequence[str], names: Sequence[str], location: str) -> None:
    if len(classes) > len(names):
        known = f"the file beside them names {count_of(len(names), 'class')}, {quote_names(names)}"
        raise ValueError(f"{location} has labels up to {len(classes) - 1}, and {known}")


def _find_names(location: str) -> tuple[str, ...]:
    """The names of the classes 0, 1, ... in a file beside the shards, if there is one."""
    label_map = find_label_map(location if os.path.isdir(location) else os.path.dirname(location))
    names = label_map.names if label_map is not None else {}
    return tuple(names[k] for k in range(len(names))) if sorted(names) == list(range(len(names))) else ()
