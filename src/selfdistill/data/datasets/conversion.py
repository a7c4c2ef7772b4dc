"""Converts stored images to the channels and the depth that networks and people are shown."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ...config.recipe import DataPart
from ...errors import count_of
from .bands import Bands, count_bands

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GRAY_16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
DEEP_GRAY = GRAY_16 | {"I", "F"}  # gray of more than 8 bits: 16 bits, signed 32 bits, floats
GRAY = frozenset({"1", "L", "LA"}) | DEEP_GRAY
ALPHA = frozenset({"LA", "PA", "RGBA", "RGBA;16"})
CONVERTIBLE = GRAY | ALPHA | {"P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
LUMA = np.array([299, 587, 114]) / 1000  # as Pillow weighs colors
SHOWN = (1, 99)  # percentiles of an image's values that are shown in black and white
SAMPLED = 2**16  # values that these are taken of

Range = tuple[float, float]
Stored = Image.Image | Bands  # a decoded image


class PixelFormat(NamedTuple):
    """The channels and the depth of the images that a network is shown, as resolved settings say."""

    channels: int
    gray_range: Range | None = None
    value_range: Range | list[Range] | None = None

    @classmethod
    def of(cls, settings: DataPart) -> "PixelFormat":
        assert settings.channels is not None, "the settings are not resolved"
        return cls(settings.channels, settings.gray_range, settings.value_range)

    @property
    def is_deep(self) -> bool:
        """Whether images are floats that keep `value_range`, rather than of 8 bits."""
        return self.value_range is not None

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.is_deep else torch.uint8

    def convert(self, image: Stored) -> Image.Image | Tensor:
        """A Pillow image of 8 bits; where `value_range` is set, floats (c, h, w) from 0 to 1 within it."""
        if self.value_range is None:
            return convert_channels(image, self.channels, self.gray_range)
        return scale_values(image, self.channels, self.value_range)

    def refuse_color_change(self, name: str) -> None:
        """Raises `ValueError` for an augmentation that changes the colors of photographs only."""
        if self.channels not in (1, 3):
            raise ValueError(f"augment={name} works on 1 or 3 channels, not on {self.channels}")
        if self.is_deep:
            raise ValueError(
                f"augment={name} works on images of 8 bits, and these keep more (data.value_range); leave it out, or"
                " reduce gray images to 8 bits with data.gray_range=LOW,HIGH"
            )


def get_stored_mode(image: Stored) -> str:
    """Pillow's mode, or a more specific one if Pillow's is ambiguous."""
    if image.mode == "P" and isinstance(image, Image.Image) and "transparency" in image.info:
        return "PA"
    return image.mode


def is_deep(mode: str) -> bool:
    """Whether images of this mode have more than 8 bits, or channels that no image of 8 bits has."""
    return mode in DEEP_GRAY or count_bands(mode) is not None


def has_known_range(mode: str) -> bool:
    """Whether values are known to lie between 0 and 255, or 0 and 65535."""
    return not is_deep(mode) or mode in GRAY_16 or ";16" in mode or mode.startswith(("uint8 ", "uint16 "))


def refuse_mode(mode: str) -> None:
    """Raises `ValueError` for a mode without a safe conversion."""
    if mode not in CONVERTIBLE and count_bands(mode) is None:
        raise ValueError(f"mode {mode} has no safe conversion to 8 bits; save it as 8- or 16-bit gray, RGB or RGBA")


def convert_channels(image: Stored, channels: int, gray_range: Range | None = None) -> Image.Image:
    """Converts an image to 1 (gray), 3 (RGB) or 4 (RGBA) channels of 8 bits, if it is different.

    Palettes are looked up, CMYK and YCbCr become RGB, and color becomes gray by luma. Values of more than 8 bits are
    scaled from `gray_range` to 0..255, by default from 0..65535 if they have 16 bits. Alpha is dropped, not blended
    with a background, unless `channels` is 4.
    """
    wanted, mode = MODES[channels], get_stored_mode(image)
    if mode == wanted and isinstance(image, Image.Image):
        return image
    refuse_mode(mode)
    if isinstance(image, Bands):
        if image.values.shape[2] not in MODES:
            raise ValueError(_say_channels(image.values.shape[2], channels))
        image = Image.fromarray(_reduce_to_8_bits(image.values, mode, gray_range))
    elif mode in DEEP_GRAY:
        image = Image.fromarray(_reduce_to_8_bits(np.asarray(image), mode, gray_range))
    elif mode == "PA":
        image = image.convert("RGBA")
    elif mode not in GRAY and mode != "RGBA":
        image = image.convert("RGB")  # through RGB, because not every pair of modes has a direct conversion
    return image if image.mode == wanted else image.convert(wanted)


def _reduce_to_8_bits(values: np.ndarray, mode: str, gray_range: Range | None) -> np.ndarray:
    if gray_range is None and mode in GRAY_16:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if gray_range is None and values.dtype == np.uint8:
        return values
    if gray_range is None and values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)  # as Pillow reads colors of 16 bits
    if gray_range is None:
        raise ValueError(f"mode {mode} has values of unknown range; set data.gray_range=LOW,HIGH")
    low, high = gray_range
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)


def scale_values(image: Stored, channels: int, value_range: Range | list[Range]) -> Float[Tensor, "c h w"]:
    """The values of an image, those of `value_range` from 0 to 1, and those beyond it, and NaN, as its ends.

    A list of ranges has one for each channel. Raises `ValueError` for an image of other channels.
    """
    values = _match_channels(get_values(image, channels), channels)
    ranges = value_range if isinstance(value_range, list) else [value_range]
    low, high = (np.array(ends) for ends in zip(*ranges, strict=True))
    precision = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    scaled = (values.astype(precision) - low.astype(precision)) / (high - low).astype(precision)
    scaled = np.nan_to_num(scaled, copy=False, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def get_values(image: Stored, channels: int) -> np.ndarray:
    """The values (h, w, c) as they are stored; of an image of 8 bits in these channels, where there is a mode."""
    if isinstance(image, Bands):
        return image.values
    if image.mode in DEEP_GRAY:
        return np.asarray(image)[:, :, None]
    values = np.asarray(convert_channels(image, channels if channels in MODES else 3))
    return values if values.ndim == 3 else values[:, :, None]


def _match_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """The values in these channels: gray repeated for colors, colors made gray by luma, and alpha dropped."""
    found = values.shape[2]
    if found == channels:
        return values
    if found == 1 and channels == 3:
        return values.repeat(3, axis=2)
    if found == 4 and channels == 3:
        return values[:, :, :3]
    if found in (3, 4) and channels == 1:
        return (values[:, :, :3] @ LUMA)[:, :, None].astype(values.dtype if values.dtype.kind == "f" else np.float32)
    if values.shape[0] == channels:
        raise ValueError(f"its array has the shape {values.shape}, with {channels} first; save it as (h, w, c)")
    raise ValueError(_say_channels(found, channels))


def _say_channels(found: int, channels: int) -> str:
    return f"it has {count_of(found, 'channel')}, and data.channels={channels}"


def to_8_bits(image: Stored, channels: int) -> Image.Image:
    """The image as one looks at it: of more than 8 bits from its own 1st to its 99th percentile, at most 3 channels."""
    mode = get_stored_mode(image)
    if not is_deep(mode):
        return convert_channels(image, channels)
    values = image.values if isinstance(image, Bands) else np.asarray(image)[:, :, None]
    shown = values[:, :, : 3 if values.shape[2] >= 3 else 1].astype(np.float64)
    is_color = mode in ("RGB;16", "RGBA;16")  # channels of one range; others have their own
    for part in [shown] if is_color else [shown[:, :, k] for k in range(shown.shape[2])]:
        finite = part[np.isfinite(part)]
        finite = finite[:: finite.size // SAMPLED | 1]  # an odd step
        low, high = np.percentile(finite, SHOWN) if finite.size else (0.0, 0.0)
        low, high = (low, high) if high > low else (low, low + 1.0)
        part[...] = np.nan_to_num((part - low) * (255 / (high - low))).clip(0, 255).round()
    pixels = shown.astype(np.uint8)
    return convert_channels(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), channels)
