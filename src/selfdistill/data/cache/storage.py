"""Decoded images in memory or in a file, behind one interface, and whether there is room for them."""

import hashlib
import math
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from jaxtyping import Int, UInt8
from PIL import Image

from ..datasets.base import LabeledDataset, count_threads, map_blocks
from ..transforms.pipeline import ImageTransform

GIB = 2**30
INSTEAD = {
    "device": "take memory, disk or none",
    "memory": "take disk or none",
    "disk": "name another folder in SELFDISTILL_CACHE, or take none",
}
FORMAT = 1  # of the files of `OnDisk`
DAY = 86_400  # seconds after which a file that was not finished is nobody's


class Kept(ABC):
    """Decoded images of any sizes: their (height, width), and their pixels (h, w, c) one after the other."""

    def __init__(self, sizes: Int[np.ndarray, "n 2"], channels: int) -> None:
        self.sizes, self.channels = sizes, channels
        self.ends = ends_of(sizes, channels)

    @property
    @abstractmethod
    def pixels(self) -> UInt8[np.ndarray, " bytes"]: ...

    def image(self, i: int) -> Image.Image:
        pixels = image_in(self.pixels, self.ends, i).reshape(*self.sizes[i], self.channels)
        return Image.fromarray(pixels[:, :, 0] if self.channels == 1 else pixels)


class InMemory(Kept):
    """Decoded by its maker, all at once, on a few threads. Processes that are started later share the memory."""

    def __init__(self, rows: LabeledDataset, stages: ImageTransform) -> None:
        super().__init__(sizes_of(rows, stages), stages.shape[0])
        needed = int(self.ends[-1])
        refuse_too_large("memory", needed, free_bytes(torch.device("cpu")), "this machine")
        self.buffer = torch.empty(needed, dtype=torch.uint8)  # a tensor, as an array would be copied for a process
        fill(self.pixels, rows, stages, self.sizes)

    @property
    def pixels(self) -> UInt8[np.ndarray, " bytes"]:
        return self.buffer.numpy()


class OnDisk(Kept):
    """A file, written by the first run that needs it and mapped by all: int32 sizes, then the pixels.

    It is named after all that its pixels follow from and appears whole or not at all.
    """

    def __init__(self, rows: LabeledDataset, stages: ImageTransform) -> None:
        self.path = cache_folder() / f"{identity(rows, stages)}.pixels"
        if not self.path.exists():
            write(self.path, rows, stages)
        with usable(self.path.parent):
            sizes = np.array(np.memmap(self.path, np.int32, mode="r", shape=(len(rows), 2)))
        super().__init__(sizes, stages.shape[0])

    @cached_property
    def pixels(self) -> UInt8[np.ndarray, " bytes"]:
        return np.memmap(self.path, np.uint8, mode="r", offset=self.sizes.nbytes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pixels"}  # every process maps the file


def ends_of(sizes: Int[np.ndarray, "n 2"], channels: int) -> Int[np.ndarray, " n"]:
    """Where each image's pixels end, in bytes."""
    return (sizes.prod(axis=1, dtype=np.int64) * channels).cumsum()


def image_in(pixels: UInt8[np.ndarray, " bytes"], ends: Int[np.ndarray, " n"], i: int) -> UInt8[np.ndarray, " own"]:
    return pixels[ends[i - 1] if i else 0 : ends[i]]


def sizes_of(rows: LabeledDataset, stages: ImageTransform) -> Int[np.ndarray, "n 2"]:
    """The (height, width) of all images as the head leaves them, from the files' headers."""

    def work(block: Sequence[int]) -> list[tuple[int, int]]:
        formats = [rows.format(i) for i in block]
        return [stages.cached_size((found.height, found.width)) for found in formats]

    return np.array([size for sizes in map_blocks(work, range(len(rows))) for size in sizes], dtype=np.int32)


def fill(pixels: np.ndarray, rows: LabeledDataset, stages: ImageTransform, sizes: Int[np.ndarray, "n 2"]) -> None:
    """Decodes all rows into a buffer."""
    ends = ends_of(sizes, stages.shape[0])

    def work(block: Sequence[int]) -> None:
        for i in block:
            image = rows.shown(i, stages.head)[0]
            with rows.naming_errors(i):
                if (image.height, image.width) != tuple(sizes[i]):
                    raise ValueError(f"its header says {sizes[i].tolist()}, it is {[image.height, image.width]} pixels")
            image_in(pixels, ends, i)[:] = np.asarray(image).reshape(-1)

    map_blocks(work, range(len(rows)), threads=count_threads(rows))


def cache_folder() -> Path:
    """SELFDISTILL_CACHE, else `selfdistill` in XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("SELFDISTILL_CACHE")
    place = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "selfdistill"
    try:
        return place.expanduser()
    except RuntimeError:
        raise ValueError(f"machine.cache=disk finds no home folder for {place}; {INSTEAD['disk']}") from None


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Makes a `ValueError` of what the system says of the cache's folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"machine.cache=disk cannot use {folder} ({reason}); {INSTEAD['disk']}") from error


def identity(rows: LabeledDataset, stages: ImageTransform) -> str:
    """Hex digest of all that kept pixels depend on: stored images (files by path, size and times), head and decoder."""
    head = [(type(step).__name__, step.size) for step in stages.resizing]
    digest = hashlib.sha256(repr((FORMAT, PIL.__version__, stages.shape[0], head)).encode())
    for i in range(len(rows)):
        source = rows.source(i)
        if isinstance(source, str):
            found = os.stat(source)
            times = (found.st_mtime_ns, found.st_ctime_ns)  # the second tells of a copy that brought the first along
            source = repr((os.path.abspath(source), found.st_size, times))
            source = source.encode("utf-8", "surrogateescape")
        elif isinstance(source, Image.Image):
            digest.update(repr((source.mode, source.size)).encode())
            source = source.tobytes()
        digest.update(len(source).to_bytes(8, "little") + source)
    return digest.hexdigest()


def write(path: Path, rows: LabeledDataset, stages: ImageTransform) -> None:
    """Decodes all rows into a file that is given its name when it is whole."""
    sizes = sizes_of(rows, stages)
    part = reserved(path.parent, sizes.nbytes + int(ends_of(sizes, stages.shape[0])[-1]))
    try:
        with part.open("r+b") as file:
            file.write(sizes.tobytes())
            file.flush()
            pixels = np.memmap(file, np.uint8, mode="r+", offset=sizes.nbytes)
            fill(pixels, rows, stages, sizes)
            pixels.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def reserved(folder: Path, size: int) -> Path:
    """A new file of so many bytes. Its blocks are taken at once: a mapped file that finds none ends the process."""
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        refuse_too_large("disk", size, float(shutil.disk_usage(folder).free), str(folder))
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
        part = Path(name)
        try:
            take = getattr(os, "posix_fallocate", lambda handle, start, size: os.ftruncate(handle, size))
            take(handle, 0, size)
        except OSError:
            part.unlink()
            raise
        finally:
            os.close(handle)
    return part


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that were killed have begun."""
    for part in folder.glob("*.part"):
        with suppress(OSError):  # another process removes it too, or it is another user's
            if time.time() - part.stat().st_mtime > DAY:
                part.unlink()


def refuse_too_large(cache: str, needed: int, free: float, where: str) -> None:
    """Raises `ValueError` for more bytes than there are."""
    if needed > free:
        figures = f"{needed / GIB:.3g} GiB, and {where} has {free / GIB:.3g} GiB free"
        raise ValueError(f"machine.cache={cache} would keep decoded images of {figures}; {INSTEAD[cache]}")


def free_bytes(device: torch.device) -> float:
    """Bytes that are free on a device; infinity where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines() if os.path.exists("/proc/meminfo") else []
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return found[0] * 2.0**10 if found else math.inf
