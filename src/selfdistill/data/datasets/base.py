"""Labelled images by number, wherever they are stored."""

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from .image_io import Format, Source, read_format, read_image, refuse_mode

HEADERS = 50_000  # images whose headers are read, at about 20 us each
DECODED = 5_000  # sets of up to so many images are decoded whole
THREADS = 4
LITTLE = 2**14  # bytes of an image that is decoded in the time threads take to take turns
BLOCK = 256


class Rows(ABC):
    """Labelled images. `labels` number `classes`; `reflectable` says whether a mirrored image keeps its label."""

    classes: tuple[str, ...]
    labels: Int64[Tensor, " n"]
    reflectable: bool = True
    shares: ClassVar[str] = "each class of"  # what `groups` divides, as in "20 % of each class of digits"

    @abstractmethod
    def source(self, i: int) -> Source:
        """Where the image of row `i` comes from: a path, an encoded image, or a decoded one."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Row `i` in words, for messages: its file, or "row 17 of train.parquet"."""

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, i: int) -> Image.Image:
        """The decoded image, upright, in the mode it is stored in."""
        return read_image(self.source(i), self.name(i))

    def shown(self, i: int, transform: Callable[..., Any]) -> tuple[Any, Tensor]:
        """What `transform` makes of image `i`, and its label; `ValueError`s of `transform` name the row."""
        image = self.image(i)
        with self.named(i):
            return transform(image), self.labels[i]

    @contextmanager
    def named(self, i: int) -> Iterator[None]:
        """Puts the name of row `i` in front of a `ValueError`."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.name(i)}: {error}") from error

    def format(self, i: int, *, decode: bool = False) -> Format:
        """Size and mode, from the header alone unless `decode`; `ValueError` for an image that cannot be used."""
        found = read_format(self.source(i), self.name(i), decode=decode)
        with self.named(i):
            refuse_mode(found.mode)
        return found

    @cached_property
    def formats(self) -> frozenset[Format]:
        """The different sizes and modes, by header, of all rows or of 50,000 evenly spaced ones.

        Also a check: sets of at most 5,000 images are decoded whole, and `ValueError` names the first image that cannot
        be used and counts the others.
        """
        decode = len(self) <= DECODED
        found: set[Format] = set()
        errors: list[str] = []
        for formats, problems in over_rows(lambda block: self._formats(block, decode), spread(len(self), HEADERS)):
            found |= formats
            errors += problems
        if errors:
            more = f" (and {len(errors) - 1} more such images)" if len(errors) > 1 else ""
            raise ValueError(errors[0] + more)
        return frozenset(found)

    def _formats(self, block: Sequence[int], decode: bool) -> tuple[set[Format], list[str]]:
        found, errors = set(), []
        for i in block:
            try:
                found.add(self.format(i, decode=decode))
            except ValueError as error:
                errors.append(str(error))
        return found, errors

    def counts(self) -> Int64[Tensor, " k"]:
        """Images per class."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    def groups(self) -> list[Int64[Tensor, " members"]]:
        """Row numbers, in order, that are held out and limited in equal shares: those of each class."""
        return list(torch.argsort(self.labels, stable=True).split(self.counts().tolist()))

    def present(self) -> list[int]:
        """The classes that rows are known to have before any is opened."""
        return self.labels.unique().tolist()

    def absent(self) -> list[int]:
        """The classes that no row has, as far as is known before any is opened."""
        return (self.counts() == 0).nonzero().flatten().tolist()

    def all_void(self) -> bool:
        """Whether nothing has a label, as far as it was read."""
        return False

    def remarks(self) -> list[str]:
        """Sentences on what reading the rows has shown."""
        return []

    def about(self) -> dict[str, Any]:
        """What student.json says of the labels beside the names of the classes."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Data settings of a recipe that say what was found out about the labels."""
        return {}

    def subset(self, indices: Int64[Tensor, " n"]) -> "Subset":
        """Some of the rows, in the order of `indices`."""
        return Subset(self, indices)

    def renumbered(self, classes: tuple[str, ...], numbers: Int64[Tensor, " k"]) -> "Rows":
        """The same rows with class `k` called `numbers[k]` of `classes`; -1 for a class that no row has."""
        fresh = copy.copy(self)
        fresh.classes, fresh.labels = classes, numbers[self.labels]
        return fresh

    def key(self, i: int) -> str:
        """`name` without what differs between machines."""
        return self.name(i)

    def size(self, i: int) -> int:
        """Bytes of the stored image."""
        source = self.source(i)
        if isinstance(source, str):
            return os.path.getsize(source)
        return len(source) if isinstance(source, bytes) else source.width * source.height * len(source.getbands())

    def fingerprint(self) -> str:
        """Hex digest of classes, names, labels and sizes in bytes; of the same set the same on every machine."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for i, label in enumerate(self.labels.tolist()):
            digest.update(f"\n{self.key(i)}\t{label}\t{self.size(i)}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


class Subset(Rows):
    """Some rows of another set, in the order of `indices`."""

    def __init__(self, rows: Rows, indices: Int64[Tensor, " n"]) -> None:
        self.rows, self.indices = rows, indices
        self.classes, self.labels, self.reflectable = rows.classes, rows.labels[indices], rows.reflectable

    def source(self, i: int) -> Source:
        return self.rows.source(int(self.indices[i]))

    def name(self, i: int) -> str:
        return self.rows.name(int(self.indices[i]))

    def key(self, i: int) -> str:
        return self.rows.key(int(self.indices[i]))

    def size(self, i: int) -> int:
        return self.rows.size(int(self.indices[i]))

    def subset(self, indices: Int64[Tensor, " n"]) -> "Subset":
        return self.rows.subset(self.indices[indices])


class FileRows(Rows):
    """One image file per row; `paths` are relative to `root`, or absolute."""

    def __init__(
        self,
        root: str,
        paths: Sequence[str],
        labels: Sequence[int] | Tensor,
        *,
        classes: Sequence[str],
        reflectable: bool = True,
    ) -> None:
        self.root, self.paths, self.reflectable = root, paths, reflectable
        self.labels, self.classes = torch.as_tensor(labels, dtype=torch.int64), tuple(classes)

    def source(self, i: int) -> str:
        return os.path.join(self.root, self.paths[i])

    def name(self, i: int) -> str:
        return self.source(i)

    def key(self, i: int) -> str:
        return self.paths[i]


class ImageRows(Rows):
    """Rows of a data set that yields (decoded image, label) pairs, such as one that lies in memory."""

    def __init__(
        self, pairs: Any, labels: Sequence[int] | Tensor, *, classes: Sequence[str], title: str, reflectable: bool
    ) -> None:
        self.pairs, self.title, self.reflectable = pairs, title, reflectable
        self.labels, self.classes = torch.as_tensor(labels, dtype=torch.int64), tuple(classes)

    def source(self, i: int) -> Image.Image:
        return self.pairs[i][0]

    def name(self, i: int) -> str:
        return f"row {i} of {self.title}"


def spread(count: int, most: int) -> list[int]:
    """All of `range(count)`, or `most` of them evenly spaced.

    >>> spread(10, 4)
    [0, 2, 5, 7]
    """
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


def over_rows(work: Callable[[Sequence[int]], Any], rows: Sequence[int], *, threads: int = THREADS) -> list[Any]:
    """`work(block)` for blocks of `rows`, in order, on a few threads: decoding and reading release the interpreter."""
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, blocks))


def threads_for(rows: Rows) -> int:
    """How many threads decode rows fastest, by the first: little images in memory leave too little to do beside."""
    return 1 if len(rows) and not isinstance(rows.source(0), str) and rows.size(0) < LITTLE else THREADS
