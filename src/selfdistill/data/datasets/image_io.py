"""Reads image files and encoded images as upright PIL images, and converts their channels."""

import io
import math
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...config.recipe import DataPart
from ...errors import flatten_message
from .text_files import NOT_A_FILE, is_special

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GRAY_16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
DEEP = GRAY_16 | {"I", "F"}  # gray of more than 8 bits: 16 bits, signed 32 bits, floats
GRAY = frozenset({"1", "L", "LA"}) | DEEP
ALPHA = frozenset({"LA", "PA", "RGBA"})
CONVERTIBLE = GRAY | ALPHA | {"P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # keywords of PNG texts that may hold the tag

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # as Pillow calls them
MAX_MEGAPIXELS: float = DataPart().max_megapixels

Source = str | bytes | Image.Image  # a path, an encoded image, or a decoded one


class Format(NamedTuple):
    """Size and mode from the header of an image, with EXIF orientation applied."""

    width: int
    height: int
    mode: str  # Pillow's; a palette with transparency is "PA"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow's `Image.size`."""
        return self.width, self.height


def read_image(source: Source, name: str = "", *, max_megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Decodes an image in its stored mode, upright; an animation gives its first frame.

    Raises `ValueError`, naming `name` or the path, for anything that is not a complete image, and for an image of more
    than `max_megapixels` million pixels, which is not decoded.
    """
    if isinstance(source, Image.Image):
        return source
    try:
        with _open(source, max_megapixels) as image:
            image.load()
            return ImageOps.exif_transpose(image) if _read_orientation(image) > 1 else image
    except Exception as error:  # Pillow's readers raise nearly any type on damaged files
        raise _say_unreadable(source, name, error) from None


def read_format(
    source: Source, name: str = "", *, decode: bool = False, max_megapixels: float = MAX_MEGAPIXELS
) -> Format:
    """Reads size and mode from the header only; errors as in `read_image`.

    `decode` also decodes the image, to check that it is complete. JPEGs are decoded at an eighth of their size to
    save time.
    """
    if isinstance(source, Image.Image):
        return Format(*source.size, get_stored_mode(source))
    try:
        with _open(source, max_megapixels) as image:
            width, height = image.size
            mode = get_stored_mode(image)
            # Pillow turns TIFFs by itself and reports their turned size
            may_turn = image.format != "TIFF" and (image.format != "PNG" or _has_orientation(source))
            turned = may_turn and _read_orientation(image) > 4
            if decode:
                image.draft(image.mode, (max(width // 8, 1), max(height // 8, 1)))
                image.load()
            return Format(height, width, mode) if turned else Format(width, height, mode)
    except Exception as error:
        raise _say_unreadable(source, name, error) from None


def read_reduced(
    source: Source, name: str = "", side: int = 1, *, max_megapixels: float = MAX_MEGAPIXELS
) -> tuple[Format, Image.Image]:
    """The format as `read_format` gives it, and the decoded, upright image; a JPEG is decoded at a reduced size.

    Its shorter side then has at least `side` pixels, or all it has. Errors as in `read_image`.
    """
    if isinstance(source, Image.Image):
        return Format(*source.size, get_stored_mode(source)), source
    try:
        with _open(source, max_megapixels) as image:
            (width, height), mode = image.size, get_stored_mode(image)
            factor = max(min(width, height) // side, 1)
            image.draft(image.mode, (max(width // factor, 1), max(height // factor, 1)))
            image.load()
            orientation = _read_orientation(image)
            turned = image.format != "TIFF" and orientation > 4
            upright = ImageOps.exif_transpose(image) if orientation > 1 else image.copy()
            return Format(height, width, mode) if turned else Format(width, height, mode), upright
    except Exception as error:
        raise _say_unreadable(source, name, error) from None


def is_turned(source: Source) -> bool:
    """Whether the file says that its stored pixels are to be turned or mirrored; False for a file that is no image."""
    if isinstance(source, Image.Image):
        return False
    try:
        with _open(source, math.inf) as image:
            return (image.format != "PNG" or _has_orientation(source)) and _read_orientation(image) > 1
    except Exception:
        return False


def get_stored_mode(image: Image.Image) -> str:
    """Pillow's mode, or a more specific one if Pillow's is ambiguous."""
    if image.mode == "P" and "transparency" in image.info:
        return "PA"
    return image.mode


def convert_channels(image: Image.Image, channels: int, gray_range: tuple[float, float] | None = None) -> Image.Image:
    """Converts an image to 1 (gray), 3 (RGB) or 4 (RGBA) channels of 8 bits, if it is different.

    Palettes are looked up, CMYK and YCbCr become RGB, and color becomes gray by luma. Gray of more than 8 bits is
    scaled from `gray_range` to 0..255, by default from 0..65535 if it has 16 bits. Alpha is dropped, not blended with a
    background, unless `channels` is 4.
    """
    wanted, mode = MODES[channels], get_stored_mode(image)
    if mode == wanted:
        return image
    refuse_mode(mode)
    if mode in DEEP:
        image = _reduce_to_8_bits(image, mode, gray_range)
    elif mode == "PA":
        image = image.convert("RGBA")
    elif mode not in GRAY and mode != "RGBA":
        image = image.convert("RGB")  # through RGB, because not every pair of modes has a direct conversion
    return image if image.mode == wanted else image.convert(wanted)


def refuse_mode(mode: str) -> None:
    """Raises `ValueError` for a mode without a safe conversion."""
    if mode not in CONVERTIBLE:
        raise ValueError(f"mode {mode} has no safe conversion to 8 bits; save it as 8- or 16-bit gray, RGB or RGBA")


def _reduce_to_8_bits(image: Image.Image, mode: str, gray_range: tuple[float, float] | None) -> Image.Image:
    if gray_range is None and mode in GRAY_16:
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if gray_range is None:
        raise ValueError(f"mode {mode} has gray values of unknown range; set data.gray_range=LOW,HIGH")
    low, high = gray_range
    values = (np.asarray(image).astype(np.float64) - low) * (255 / (high - low))
    return Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))


def _open(source: str | bytes, max_megapixels: float) -> Image.Image:
    if isinstance(source, str) and is_special(source):
        raise OSError(NOT_A_FILE)
    image = Image.open(source if isinstance(source, str) else io.BytesIO(source), formats=FORMATS)
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        image.close()
        raise ValueError(
            f"it has {width}x{height} pixels, and data.max_megapixels={max_megapixels:g} allows "
            f"{max_megapixels:g} million; raise that if you trust the file, or shrink it"
        )
    return image


def _has_orientation(png: str | bytes) -> bool:
    """Whether a PNG holds metadata that may rotate it.

    The metadata may follow the pixels, so that Pillow finds it only after decoding them. This function reads only the
    head of each chunk of the file: 4 bytes of length and 4 of type. Data and 4 bytes of checksum follow.
    """
    with open(png, "rb", buffering=0) if isinstance(png, str) else io.BytesIO(png) as file:
        start = len(PNG_SIGNATURE)
        while True:
            file.seek(start)
            head = file.read(32)
            length, chunk_type, data = int.from_bytes(head[:4]), head[4:8], head[8:]
            if chunk_type == b"eXIf" or data.startswith(ORIENTATION_TEXTS):
                return True
            if chunk_type in (b"IEND", b""):  # the last chunk, or the end of a damaged file
                return False
            start += 12 + length


def _read_orientation(image: Image.Image) -> int:
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
        return ValueError(f"{name} cannot be read as an image: it has no known image format ({', '.join(FORMATS)})")
    reason = flatten_message(error) or type(error).__name__
    return ValueError(f"{name} cannot be read as an image: {reason}")
