"""A few blocks of a data set that is read whole block by whole block: copies in a folder that goes with the process.

A block is what is fetched at once, such as a shard or a row group of a Parquet file. An epoch takes its images from few
blocks at a time (`sampler.gather`), so that few copies suffice however large the data set is.
"""

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from .folder import cache_folder

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCKS = 64  # files; blocks share them
HOLDER = ".holder"  # locked as long as a process uses the folder
TRIES = 10  # to read a block that another process removes again and again

Fetch = Callable[[int, Path], None]  # writes the block of this number to a new file; `ValueError` names its source
T = TypeVar("T")


class Blocks(NamedTuple):
    """In which block each image of a data set lies."""

    numbers: Int64[Tensor, " n"]
    folder: "BlockFolder"

    def select(self, indices: Int64[Tensor, " m"]) -> "Blocks":
        return Blocks(self.numbers[indices], self.folder)


class BlockFolder:
    """Copies of the blocks that were used last, twice as many as images are taken from at a time (`at_once`).

    Threads, and processes that are forked or sent this object, share the copies. The folder is removed with the object,
    and that of a killed process by the next one.
    """

    def __init__(self, fetch: Fetch, at_once: int) -> None:
        self.fetch, self.at_once, self.most = fetch, at_once, 2 * at_once
        self.folder, holder = _create_folder()
        self._remove = weakref.finalize(self, _remove_folder, self.folder, holder, os.getpid())

    def read(self, number: int, read: Callable[[Path], T]) -> T:
        """What `read` gives of the copy of a block, which is fetched if it is not there."""
        path = self.folder / str(number)
        for _ in range(TRIES):
            try:
                value = read(path)
                os.utime(path)  # used last
                return value
            except FileNotFoundError:
                self.provide(number)
        raise ValueError(f"block {number} in {self.folder} is removed faster than it is read; raise data.stream")

    def provide(self, number: int) -> None:
        """Fetches a block unless it is there, and removes those that were not used for longest."""
        path = self.folder / str(number)
        try:
            with self._lock(number):
                if path.exists():
                    return
                handle, name = tempfile.mkstemp(dir=self.folder, prefix=".")
                os.close(handle)
                try:
                    self._make_room()
                    self.fetch(number, Path(name))
                    os.replace(name, path)
                finally:
                    Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise _refuse_folder(self.folder, error) from error

    def _make_room(self) -> None:
        """Leaves room for one more block."""
        ages = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                if not entry.name.startswith("."):
                    ages.append((entry.stat().st_mtime_ns, entry.path))
        for _, path in sorted(ages)[: 1 - self.most]:
            Path(path).unlink(missing_ok=True)

    @contextmanager
    def _lock(self, number: int) -> Iterator[None]:
        """Keeps other threads and processes from fetching the same block."""
        with (self.folder / f".lock-{number % LOCKS}").open("wb") as file:
            _lock_file(file.fileno())
            yield

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_remove"}


class ReadAhead:
    """Fetches the blocks of an epoch in a thread, in the order in which they are needed, and not too many ahead.

    Errors are left to the reader that needs the block. Without blocks nothing happens.
    """

    def __init__(self, blocks: Blocks | None, indices: Int64[Tensor, " n"]) -> None:
        self.thread = None
        if blocks is None or not len(indices):
            return
        numbers, starts = np.unique(blocks.numbers[indices].numpy(), return_index=True)
        order = np.argsort(starts)
        self.numbers, self.starts = numbers[order].tolist(), starts[order]
        self.folder, self.position, self.is_closed = blocks.folder, 0, False
        self.moved = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def reach(self, position: int) -> None:
        """Says how many of the indices were read."""
        if self.thread is not None:
            with self.moved:
                self.position = position
                self.moved.notify()

    def close(self) -> None:
        if self.thread is not None:
            with self.moved:
                self.is_closed = True
                self.moved.notify()
            self.thread.join()

    def _run(self) -> None:
        for place, number in enumerate(self.numbers):
            with self.moved:
                self.moved.wait_for(lambda place=place: self.is_closed or place < self._count_wanted())
                if self.is_closed:
                    return
            with suppress(Exception):
                self.folder.provide(number)

    def _count_wanted(self) -> int:
        """The blocks that were begun, and as many as are read at once."""
        return int(np.searchsorted(self.starts, self.position, side="right")) + self.folder.at_once


def _create_folder() -> tuple[Path, int]:
    """A new folder, and the descriptor of the lock that says that it is used."""
    parent = cache_folder() / "blocks"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        folder = Path(tempfile.mkdtemp(dir=parent))
        holder = os.open(folder / f"{HOLDER}.new", os.O_RDWR | os.O_CREAT)
        _lock_file(holder)
        os.rename(folder / f"{HOLDER}.new", folder / HOLDER)  # so that nobody sees it unlocked
    except OSError as error:
        raise _refuse_folder(parent, error) from error
    return folder, holder


def _lock_file(descriptor: int) -> None:
    """Waits for the lock of a file; without one, as on some file systems, a block may be fetched twice."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _remove_leftovers(parent: Path) -> None:
    """Removes the folders of processes that were killed."""
    for holder in parent.glob(f"*/{HOLDER}") if fcntl is not None else ():
        with suppress(OSError), holder.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error where a process uses it
            shutil.rmtree(holder.parent, ignore_errors=True)


def _remove_folder(folder: Path, holder: int, process: int) -> None:
    if os.getpid() == process:  # not where a forked process ends
        os.close(holder)
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_folder(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"data.stream keeps some blocks in {folder}, which fails ({error.strerror or error}); name another folder in "
        "SELFDISTILL_CACHE, or lower data.stream"
    )
