"""A data set that keeps its decoded images on the training device, in memory, on the disk, or nowhere."""

import math

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils.data import Dataset

from ..datasets.base import LabeledDataset, Sample
from ..reading import ImageUse, read_images
from ..transforms.base import Transform
from ..transforms.pipeline import ImageTransform
from .disk import DiskImages
from .images import DecodedImages, MemoryImages, SameSizeImages
from .room import GIB, count_free_bytes, describe_no_room, refuse_too_large

MOST = 2 * GIB  # maximum bytes of images that `auto` keeps on a device
SHARE = 1 / 8  # of a device's free memory that `auto` takes


class CachedDataset(Dataset[Sample]):
    """The samples of a data set after `transform.cached`; `cache` says where the images are kept.

    `auto` keeps them on the training device if no step runs per image, and if they take at most 2 GiB and an eighth of
    the free memory there; else nowhere. Raises `ValueError` for images that cannot be kept.
    """

    def __init__(self, dataset: LabeledDataset, transform: Transform, cache: str = "none") -> None:
        if cache not in ("auto", "none"):
            refuse_uncacheable(transform, cache)
        self.dataset, self.transform, self.cache = dataset, transform, cache
        self.images: DecodedImages | None = None
        self._is_decided = False  # where the images are kept

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        """Sample `i`. Raises `ValueError` that names the image."""
        if self.images is not None and self.images.is_complete:
            return Sample(self.images[i], self.dataset.labels[i])
        draft_side = self.transform.draft_side
        sample = Sample(self.dataset.image(i, draft_side), self.dataset.labels[i]) if draft_side else self.dataset[i]
        with self.dataset.name_errors(i):
            return self.transform.cached(sample)

    def fill(self, device: torch.device) -> None:
        """Decodes the images that are to be kept, unless this was done; `device` is the training device.

        Raises `ValueError` for images that cannot be used, and if there is no room.
        """
        self.open_images(device)
        read_images(self.dataset, self.unfilled)

    def open_images(self, device: torch.device) -> None:
        """Makes room for the images that are to be kept, once; errors as in `fill`."""
        if self._is_decided:
            return
        create = self._choose_images(device)
        if create is not None:
            assert isinstance(self.transform, ImageTransform)
            self.images = create(self.dataset, self.transform)
        self._is_decided = True

    def abandon(self) -> None:
        """Gives back the room for images that were not read."""
        for images in self.unfilled:
            images.abandon()
        self.images, self._is_decided = None, False

    def holds_same_images(self, other: "CachedDataset") -> bool:
        """Whether both keep the same images in the same place."""
        transform, other_transform = self.transform, other.transform
        return (
            self.dataset is other.dataset
            and self.cache == other.cache
            and isinstance(transform, ImageTransform)
            and isinstance(other_transform, ImageTransform)
            and transform.cached_identity == other_transform.cached_identity
            and transform.fixed_size == other_transform.fixed_size
        )

    @property
    def unfilled(self) -> list[ImageUse]:
        """The images that are still to be read."""
        return [] if self.images is None or self.images.is_complete else [self.images]

    def on(self, device: torch.device) -> Shaped[Tensor, "n c h w"] | None:
        """All images if they are kept on the device, else None; errors as in `fill`."""
        self.fill(device)
        if not isinstance(self.images, SameSizeImages):
            return None
        try:
            self.images.pixels = self.images.pixels.to(device)
        except torch.OutOfMemoryError:
            raise ValueError(describe_no_room("device", self.bytes, count_free_bytes(device), str(device))) from None
        return self.images.pixels

    def _choose_images(self, device: torch.device) -> type[DecodedImages] | None:
        if self.cache == "memory":
            return MemoryImages
        if self.cache == "disk":
            return DiskImages
        return SameSizeImages if self._fits_on(device) else None

    def _fits_on(self, device: torch.device) -> bool:
        """Whether to keep all images on the device. Raises `ValueError` if they must be there and do not fit."""
        if not self.may_lie_on_device:
            return False
        if self.cache == "device":
            refuse_too_large("device", self.bytes, count_free_bytes(device), f"the memory of {device}")
            return True
        return self.bytes <= SHARE * count_free_bytes(device)

    @property
    def may_lie_on_device(self) -> bool:
        """Whether to keep all images on a device that has room for them."""
        wanted = self.cache == "device" or (self.cache == "auto" and self.bytes <= MOST)
        return wanted and self.transform.fixed_size

    @property
    def bytes(self) -> int:
        """Bytes of all images on a device; 0 if they have no common size."""
        transform = self.transform
        if not isinstance(transform, ImageTransform):
            return 0
        return len(self) * math.prod(transform.shape) * transform.pixels.dtype.itemsize


def refuse_uncacheable(transform: Transform, cache: str) -> None:
    """Raises `ValueError` for images that a cache cannot keep."""
    if not isinstance(transform, ImageTransform):
        raise ValueError(f"machine.cache={cache} keeps images that have one label each; with masks take auto or none")
    if transform.draft_side:
        raise ValueError(
            f"machine.cache={cache} keeps whole images, and data.draft=true reads smaller ones; take auto or none, or"
            " data.draft=false"
        )
    if cache == "device" and not transform.fixed_size:
        raise ValueError(
            "machine.cache=device keeps images of one size, and data.augment has steps that run per image before"
            " that; take memory, disk, none or auto"
        )
