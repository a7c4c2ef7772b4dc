"""Where decoded images are kept between epochs: on the training device, in memory, on the disk, or nowhere."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from ..datasets.base import LabeledDataset, count_threads, map_blocks
from ..transforms.base import Stages
from ..transforms.pipeline import ImageTransform
from .storage import GIB, InMemory, Kept, OnDisk, free_bytes, refuse_too_large

MOST = 2 * GIB  # bytes of images that `auto` keeps on a device
SHARE = 1 / 8  # of a device's free memory that `auto` takes
KEEPERS: dict[str, type[InMemory] | type[OnDisk]] = {"memory": InMemory, "disk": OnDisk}
NO_KEYS = torch.zeros(1, dtype=torch.int64)


class Store:
    """The images of rows as the head of a transform leaves them, kept where `cache` says.

    `auto` keeps them on the training device where nothing is done with them image by image, and where they take no more
    than 2 GiB and an eighth of what is free there; else nowhere.
    """

    def __init__(self, rows: LabeledDataset, stages: Stages, cache: str = "none") -> None:
        if cache not in ("auto", "none"):
            refuse_unkept(stages, cache)
        self.rows, self.stages, self.cache = rows, stages, cache
        self.kept: Kept | None = None
        self.on_device: Tensor | None = None
        self.device: torch.device | None = None  # where that was asked for

    def shown(self, i: int, then: Callable[[Any], Any]) -> tuple[Any, Tensor]:
        """What `then` makes of image `i` as the head leaves it, and its target; its `ValueError`s name the row."""
        if self.kept is None:
            return self.rows.shown(i, lambda *stored: then(self.stages.head(*stored)))
        with self.rows.naming_errors(i):
            return then(self.kept.image(i)), self.rows.labels[i]

    def keep(self) -> None:
        """Decodes whatever memory or the disk is to keep.

        Raises `ValueError` for an image that cannot be used, and where there is no room.
        """
        if self.cache in KEEPERS and self.kept is None:
            assert isinstance(self.stages, ImageTransform)
            self.kept = KEEPERS[self.cache](self.rows, self.stages)

    def ready(self, device: torch.device) -> UInt8[Tensor, "n c h w"] | None:
        """All images, where they are kept on the device, decoded by the first call; errors as of `keep`."""
        self.keep()
        if self.device != device and self.lies_on(device):
            assert isinstance(self.stages, ImageTransform)
            self.on_device, self.device = decoded(self.rows, self.stages).to(device), device
        return self.on_device if self.device == device else None

    def lies_on(self, device: torch.device) -> bool:
        """Whether all images belong on the device; `ValueError` where they must and there is no room."""
        if not self.small_enough:
            return False
        assert isinstance(self.stages, ImageTransform)
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
        return len(self.rows) * math.prod(self.stages.shape) if isinstance(self.stages, ImageTransform) else 0


def refuse_unkept(stages: Stages, cache: str) -> None:
    """Raises `ValueError` for images that a cache cannot keep."""
    if not isinstance(stages, ImageTransform):
        raise ValueError(f"machine.cache={cache} keeps images that have one label each; with masks take auto or none")
    if cache == "device" and not stages.settled:
        raise ValueError(
            "machine.cache=device keeps images of one size, and data.augment holds what is done image by image before"
            " that; take memory, disk, none or auto"
        )


def decoded(rows: LabeledDataset, stages: ImageTransform) -> UInt8[Tensor, "n c h w"]:
    """The pixels of all rows, for stages that are settled."""
    pixels = torch.empty(len(rows), *stages.shape, dtype=torch.uint8)

    def work(block: Sequence[int]) -> None:
        for i in block:
            pixels[i] = rows.shown(i, lambda image: stages.one(stages.head(image), NO_KEYS))[0]

    map_blocks(work, range(len(rows)), threads=count_threads(rows))
    return pixels
