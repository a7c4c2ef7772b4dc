"""Reads image files and encoded images, upright: as Pillow images, or as arrays where Pillow has no mode."""

import io
import math
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...config.recipe import DataPart
from ...errors import flatten_message
from .band_files import read_band_header, read_bands
from .bands import Bands, BinaryFile
from .conversion import Stored, get_stored_mode
from .jpeg_header import HEADER_BYTES, read_jpeg_header
from .text_files import NOT_A_FILE, is_special
from .tiff import has_pages

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # keywords of PNG texts that may hold the tag

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # as Pillow calls them
MAX_MEGAPIXELS: float = DataPart().max_megapixels

Source = str | bytes | Stored  # a path, an encoded image, or a decoded one


class Format(NamedTuple):
    """Size and mode from the header of an image, with EXIF orientation applied."""

    width: int
    height: int
    mode: str  # Pillow's, "PA" for a palette with transparency, or one of `Bands`, such as "uint16 x 12"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow's `Image.size`."""
        return self.width, self.height


def read_image(
    source: Source,
    name: str = "",
    *,
    max_megapixels: float = MAX_MEGAPIXELS,
    channels: int = 1,
    draft_side: int = 0,
) -> Stored:
    """Decodes an image in its stored mode, upright; an animation gives its first frame.

    A TIFF of `channels` gray pages is one image. With `draft_side` a JPEG is decoded at a half, a quarter or an eighth
    of its size, as far as a square of its area still has sides of so many pixels. Raises `ValueError`, naming `name` or
    the path, for anything that is not a complete image, and for an image of more than `max_megapixels` million pixels,
    which is not decoded.
    """
    if not isinstance(source, str | bytes):
        return source
    try:
        with _open_file(source) as file:
            bands = read_bands(file, channels, max_megapixels)
            if bands is not None:
                return bands
            with _open(file, max_megapixels) as image:
                if _has_deep_colors(image):
                    return _read_deep_colors(file, image.mode)
                if draft_side:
                    _draft(image, max(math.isqrt(image.width * image.height) // draft_side, 1))
                image.load()
                return _turn_upright(image)
    except Exception as error:  # the readers raise nearly any type on damaged files
        raise _say_unreadable(source, name, error) from None


def read_format(
    source: Source,
    name: str = "",
    *,
    decode: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    channels: int = 1,
) -> Format:
    """Reads size and mode from the header only; arguments and errors as in `read_image`.

    `decode` also decodes the image, to check that it is complete. JPEGs are decoded at an eighth of their size to
    save time.
    """
    if not isinstance(source, str | bytes):
        return Format(*source.size, get_stored_mode(source))
    try:
        with _open_file(source) as file:
            if not decode:
                plain = read_jpeg_header(file.read(HEADER_BYTES))
                if plain is not None and plain.width * plain.height <= max_megapixels * 1e6:
                    return Format(*plain)
                file.seek(0)
            header = read_band_header(file, channels, max_megapixels)
            if header is not None:
                if decode:
                    read_bands(file, channels, max_megapixels)
                return Format(header.width, header.height, header.mode)
            with _open(file, max_megapixels) as image:
                image_format = _read_format(image, file)
                if decode:
                    _draft(image, 8)
                    image.load()
                return image_format
    except Exception as error:
        raise _say_unreadable(source, name, error) from None


def read_reduced(
    source: Source, name: str = "", side: int = 1, *, max_megapixels: float = MAX_MEGAPIXELS, channels: int = 1
) -> tuple[Format, Stored]:
    """The format as `read_format` gives it, and the decoded, upright image; a JPEG is decoded at a reduced size.

    Its shorter side then has at least `side` pixels, or all it has. Errors as in `read_image`.
    """
    if not isinstance(source, str | bytes):
        return Format(*source.size, get_stored_mode(source)), source
    try:
        with _open_file(source) as file:
            bands = read_bands(file, channels, max_megapixels)
            if bands is not None:
                return Format(*bands.size, get_stored_mode(bands)), bands
            with _open(file, max_megapixels) as image:
                image_format = _read_format(image, file)
                if _has_deep_colors(image):
                    return image_format, _read_deep_colors(file, image.mode)
                _draft(image, max(min(image.size) // side, 1))
                image.load()
                upright = _turn_upright(image)
                return image_format, image.copy() if upright is image else upright
    except Exception as error:
        raise _say_unreadable(source, name, error) from None


def is_turned(source: Source) -> bool:
    """Whether the file says that its stored pixels are to be turned or mirrored; False for a file that is no image."""
    if not isinstance(source, str | bytes):
        return False
    try:
        with _open_file(source) as file, _open(file, math.inf) as image:
            return (image.format != "PNG" or _has_orientation(file)) and _read_orientation(image) > 1
    except Exception:
        return False


def shows_first_page(source: Source) -> bool:
    """Whether a stored image is the first of several gray pages; False for a file that is no image."""
    try:
        with _open_file(source) as file:
            return has_pages(file)
    except Exception:
        return False


def _open_file(source: str | bytes) -> BinaryFile:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if is_special(source):
        raise OSError(NOT_A_FILE)
    return open(source, "rb")


def _open(file: BinaryFile, max_megapixels: float) -> Image.Image:
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise ValueError(
            f"it has {width}x{height} pixels, and data.max_megapixels={max_megapixels:g} allows "
            f"{max_megapixels:g} million; raise that if you trust the file, or shrink it"
        )
    return image


def _read_format(image: Image.Image, file: BinaryFile) -> Format:
    """Size and mode of an image that was opened, not decoded."""
    width, height = image.size
    mode = f"{image.mode};16" if _has_deep_colors(image) else get_stored_mode(image)
    # Pillow turns TIFFs by itself and reports their turned size
    may_turn = image.format != "TIFF" and (image.format != "PNG" or _has_orientation(file))
    turned = may_turn and _read_orientation(image) > 4
    return Format(height, width, mode) if turned else Format(width, height, mode)


def _draft(image: Image.Image, factor: int) -> None:
    """Has a JPEG decoded at a share of its size."""
    image.draft(image.mode, (max(image.width // factor, 1), max(image.height // factor, 1)))


def _has_deep_colors(image: Image.Image) -> bool:
    """Whether this is a PNG with colors of 16 bits, of which Pillow keeps the upper half."""
    return image.format == "PNG" and bool(image.tile) and image.tile[0].args in ("RGB;16B", "RGBA;16B")


def _read_deep_colors(file: BinaryFile, mode: str) -> Bands:
    """Reads a PNG with colors of 16 bits; Pillow gives the upper half of the values, and then the lower."""
    halves = []
    for order in "BL":
        with _open(file, math.inf) as image:
            image.tile = [image.tile[0]._replace(args=f"{mode};16{order}")]
            image.load()
            halves.append(np.asarray(_turn_upright(image)).astype(np.uint16))
    return Bands(halves[0] << 8 | halves[1], f"{mode};16")


def _has_orientation(file: BinaryFile) -> bool:
    """Whether a PNG holds metadata that may rotate it.

    The metadata may follow the pixels, so that Pillow finds it only after decoding them. This function reads only the
    head of each chunk of the file: 4 bytes of length and 4 of type. Data and 4 bytes of checksum follow.
    """
    position, start = file.tell(), len(PNG_SIGNATURE)
    try:
        while True:
            file.seek(start)
            head = file.read(32)
            length, chunk_type, data = int.from_bytes(head[:4]), head[4:8], head[8:]
            if chunk_type == b"eXIf" or data.startswith(ORIENTATION_TEXTS):
                return True
            if chunk_type in (b"IEND", b""):  # the last chunk, or the end of a damaged file
                return False
            start += 12 + length
    finally:
        file.seek(position)


def _turn_upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _read_orientation(image) > 1 else image


def _read_orientation(image: Image.Image) -> int:
    if image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}:
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF must not make an image unusable
        return 1


def _say_unreadable(source: str | bytes, name: str, error: Exception) -> ValueError:
    name = name or (source if isinstance(source, str) else "the image")
    if isinstance(error, FileNotFoundError):
        return ValueError(f"{name} does not exist")
    if isinstance(source, str) and is_special(source):
        return ValueError(f"{name} {NOT_A_FILE}")
    if not (os.path.getsize(source) if isinstance(source, str) else len(source)):
        return ValueError(f"{name} cannot be read as an image: it is empty")
    if isinstance(error, UnidentifiedImageError):
        return ValueError(
            f"{name} cannot be read as an image: it has no known image format ({', '.join(FORMATS)}, NPY)"
        )
    reason = flatten_message(error) or type(error).__name__
    return ValueError(f"{name} cannot be read as an image: {reason}")
