"""What the stored images of a data set are like: each is read once, and every one that cannot be used is kept."""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from .datasets.base import LabeledDataset
from .datasets.conversion import Stored, get_stored_mode, get_values, is_deep, to_8_bits
from .datasets.image_io import Format, Source, read_reduced
from .datasets.masks import MaskDataset
from .datasets.text_files import is_special
from .datasets.threads import iterate_blocks

SIDE = 16  # pixels of a thumbnail, by which near duplicates are found
FLAT = 4  # levels of 256 between the darkest and the brightest pixel of a nearly empty image
REDUCED = 64  # pixels of the shorter side, at least, at which a JPEG is decoded


class Seen(NamedTuple):
    """What is kept of one image that can be used."""

    format: Format
    num_bytes: int
    digest: bytes  # of the file, or of the pixels where an image is stored as such
    thumbnail: np.ndarray  # (16, 16) uint8, gray, stretched to a square
    is_flat: bool  # whether hardly anything is to be seen on it
    pixels: np.ndarray | None  # (k,) pixels of each class, of a mask
    num_void: int = 0  # pixels of the mask without a class
    extent: tuple[float, float] | None = None  # least and largest value, of an image of more than 8 bits


class Inspection(NamedTuple):
    """What `inspect_images` finds out about the images of one split."""

    dataset: LabeledDataset
    indices: Sequence[int]  # the images that were read
    seen: dict[int, Seen]  # by index, of those that can be used
    errors: dict[int, str]  # by index, why the others cannot, each in a sentence that names the file


def inspect_images(
    dataset: LabeledDataset, indices: Sequence[int], *, show: Callable[[int], None] = lambda count: None
) -> Inspection:
    """Reads and decodes the images at `indices`, JPEGs at a reduced size, and their masks.

    `show` is told how many images were read since it was last called.
    """
    seen: dict[int, Seen] = {}
    errors: dict[int, str] = {}

    def work(block: Sequence[int]) -> list[tuple[int, Seen | str]]:
        return [(i, inspect_image(dataset, i)) for i in block]

    for found in iterate_blocks(work, indices):
        for i, one in found:
            if isinstance(one, str):
                errors[i] = one
            else:
                seen[i] = one
        show(len(found))
    return Inspection(dataset, indices, seen, errors)


def inspect_image(dataset: LabeledDataset, i: int) -> Seen | str:
    """What is kept of an image, or why it cannot be used."""
    try:
        source = dataset.source(i)
        stored = _read_bytes(source)
        image_format, image = read_reduced(
            stored if stored is not None else source,
            dataset.name(i),
            REDUCED,
            max_megapixels=dataset.max_megapixels,
            channels=dataset.channels,
        )
        digest = hashlib.blake2b(image.tobytes() if stored is None else stored, digest_size=16).digest()
        gray = to_8_bits(image, 1)
        low, high = gray.getextrema()
        pixels, num_void = _count_pixels(dataset, i, image_format)
        thumbnail = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0))
        return Seen(
            image_format, dataset.size(i), digest, thumbnail, high - low <= FLAT, pixels, num_void, _find_extent(image)
        )
    except (ValueError, OSError) as error:
        return str(error)


def _read_bytes(source: Source) -> bytes | None:
    """An encoded image as it is stored; None for a decoded one, and for a path that is better left to the reader."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, Stored) or is_special(source) or not os.path.exists(source):
        return None
    with open(source, "rb") as file:
        return file.read()


def _find_extent(image: Stored) -> tuple[float, float] | None:
    if not is_deep(get_stored_mode(image)):
        return None
    values = get_values(image, 1)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None


def _count_pixels(dataset: LabeledDataset, i: int, image_format: Format) -> tuple[np.ndarray | None, int]:
    """The pixels of each class and those without one; None where an image has one label."""
    if not isinstance(dataset, MaskDataset):
        return None, 0
    mask = dataset.mask(i, image_format.size)
    labeled = mask[mask >= 0]
    counts = torch.bincount(labeled, minlength=len(dataset.classes)).numpy()
    return counts, mask.numel() - labeled.numel()
