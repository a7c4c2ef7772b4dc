"""Where decoded images are kept between epochs: on the training device, in memory, on the disk, or nowhere."""

import hashlib
import math
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from .presentation import Presentation
from .rows import Rows, over_rows, threads_for
from .steps import Stages

GIB = 2**30
MOST = 2 * GIB  # bytes of images that `auto` keeps on a device
SHARE = 1 / 8  # of a device's free memory that `auto` takes
INSTEAD = {
    "device": "take memory, disk or none",
    "memory": "take disk or none",
    "disk": "name another folder in SELFDISTILL_CACHE, or take none",
}
FORMAT = 1  # of the files of `OnDisk`
NO_KEYS = torch.zeros(1, dtype=torch.int64)


class Store:
    """The images of rows as the head of a transform leaves them, kept where `cache` says.

    `auto` keeps them on the training device where nothing is done with them image by image, and where they take no more
    than 2 GiB and an eighth of what is free there; else nowhere.
    """

    def __init__(self, rows: Rows, stages: Stages, cache: str = "none") -> None:
        if cache not in ("auto", "none"):
            refuse_unkept(stages, cache)
        self.rows, self.stages, self.cache = rows, stages, cache
        self.kept: Kept | None = None
        self.on_device: Tensor | None = None

    def shown(self, i: int, then: Callable[[Any], Any]) -> tuple[Any, Tensor]:
        """What `then` makes of image `i` as the head leaves it, and its target; its `ValueError`s name the row."""
        if self.kept is None:
            return self.rows.shown(i, lambda *stored: then(self.stages.head(*stored)))
        with self.rows.named(i):
            return then(self.kept.image(i)), self.rows.labels[i]

    def ready(self, device: torch.device) -> UInt8[Tensor, "n c h w"] | None:
        """All images, where they are kept on the device. Whatever is to be kept is decoded by the first call.

        Raises `ValueError` for an image that cannot be used, and where there is no room.
        """
        if self.cache in KEEPERS and self.kept is None:
            assert isinstance(self.stages, Presentation)
            self.kept = KEEPERS[self.cache](self.rows, self.stages)
        if self.on_device is None and self.lies_on(device):
            assert isinstance(self.stages, Presentation)
            self.on_device = decoded(self.rows, self.stages).to(device)
        return self.on_device

    def lies_on(self, device: torch.device) -> bool:
        """Whether all images belong on the device; `ValueError` where they must and there is no room."""
        if not self.small_enough:
            return False
        assert isinstance(self.stages, Presentation)
        if self.cache == "device":
            refuse_too_large("device", self.bytes, free_bytes(device), f"the memory of {device}")
            return True
        return self.bytes <= SHARE * free_bytes(device)

    @property
    def small_enough(self) -> bool:
        """Whether all images belong on a device, if that has room for them."""
        fits = self.cache == "device" or (self.cache == "auto" and self.bytes <= MOST)
        return fits and self.stages.settled

    @property
    def bytes(self) -> int:
        """Of all images on a device; 0 for stages that are not settled."""
        return len(self.rows) * math.prod(self.stages.shape) if isinstance(self.stages, Presentation) else 0


def refuse_unkept(stages: Stages, cache: str) -> None:
    """Raises `ValueError` for images that a cache cannot keep."""
    if not isinstance(stages, Presentation):
        raise ValueError(f"machine.cache={cache} keeps images that have one label each; with masks take auto or none")
    if cache == "device" and not stages.settled:
        raise ValueError(
            "machine.cache=device keeps images of one size, and data.augment holds what is done image by image before"
            " that; take memory, disk, none or auto"
        )


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


def decoded(rows: Rows, stages: Presentation) -> UInt8[Tensor, "n c h w"]:
    """The pixels of all rows, for stages that are settled."""
    pixels = torch.empty(len(rows), *stages.shape, dtype=torch.uint8)

    def work(block: Sequence[int]) -> None:
        for i in block:
            pixels[i] = rows.shown(i, lambda image: stages.one(stages.head(image), NO_KEYS))[0]

    over_rows(work, range(len(rows)), threads=threads_for(rows))
    return pixels


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

    def __init__(self, rows: Rows, stages: Presentation) -> None:
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

    def __init__(self, rows: Rows, stages: Presentation) -> None:
        self.path = cache_folder() / f"{identity(rows, stages)}.pixels"
        if not self.path.exists():
            write(self.path, rows, stages)
        super().__init__(np.array(np.memmap(self.path, np.int32, mode="r", shape=(len(rows), 2))), stages.shape[0])

    @cached_property
    def pixels(self) -> UInt8[np.ndarray, " bytes"]:
        return np.memmap(self.path, np.uint8, mode="r", offset=self.sizes.nbytes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pixels"}  # every process maps the file


KEEPERS: dict[str, type[InMemory] | type[OnDisk]] = {"memory": InMemory, "disk": OnDisk}


def ends_of(sizes: Int[np.ndarray, "n 2"], channels: int) -> Int[np.ndarray, " n"]:
    """Where each image's pixels end, in bytes."""
    return (sizes.prod(axis=1, dtype=np.int64) * channels).cumsum()


def image_in(pixels: UInt8[np.ndarray, " bytes"], ends: Int[np.ndarray, " n"], i: int) -> UInt8[np.ndarray, " own"]:
    return pixels[ends[i - 1] if i else 0 : ends[i]]


def sizes_of(rows: Rows, stages: Presentation) -> Int[np.ndarray, "n 2"]:
    """The (height, width) of all images as the head leaves them, from the files' headers."""

    def work(block: Sequence[int]) -> list[tuple[int, int]]:
        formats = [rows.format(i) for i in block]
        return [stages.head_size((found.height, found.width)) for found in formats]

    return np.array([size for sizes in over_rows(work, range(len(rows))) for size in sizes], dtype=np.int32)


def fill(pixels: np.ndarray, rows: Rows, stages: Presentation, sizes: Int[np.ndarray, "n 2"]) -> None:
    """Decodes all rows into a buffer."""
    ends = ends_of(sizes, stages.shape[0])

    def work(block: Sequence[int]) -> None:
        for i in block:
            image = rows.shown(i, stages.head)[0]
            with rows.named(i):
                if (image.height, image.width) != tuple(sizes[i]):
                    raise ValueError(f"its header says {sizes[i].tolist()}, it is {[image.height, image.width]} pixels")
            image_in(pixels, ends, i)[:] = np.asarray(image).reshape(-1)

    over_rows(work, range(len(rows)), threads=threads_for(rows))


def cache_folder() -> Path:
    """SELFDISTILL_CACHE, else `selfdistill` in XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("SELFDISTILL_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "selfdistill"


def identity(rows: Rows, stages: Presentation) -> str:
    """Hex digest of all that kept pixels depend on: stored images (files by path, size and time), head and decoder."""
    head = [(type(step).__name__, step.size) for step in stages.resizing]
    digest = hashlib.sha256(repr((FORMAT, PIL.__version__, stages.shape[0], head)).encode())
    for i in range(len(rows)):
        source = rows.source(i)
        if isinstance(source, str):
            found = os.stat(source)
            source = repr((os.path.abspath(source), found.st_size, found.st_mtime_ns))
            source = source.encode("utf-8", "surrogateescape")
        elif isinstance(source, Image.Image):
            digest.update(repr((source.mode, source.size)).encode())
            source = source.tobytes()
        digest.update(len(source).to_bytes(8, "little") + source)
    return digest.hexdigest()


def write(path: Path, rows: Rows, stages: Presentation) -> None:
    """Decodes all rows into a file that is given its name when it is whole."""
    sizes = sizes_of(rows, stages)
    needed = sizes.nbytes + int(ends_of(sizes, stages.shape[0])[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_too_large("disk", needed, float(shutil.disk_usage(path.parent).free), str(path.parent))
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(sizes.tobytes())
            file.truncate(needed)
        pixels = np.memmap(name, np.uint8, mode="r+", offset=sizes.nbytes)
        fill(pixels, rows, stages, sizes)
        pixels.flush()
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
