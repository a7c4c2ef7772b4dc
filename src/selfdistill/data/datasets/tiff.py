"""Reads TIFFs of several channels or pages, which Pillow does not read in full.

Pillow decompresses them: each is shown to it as a gray image of 8 bits whose rows are the bytes of the stored rows.
"""

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from .bands import BinaryFile, Header, simplify

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two have offsets of 64 bits
LOSSY = (6, 7, 34892, 50001)  # TIFF's numbers of JPEG and WebP
KINDS = {1: "u", 2: "i", 3: "f"}  # TIFF's sample formats
PILLOW_CHANNELS = (1, 3, 4)

# TIFF tags
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 266, 274, 277
ROWS, STRIPS, STRIP_BYTES = 278, 273, 279
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
PLANAR, PREDICTOR, EXTRA, SAMPLE_FORMAT = 284, 317, 338, 339


def read_tiff_header(file: BinaryFile, channels: int) -> Header | None:
    """Height, width, channels and type of a TIFF that Pillow does not read in full; None for others.

    `channels` is what `data.channels` asks for: so many gray pages are one image.
    """
    directories = _list_directories(file, channels)
    first = directories[0]
    samples, types = first.get(SAMPLES, 1), {_read_type(directory) for directory in directories}
    bits, extra = first.get(BITS, (1,))[0], first.get(EXTRA, (0,))[0]
    is_pillows = samples <= 4 and (bits <= 8 or samples == 1)
    is_asked_for = samples == channels and samples in (2, 4) and extra == 0
    if len(directories) == 1 and is_pillows and not is_asked_for:
        return None
    if len(types) > 1 or None in types:
        raise ValueError(f"its channels are of {bits} bits in a form that is not read; save it as .npy of (h, w, c)")
    if first.get(COMPRESSION, 1) in LOSSY:
        raise ValueError("it is compressed with loss, and has several channels; save it without")
    height, width = (first[WIDTH], first[HEIGHT]) if first.get(ORIENTATION, 1) > 4 else (first[HEIGHT], first[WIDTH])
    return Header(height, width, samples * len(directories), simplify(np.dtype(types.pop())))


def read_tiff(file: BinaryFile, channels: int) -> np.ndarray:
    """The values (h, w, c) of such a TIFF, upright."""
    directories, data = _list_directories(file, channels), file.read()
    values = np.concatenate([_read_directory(data, directory) for directory in directories], axis=2)
    return _turn_upright(values, directories[0].get(ORIENTATION, 1))


def _list_directories(file: BinaryFile, channels: int) -> list[TiffImagePlugin.ImageFileDirectory_v2]:
    """The first page of a TIFF, or all of them where they are `channels` gray ones of one size."""
    pages = _read_pages(file, 1 if channels == 1 else channels + 1)
    if not _are_alike(pages) or channels == 1 or len(pages) == 1:
        return pages[:1]
    if len(pages) != channels and channels not in PILLOW_CHANNELS:
        found = len(pages) if len(pages) < channels else f"more than {channels}"
        raise ValueError(f"it has {found} pages, and data.channels={channels}")
    return pages if len(pages) == channels else pages[:1]


def _read_pages(file: BinaryFile, most: int) -> list[TiffImagePlugin.ImageFileDirectory_v2]:
    """The first pages of a TIFF."""
    file.seek(0)
    start = file.read(8)
    if start[2:4] in (b"+\0", b"\0+"):
        start += file.read(8)
    pages: list[TiffImagePlugin.ImageFileDirectory_v2] = []
    following = TiffImagePlugin.ImageFileDirectory_v2(start).next
    while following and len(pages) < most:
        directory = TiffImagePlugin.ImageFileDirectory_v2(start)
        file.seek(following)
        directory.load(file)
        pages.append(directory)
        following = directory.next
    file.seek(0)
    if not pages or WIDTH not in pages[0] or HEIGHT not in pages[0]:
        raise ValueError("it has no page with a size")
    return pages


def _are_alike(pages: Sequence[TiffImagePlugin.ImageFileDirectory_v2]) -> bool:
    """Whether pages are gray and of one size, so that they may be the channels of an image."""
    kinds = {(page.get(WIDTH), page.get(HEIGHT), page.get(SAMPLES, 1)) for page in pages}
    return len(kinds) == 1 and pages[0].get(SAMPLES, 1) == 1


def has_pages(file: BinaryFile) -> bool:
    """Whether this is a TIFF of several gray pages of one size, of which the first is read unless all are asked for."""
    if file.read(4) not in TIFFS:
        return False
    pages = _read_pages(file, 2)
    return len(pages) > 1 and _are_alike(pages)


def _read_type(directory: TiffImagePlugin.ImageFileDirectory_v2) -> str | None:
    """numpy's name of the type of a page's values; None where there is none, or several."""
    samples = directory.get(SAMPLES, 1)
    bits, formats = set(directory.get(BITS, (1,))), set(directory.get(SAMPLE_FORMAT, (1,)))
    kind = KINDS.get(min(formats))
    if len(bits) != 1 or len(formats) != 1 or kind is None or samples < 1 or min(bits) not in (8, 16, 32, 64):
        return None
    order = "<" if directory.prefix == b"II" else ">"
    name = f"{order}{kind}{min(bits) // 8}"
    return None if name[1:] == "f1" else name


def _turn_upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """The values (h, w, c) as EXIF's orientation 1 to 8 says that they are to be seen."""
    if orientation > 4:
        values = values.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _read_directory(data: bytes, directory: TiffImagePlugin.ImageFileDirectory_v2) -> np.ndarray:
    """The values (h, w, c) of a page."""
    samples, dtype = directory.get(SAMPLES, 1), np.dtype(_read_type(directory))
    if directory.get(PLANAR, 1) == 1:
        return _read_plane(data, directory, dtype, samples, part=slice(None))
    chunks = len(directory[TILES] if TILES in directory else directory[STRIPS]) // samples
    planes = [_read_plane(data, directory, dtype, 1, part=slice(k * chunks, (k + 1) * chunks)) for k in range(samples)]
    return np.concatenate(planes, axis=2)


def _read_plane(
    data: bytes, directory: TiffImagePlugin.ImageFileDirectory_v2, dtype: np.dtype[Any], samples: int, *, part: slice
) -> np.ndarray:
    """The values (h, w, samples) of some strips or tiles."""
    height, width, scale = directory[HEIGHT], directory[WIDTH], samples * dtype.itemsize
    shown = {WIDTH: (width * scale,), HEIGHT: (height,), BITS: (8,), SAMPLES: (1,), PHOTOMETRIC: (1,)}
    shown |= {tag: (directory.get(tag, 1),) for tag in (COMPRESSION, FILL_ORDER)}
    block = width  # pixels of a row that are stored together
    if TILES in directory:
        block = directory[TILE_WIDTH]
        shown |= {TILE_WIDTH: (block * scale,), TILE_HEIGHT: (directory[TILE_HEIGHT],)}
        shown |= {tag: directory[tag][part] for tag in (TILES, TILE_BYTES)}
    else:
        shown[ROWS] = (min(directory.get(ROWS, height), height),)
        shown |= {tag: directory[tag][part] for tag in (STRIPS, STRIP_BYTES)}
    file = io.BytesIO(_add_directory(data, shown, "<" if directory.prefix == b"II" else ">"))
    rows = np.asarray(TiffImagePlugin.TiffImageFile(file))
    blocks = [
        _undo_prediction(rows[:, x * scale : (x + block) * scale], directory.get(PREDICTOR, 1), dtype, samples)
        for x in range(0, width, block)
    ]
    return np.concatenate(blocks, axis=1)


def _add_directory(data: bytes, tags: dict[int, tuple[int, ...]], order: str) -> bytes:
    """A TIFF of the same bytes, with a page that these tags describe in place of its own."""
    start = len(data) + len(data) % 2
    following = start + 2 + 12 * len(tags) + 4
    entries, lists = struct.pack(f"{order}H", len(tags)), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place, lists = following + len(lists), lists + packed
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + data[8:].ljust(start - 8, b"\0") + entries + bytes(4) + lists


def _undo_prediction(rows: np.ndarray, predictor: int, dtype: np.dtype[Any], samples: int) -> np.ndarray:
    """The values (h, w, samples) of rows of bytes, which may store differences.

    Source: TIFF 6.0, section 14, and Adobe Photoshop TIFF Technical Note 3, for floats.
    """
    height, size = len(rows), dtype.itemsize
    rows = np.ascontiguousarray(rows)
    if predictor == 3:
        sums = rows.reshape(height, -1, samples).cumsum(axis=1, dtype=np.uint8)
        planes = sums.reshape(height, size, -1).transpose(0, 2, 1)  # the most significant byte comes first
        return np.ascontiguousarray(planes).view(dtype.newbyteorder(">")).reshape(height, -1, samples)
    values = rows.view(dtype).reshape(height, -1, samples)
    if predictor == 2:
        unsigned = values.view(np.dtype(f"{dtype.byteorder}u{size}")).astype(f"u{size}")
        return unsigned.cumsum(axis=1, dtype=f"u{size}").view(dtype.newbyteorder("="))
    return values
