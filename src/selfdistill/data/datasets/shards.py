"""Tar shards in the layout of WebDataset: `0007.jpg` and `0007.cls` are the image and the label of a sample.

Archives are not unpacked. An index says where the bytes of each image lie, so that images are read one by one in any
order, as files in a folder are. No shard stays open, and memory holds the index alone.
"""

import bisect
import functools
import glob
import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int

from ...config.recipe import DataPart
from ...errors import count_of
from .base import THREADS, LabeledDataset, quote_names
from .image_folder import is_hidden, list_folders
from .label_files import find_label_map
from .labels import are_numbers, number_labels
from .masks import RawMaskDataset
from .splits import DatasetSplits, parse_split
from .tar_index import NO_LABEL, ShardIndex, read_index
from .tar_parts import WantedParts

SUFFIX = ".tar"
COMPRESSED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Samples:
    """The samples of several shards, one after the other."""

    def __init__(self, indices: Sequence[ShardIndex]) -> None:
        self.shards = [(index.path, index.size, index.modified) for index in indices]
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
        path, shard_size, modified = self.shards[self.locate(i)[0]]
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != (shard_size, modified):
                    raise ValueError(f"the shard {path} has changed since the run began; start again")
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            raise ValueError(f"the shard {path} does not exist any more; put it back, and --resume goes on") from None
        except OSError as error:
            raise ValueError(f"the shard {path} cannot be read: {error.strerror or error}") from None


class ShardImages(LabeledDataset):
    """The images, or the masks, of the samples of tar shards."""

    def __init__(self, samples: Samples, spans: Int[np.ndarray, "n 2"]) -> None:
        self.samples, self.spans, self.classes = samples, spans, ()
        self.labels = torch.zeros(len(spans), dtype=torch.int64)

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


def open_shards(settings: DataPart, location: str, *, masks: bool = False) -> DatasetSplits:
    """Opens the splits of a shard, of a folder of shards, or of a pattern such as `train-{000..099}.tar`.

    Names say what is what: `train-000.tar`, `imagenet-val-000.tar`, `test/000.tar`. A single shard, and shards that are
    all of one split, are training images, as are shards without such names. Raises `ValueError` for a shard that does
    not exist or is damaged, and for samples without image or label, unless `on_error` or `exclude` leave them out.
    """
    paths = list_shards(location)
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        more = f" (and {count_of(len(missing) - 1, 'more shard')})" if len(missing) > 1 else ""
        raise ValueError(
            f"the shard {missing[0]} does not exist{more}; {location} names {count_of(len(paths), 'file')}"
        )
    wanted = WantedParts(masks, settings.image_column, settings.label_column)
    splits, notes = {}, []
    for split, members in _group_by_split(paths, location).items():
        with ThreadPoolExecutor(THREADS) as pool:
            indices = list(pool.map(functools.partial(read_index, wanted=wanted), members))
        splits[split] = _create_dataset(indices, settings, location, masks=masks)
        if other := sum(index.num_other for index in indices):
            notes.append(f"{location}: left out {count_of(other, 'file')} of the {split} shards, not images or labels")
    return DatasetSplits(splits, tuple(notes))


def list_shards(location: str) -> list[str]:
    """The paths of a shard, of the shards in a folder, or of those that a pattern names; [] for any other source."""
    if os.path.isdir(location):
        return _list_in_folder(location)
    if os.path.exists(location):
        return [location] if location.lower().endswith((SUFFIX, *COMPRESSED)) else []
    names = expand_braces(location)
    is_pattern = names != [location] or "*" in location
    if not is_pattern or not all(name.lower().endswith((SUFFIX, *COMPRESSED)) for name in names):
        return []
    return [path for name in names for path in (sorted(glob.glob(name)) if "*" in name else [name])]


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


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern stands for.

    >>> expand_braces("{a,b}-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    match = BRACES.search(pattern)
    if match is None:
        return [pattern]
    head, tail = pattern[: match.start()], expand_braces(pattern[match.end() :])
    return [f"{head}{choice}{rest}" for choice in _list_choices(match[1]) for rest in tail]


def _list_choices(text: str) -> list[str]:
    numbers = RANGE.fullmatch(text)
    if numbers is None:
        return text.split(",")
    return [str(number).zfill(len(numbers[1])) for number in range(int(numbers[1]), int(numbers[2]) + 1)]


def _group_by_split(paths: Sequence[str], location: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(_find_split(path), []).append(path)
    if "" in groups and len(groups) > 1:
        raise ValueError(f"{groups[''][0]} belongs to no split, as other shards of {location} do; call it train-*.tar")
    if "" in groups or (len(groups) == 1 and not os.path.isdir(location)):
        return {"train": list(paths)}
    return groups


def _find_split(path: str) -> str:
    """The split that a part of a shard's name means, else its folder's; "" for none."""
    folder, name = os.path.split(path)
    parts = [*re.split(r"[-_.]", name), os.path.basename(folder)]
    return next((split for part in parts if (split := parse_split(part))), "")


def _create_dataset(
    indices: Sequence[ShardIndex], settings: DataPart, location: str, *, masks: bool
) -> ShardImages | RawMaskDataset:
    samples = Samples(indices)
    images = ShardImages(samples, np.concatenate([index.images for index in indices]))
    if samples.broken and settings.on_error == "stop" and settings.exclude is None:
        first, more = min(samples.broken), len(samples.broken) - 1
        others = f" (and {count_of(more, 'more such sample')})" if more else ""
        raise ValueError(f"{images.name(first)} {samples.broken[first]}{others}; data.on_error=skip leaves them out")
    if masks:
        return RawMaskDataset(images, ShardImages(samples, np.concatenate([index.masks for index in indices])))
    _number(images, indices, location)
    return images


def _number(images: ShardImages, indices: Sequence[ShardIndex], location: str) -> None:
    """Gives the images their labels; a sample without one counts as class 0, and cannot be read."""
    distinct = {repr(label): label for index in indices for label in index.labels}
    numbers = {text: number for number, text in enumerate(distinct)}
    codes = np.concatenate(
        [np.array([*(numbers[repr(label)] for label in index.labels), NO_LABEL])[index.codes] for index in indices]
    )
    labeled = np.flatnonzero(codes != NO_LABEL)
    first = labeled[np.unique(codes[labeled], return_index=True)[1]]  # sample of each distinct label
    numbered = number_labels(list(distinct.values()), lambda k: images.name(int(first[k])))
    images.labels[labeled] = numbered.numbers[codes[labeled]]
    images.classes, images.label_notes = numbered.classes, numbered.notes
    names = _find_names(location)
    if names and are_numbers(images.classes):
        for i in (images.labels >= len(names)).nonzero().flatten().tolist()[:1]:
            known = f"the {len(names)} classes {quote_names(names)}"
            raise ValueError(f"{images.name(i)} has label {int(images.labels[i])}, out of range for {known}")
        images.classes = names


def _find_names(location: str) -> tuple[str, ...]:
    """The names of the classes 0, 1, ... in a file beside the shards, if there is one."""
    label_map = find_label_map(location if os.path.isdir(location) else os.path.dirname(location))
    names = label_map.names if label_map is not None else {}
    return tuple(names[k] for k in range(len(names))) if sorted(names) == list(range(len(names))) else ()
