"""Reads `.npy` files, and TIFFs of several channels or pages."""

import math

import numpy as np
from PIL import Image

from .bands import Bands, BinaryFile, Header, as_image, simplify
from .tiff import TIFFS, read_tiff, read_tiff_header

NPY = b"\x93NUMPY"
VALUES_PER_PIXEL = 4  # as many values as `max_megapixels` of RGBA may be decoded


def read_bands(file: BinaryFile, channels: int, max_megapixels: float) -> Image.Image | Bands | None:
    """The image of an `.npy` file, or of a TIFF that Pillow does not read in full; None for any other file.

    `channels` is what `data.channels` asks for: a TIFF of so many gray pages is one image. Raises `ValueError`, or what
    numpy and Pillow raise on damaged files.
    """
    header = read_band_header(file, channels, max_megapixels)
    if header is None:
        return None
    file.seek(0)
    values = np.load(file, allow_pickle=False).reshape(header[:3]) if _is_npy(file) else read_tiff(file, channels)
    return as_image(values)


def read_band_header(file: BinaryFile, channels: int, max_megapixels: float) -> Header | None:
    """Height, width, channels and type of such an image; None and errors as in `read_bands`."""
    magic = file.read(6)
    file.seek(0)
    header = None
    if magic == NPY:
        header = _read_npy_header(file)
    elif magic[:4] in TIFFS:
        header = read_tiff_header(file, channels)
    if header is not None:
        _refuse_large(header, max_megapixels)
    return header


def _is_npy(file: BinaryFile) -> bool:
    magic = file.read(len(NPY))
    file.seek(0)
    return magic == NPY


def _read_npy_header(file: BinaryFile) -> Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "buif":
        raise ValueError(f"it holds values of type {dtype}; an image holds integers or floats")
    if len(shape) not in (2, 3) or not math.prod(shape):
        raise ValueError(f"its array has the shape {shape}; an image has (h, w) or (h, w, c)")
    return Header(shape[0], shape[1], shape[2] if len(shape) == 3 else 1, simplify(dtype))


def _refuse_large(header: Header, max_megapixels: float) -> None:
    height, width, channels, _ = header
    if height * width > max_megapixels * 1e6 or height * width * channels > VALUES_PER_PIXEL * max_megapixels * 1e6:
        raise ValueError(
            f"it has {width}x{height} pixels of {channels} channels, and data.max_megapixels={max_megapixels:g} allows "
            f"{max_megapixels:g} million, with {VALUES_PER_PIXEL} values each; raise that if you trust the file"
        )
