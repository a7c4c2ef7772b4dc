"""Decoded images in a file that later runs reuse."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image

from ..datasets.base import LabeledDataset
from ..transforms.pipeline import ImageTransform
from .images import PackedImages, read_sizes
from .room import ALTERNATIVES, refuse_too_large

FORMAT = 1  # version of the file format
DAY = 86_400  # seconds after which an unfinished file is taken for abandoned


class DiskImages(PackedImages):
    """A file of int32 sizes and then pixels. The first run that needs it writes it, and all runs map it.

    Its name is a hash of everything that determines the pixels. It appears complete or not at all.
    """

    def __init__(self, dataset: LabeledDataset, transform: ImageTransform) -> None:
        self.path = cache_folder() / f"{identify(dataset, transform)}.pixels"
        self.unfinished: Path | None = None
        if self.path.exists():
            with report_unusable(self.path.parent):
                sizes = np.array(np.memmap(self.path, np.int32, mode="r", shape=(len(dataset), 2)))
            super().__init__(dataset, transform, sizes)
            self.indices = range(0)
        else:
            super().__init__(dataset, transform, read_sizes(dataset, transform))
            self._create_file()

    def _create_file(self) -> None:
        self.unfinished = reserve_file(self.path.parent, self.sizes.nbytes + int(self.ends[-1]))
        with self.unfinished.open("r+b") as file:
            file.write(self.sizes.tobytes())

    @cached_property
    def pixels(self) -> UInt8[np.ndarray, " bytes"]:
        if self.unfinished is not None:
            return np.memmap(self.unfinished, np.uint8, mode="r+", offset=self.sizes.nbytes)
        return np.memmap(self.path, np.uint8, mode="r", offset=self.sizes.nbytes)

    def finish(self) -> None:
        super().finish()
        if self.unfinished is None:
            return
        self.pixels.flush()
        with self.unfinished.open("r+b") as file:
            os.fsync(file.fileno())
        self.unfinished.replace(self.path)
        self.unfinished = None
        del self.pixels  # so that the next access maps the file read-only

    def abandon(self) -> None:
        if self.unfinished is not None:
            self.unfinished.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pixels"}  # every process maps the file


def cache_folder() -> Path:
    """The folder SELFDISTILL_CACHE, else `selfdistill` in XDG_CACHE_HOME, else in ~/.cache."""
    named = os.environ.get("SELFDISTILL_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "selfdistill"
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(f"machine.cache=disk finds no home folder for {folder}; {ALTERNATIVES['disk']}") from None


@contextmanager
def report_unusable(folder: Path) -> Iterator[None]:
    """Turns an `OSError` about the cache folder into a `ValueError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"machine.cache=disk cannot use {folder} ({reason}); {ALTERNATIVES['disk']}") from error


def identify(dataset: LabeledDataset, transform: ImageTransform) -> str:
    """Hex digest of everything that determines the pixels: resizing, decoder, images (files by path, size, times)."""
    digest = hashlib.sha256(repr((FORMAT, PIL.__version__, *transform.cached_identity)).encode())
    for i in range(len(dataset)):
        source = dataset.source(i)
        if isinstance(source, str):
            status = os.stat(source)
            times = (status.st_mtime_ns, status.st_ctime_ns)  # ctime also detects a copy that kept its mtime
            source = repr((os.path.abspath(source), status.st_size, times))
            source = source.encode("utf-8", "surrogateescape")
        elif isinstance(source, Image.Image):
            digest.update(repr((source.mode, source.size)).encode())
            source = source.tobytes()
        digest.update(len(source).to_bytes(8, "little") + source)
    return digest.hexdigest()


def reserve_file(folder: Path, size: int) -> Path:
    """Creates a file of `size` bytes with all blocks allocated: a mapped file without space would end the process."""
    with report_unusable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        refuse_too_large("disk", size, float(shutil.disk_usage(folder).free), str(folder))
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
        file = Path(name)
        try:
            allocate = getattr(os, "posix_fallocate", lambda handle, start, size: os.ftruncate(handle, size))
            allocate(handle, 0, size)
        except OSError:
            file.unlink()
            raise
        finally:
            os.close(handle)
    return file


def remove_leftovers(folder: Path) -> None:
    """Removes the unfinished files of processes that were killed."""
    for file in folder.glob("*.part"):
        with suppress(OSError):  # another process removes it too, or it is another user's
            if time.time() - file.stat().st_mtime > DAY:
                file.unlink()
