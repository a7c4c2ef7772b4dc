"""Images that Pillow has no mode for: colors of 16 bits, floats, and any number of channels, as arrays."""

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

PILLOW_MODES = {("uint8", 1): "L", ("uint8", 3): "RGB", ("uint8", 4): "RGBA", ("uint16", 1): "I;16"}

BinaryFile = io.BufferedIOBase  # an open file, or bytes in memory


class Bands:
    """An image as an array (h, w, c), with the names of Pillow for what both have."""

    def __init__(self, values: np.ndarray, mode: str = "") -> None:
        self.values, self.mode = values, mode or name_mode(values.dtype, values.shape[2])
        self.height, self.width = values.shape[:2]
        self.size = (self.width, self.height)

    def tobytes(self) -> bytes:
        return self.values.tobytes()

    def getbands(self) -> tuple[str, ...]:
        return tuple(str(k) for k in range(self.values.shape[2]))


class Header(NamedTuple):
    """What is known of an array before it is read."""

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]

    @property
    def mode(self) -> str:
        return name_mode(self.dtype, self.channels)


def name_mode(dtype: np.dtype[Any], channels: int) -> str:
    """Pillow's mode where it has one, else type and channels, such as "uint16 x 12".

    >>> name_mode(np.dtype("uint16"), 12), name_mode(np.dtype("float64"), 1)
    ('uint16 x 12', 'F')
    """
    if (dtype.name, channels) in PILLOW_MODES:
        return PILLOW_MODES[dtype.name, channels]
    if channels == 1:
        return "F" if dtype.kind == "f" else "I"
    return f"{dtype.name} x {channels}"


def count_bands(mode: str) -> int | None:
    """The channels of a mode of `Bands`; None for a mode of Pillow."""
    if mode in ("RGB;16", "RGBA;16"):
        return len(mode) - 3
    return int(mode.rpartition(" x ")[2]) if " x " in mode else None


def simplify(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that values are kept in: booleans as 0 and 255, all floats as float32."""
    if dtype.kind == "b":
        return np.dtype("uint8")
    return np.dtype("float32") if dtype.kind == "f" else np.dtype(dtype.name)


def as_image(values: np.ndarray) -> Image.Image | Bands:
    """A Pillow image where a mode holds the values (h, w, c), else `Bands`."""
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    values = np.ascontiguousarray(values.astype(simplify(values.dtype), copy=False))
    mode = name_mode(values.dtype, values.shape[2])
    if count_bands(mode) is not None:
        return Bands(values)
    if mode == "I" and values.dtype.name != "int32":
        if values.min() < -(2**31) or values.max() >= 2**31:
            raise ValueError("it holds integers beyond 32 bits; store them as floats")
        values = values.astype(np.int32)
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
