"""Decoded images in a file that later runs reuse."""

import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from ..datasets.base import LabeledDataset
from ..transforms.pipeline import ImageTransform
from .folder import cache_folder
from .images import PackedImages, count_pixel_bytes, find_ends, read_sizes
from .room import ALTERNATIVES, refuse_too_large

FORMAT = 2  # version of the file format
DAY = 86_400  # seconds after which an unfinished file is taken for abandoned


class DiskImages(PackedImages):
    """A file of a header and then pixels. The first run that needs it writes it, and all runs map it.

    The header holds the sizes of the images (int32), a CRC-32 of the pixels of each (uint32), and one of these two.
    The file's name is a hash of everything that determines the pixels. It appears complete or not at all. A file with
    another size or a damaged header is written anew; damaged pixels raise `ValueError` when they are read.
    """

    def __init__(self, dataset: LabeledDataset, transform: ImageTransform) -> None:
        self.path = cache_folder() / f"{identify(dataset, transform)}.pixels"
        self.unfinished: Path | None = None
        header = None
        if self.path.exists():
            with report_unusable(self.path.parent):
                header = read_header(self.path, len(dataset), count_pixel_bytes(transform))
        if header is not None:
            sizes, self.checksums = header
            super().__init__(dataset, transform, sizes)
            self.indices = range(0)
        else:
            super().__init__(dataset, transform, read_sizes(dataset, transform))
            self.checksums = np.zeros(len(dataset), np.uint32)
            self.unfinished = reserve_file(self.path.parent, self.start + int(self.ends[-1]))

    def __getitem__(self, i: int) -> Image.Image | Tensor:
        if self.unfinished is None and zlib.crc32(self._get_pixels(i)) != self.checksums[i]:
            raise ValueError(f"{self.path} is damaged; remove it, and the next run writes it again")
        return super().__getitem__(i)

    def write(self, i: int, image: Image.Image | Tensor) -> None:
        super().write(i, image)
        self.checksums[i] = zlib.crc32(self._get_pixels(i))

    @property
    def start(self) -> int:
        """Bytes of the header."""
        return count_header_bytes(len(self.sizes))

    @cached_property
    def pixels(self) -> UInt8[np.ndarray, " bytes"]:
        if self.unfinished is not None:
            return np.memmap(self.unfinished, np.uint8, mode="r+", offset=self.start)
        return np.memmap(self.path, np.uint8, mode="r", offset=self.start)

    def finish(self) -> None:
        super().finish()
        if self.unfinished is None:
            return
        self.pixels.flush()
        with self.unfinished.open("r+b") as file:
            header = self.sizes.tobytes() + self.checksums.tobytes()
            file.write(header + zlib.crc32(header).to_bytes(4, "little"))
            file.flush()
            os.fsync(file.fileno())
        self.unfinished.replace(self.path)
        self.unfinished = None
        del self.pixels  # so that the next access maps the file read-only

    def abandon(self) -> None:
        if self.unfinished is not None:
            self.unfinished.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pixels"}  # every process maps the file


def count_header_bytes(images: int) -> int:
    """Two sides of four bytes and a checksum for each image, and a checksum of all of them."""
    return images * 3 * 4 + 4


def read_header(path: Path, images: int, pixel_bytes: int) -> tuple[Int[np.ndarray, "n 2"], np.ndarray] | None:
    """The sizes and the checksums of the images in a file; None where they, or the file's size, are wrong."""
    with path.open("rb") as file:
        header = file.read(count_header_bytes(images))
        file_bytes = os.fstat(file.fileno()).st_size
    if len(header) < count_header_bytes(images) or zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
        return None
    sizes = np.frombuffer(header, np.int32, 2 * images).reshape(images, 2)
    checksums = np.frombuffer(header, np.uint32, images, offset=sizes.nbytes)
    return (sizes, checksums) if file_bytes == len(header) + int(find_ends(sizes, pixel_bytes)[-1]) else None


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
        elif not isinstance(source, bytes):
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
