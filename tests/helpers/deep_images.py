"""Writers of images of more than 8 bits, or of other channels than Pillow knows."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """A PNG of the values (h, w, 3 or 4), uint16."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def write_tiff(
    path: Path, pixels: np.ndarray, *, order: str = "<", planar: bool = False, tile: int | None = None, rows: int = 5
) -> Path:
    """A TIFF of the values (h, w, c), compressed by deflate, in strips of `rows` rows or in tiles of side `tile`."""
    height, width, channels = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    planes = [pixels[:, :, k : k + 1] for k in range(channels)] if planar else [pixels]
    blocks = []
    for plane in planes:
        if tile is None:
            blocks += [plane[y : y + rows] for y in range(0, height, rows)]
        else:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            blocks += [
                padded[y : y + tile, x : x + tile]
                for y in range(0, padded.shape[0], tile)
                for x in range(0, padded.shape[1], tile)
            ]
    stored = [zlib.compress(block.astype(pixels.dtype.newbyteorder(order)).tobytes()) for block in blocks]
    offsets = [8 + sum(map(len, stored[:number])) for number in range(len(stored))]
    counts = [len(block) for block in stored]
    tags = {256: [width], 257: [height], 258: [8 * pixels.dtype.itemsize] * channels, 259: [8], 262: [1]}
    tags |= {277: [channels], 284: [2 if planar else 1], 339: [kind] * channels}
    tags |= {278: [rows], 273: offsets, 279: counts} if tile is None else {322: [tile], 323: [tile]}
    tags |= {} if tile is None else {324: offsets, 325: counts}
    start = 8 + sum(counts)
    following = start + 2 + 12 * len(tags) + 4
    entries, lists = struct.pack(f"{order}H", len(tags)), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place, lists = following + len(lists), lists + packed
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    path.write_bytes(head + b"".join(stored) + entries + bytes(4) + lists)
    return path


def write_pages(path: Path, pixels: np.ndarray, **options) -> Path:
    """A TIFF with a gray page for each channel of the values (h, w, c)."""
    first, *others = [Image.fromarray(np.ascontiguousarray(pixels[:, :, k])) for k in range(pixels.shape[2])]
    first.save(path, save_all=True, append_images=others, **options)
    return path


def encode_npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def write_scenes(folder: Path, *, channels: int = 1, count: int = 8, size: int = 16) -> Path:
    """Two classes of images: values of a thermal camera, with a warm spot or without.

    One channel is a PNG of 16 bits, and more are an `.npy` file of floats whose channels differ in range.
    """
    generator = np.random.default_rng(channels)
    for name in ("cold", "warm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            values = 27_500 + 150 * generator.standard_normal((size, size, channels))
            if name == "warm":
                y, x = generator.integers(2, size - 6, 2)
                values[y : y + 4, x : x + 4] += 3000
            if channels == 1:
                Image.fromarray(values[:, :, 0].astype(np.uint16)).save(folder / name / f"{number}.png")
            else:
                scaled = (values - 28_000) * 10.0 ** np.arange(channels)
                np.save(folder / name / f"{number}.npy", scaled.astype(np.float32))
    return folder
