"""Decoded images, kept in memory."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from PIL import Image
from torch import Tensor

from ..datasets.base import LabeledDataset
from ..datasets.conversion import Stored
from ..reading import ImageUse
from ..transforms.base import get_size
from ..transforms.pipeline import ImageTransform
from .room import count_free_bytes, refuse_too_large


class DecodedImages(ImageUse, ABC):
    """The images of a data set after `transform.cached`, by index.

    `read_images` writes them one by one, in any order and from several threads.
    """

    def __init__(self, dataset: LabeledDataset, transform: ImageTransform) -> None:
        self.indices = range(len(dataset))  # the images that are still to be written
        self.transform = transform

    @abstractmethod
    def __getitem__(self, i: int) -> Image.Image | Tensor: ...

    @abstractmethod
    def write(self, i: int, image: Image.Image | Tensor) -> None:
        """Keeps image `i`, after `transform.cached`."""

    def add(self, i: int, image: Stored) -> None:
        self.write(i, self.transform.cached_image(image))

    @property
    def is_complete(self) -> bool:
        return not len(self.indices)

    def finish(self) -> None:
        self.indices = range(0)


class SameSizeImages(DecodedImages):
    """Images of one size in one tensor, which can be moved to a device."""

    def __init__(self, dataset: LabeledDataset, transform: ImageTransform) -> None:
        super().__init__(dataset, transform)
        dtype = transform.pixels.dtype
        self.pixels: Shaped[Tensor, "n c h w"] = torch.empty(len(dataset), *transform.shape, dtype=dtype)

    def __getitem__(self, i: int) -> Image.Image | Tensor:
        return to_image(self.pixels[i].cpu())

    def write(self, i: int, image: Image.Image | Tensor) -> None:
        if isinstance(image, Tensor):
            self.pixels[i] = image
        else:  # an array takes the pixels in half the time that a tensor takes
            channels, height, width = self.pixels.shape[1:]
            self.pixels.numpy()[i] = np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


class PackedImages(DecodedImages):
    """Images of any size: their (height, width), and their pixels one after the other.

    Those of an image are bytes (h, w, c), or floats (c, h, w).
    """

    pixels: UInt8[np.ndarray, " bytes"]

    def __init__(self, dataset: LabeledDataset, transform: ImageTransform, sizes: Int[np.ndarray, "n 2"]) -> None:
        super().__init__(dataset, transform)
        self.sizes = sizes
        self.ends = find_ends(sizes, count_pixel_bytes(transform))  # end of the pixels of each image, in bytes

    def __getitem__(self, i: int) -> Image.Image | Tensor:
        pixels, channels = self._get_pixels(i), self.transform.channels
        if self.transform.pixels.is_deep:
            return torch.from_numpy(pixels.copy().view(np.float32).reshape(channels, *self.sizes[i]))
        return to_pil_image(pixels.reshape(*self.sizes[i], channels))

    def write(self, i: int, image: Image.Image | Tensor) -> None:
        if get_size(image) != tuple(self.sizes[i]):
            size = [*get_size(image)]
            raise ValueError(f"its header says {self.sizes[i].tolist()}, it is {size} pixels")
        values = image.contiguous().numpy() if isinstance(image, Tensor) else np.asarray(image)
        self._get_pixels(i)[:] = values.reshape(-1).view(np.uint8)

    def _get_pixels(self, i: int) -> UInt8[np.ndarray, " image"]:
        return self.pixels[self.ends[i - 1] if i else 0 : self.ends[i]]


class MemoryImages(PackedImages):
    """Images in the memory of this process, shared with processes that are started later."""

    def __init__(self, dataset: LabeledDataset, transform: ImageTransform) -> None:
        super().__init__(dataset, transform, read_sizes(dataset, transform))
        needed = int(self.ends[-1])
        refuse_too_large("memory", needed, count_free_bytes(torch.device("cpu")), "this machine")
        self.buffer = torch.empty(needed, dtype=torch.uint8)  # an array would be copied for each process

    @property
    def pixels(self) -> UInt8[np.ndarray, " bytes"]:
        return self.buffer.numpy()


def to_image(pixels: Shaped[Tensor, "c h w"]) -> Image.Image | Tensor:
    """A Pillow image of bytes; floats as they are."""
    return pixels if pixels.is_floating_point() else to_pil_image(pixels.permute(1, 2, 0).contiguous().numpy())


def to_pil_image(pixels: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def count_pixel_bytes(transform: ImageTransform) -> int:
    """Bytes of one pixel of all channels."""
    return transform.channels * transform.pixels.dtype.itemsize


def find_ends(sizes: Int[np.ndarray, "n 2"], pixel_bytes: int) -> Int[np.ndarray, " n"]:
    return (sizes.prod(axis=1, dtype=np.int64) * pixel_bytes).cumsum()


def read_sizes(dataset: LabeledDataset, transform: ImageTransform) -> Int[np.ndarray, "n 2"]:
    """The (height, width) of all images after `transform.cached`, from the files' headers."""
    sizes, numbers = np.unique(dataset.read_sizes(), axis=0, return_inverse=True)
    cached = [transform.cached_size((int(height), int(width))) for height, width in sizes]
    return np.array(cached, dtype=np.int32)[numbers.reshape(-1)]
