"""Corruptions of images, to measure how robust a network is: noise, blur, light and compression in five severities.

They are made from images as a network sees them, after resizing, so that a severity means the same harm whatever the
size of the files. The strengths are those of ImageNet-C for images beyond 64 pixels and of CIFAR-10-C up to 64:
Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261. Fog departs from theirs: its clouds are sums of
smoothed noise.
"""

import hashlib
import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .random.seeds import derive
from .transforms.pipeline import is_small

SEVERITIES = (1, 2, 3, 4, 5)
Pixels = Float[np.ndarray, "h w c"]  # in [0, 1]; 1 or 3 channels


class Corruption(NamedTuple):
    """A corruption, and its strength by severity for small images and for others."""

    apply: Callable[[Any, Any, np.random.Generator], Any]  # of pixels and strength; the result may leave [0, 1]
    small: tuple[Any, ...]
    large: tuple[Any, ...]


def corrupt(image: Image.Image | Tensor, name: str, severity: int) -> Image.Image:
    """The image, 8 bits of 1, 3 or 4 channels, corrupted; alpha stays as it is.

    Random draws depend on the image's pixels, the corruption and the severity alone, so a picture gets the same noise
    wherever it stands. Raises `ValueError` for an image that keeps more than 8 bits.
    """
    if isinstance(image, Tensor):
        raise ValueError("the corruptions are made for images of 8 bits, and these keep more (data.value_range)")
    values = np.array(image)
    corruption, number = CORRUPTIONS[name], list(CORRUPTIONS).index(name)
    digest = hashlib.blake2b(values.tobytes(), digest_size=7).digest()
    generator = np.random.default_rng(derive(int.from_bytes(digest, "little"), number, severity))
    strength = (corruption.small if is_small(values.shape[:2]) else corruption.large)[severity - 1]
    layers = values if values.ndim == 3 else values[:, :, None]
    result = corruption.apply(layers[:, :, :3].astype(np.float32) / 255, strength, generator)
    corrupted = (255 * np.clip(result, 0, 1)).round().astype(np.uint8)
    corrupted = np.concatenate([corrupted, layers[:, :, 3:]], axis=2)
    return Image.fromarray(corrupted if values.ndim == 3 else corrupted[:, :, 0])


def add_gaussian_noise(pixels: Pixels, deviation: float, generator: Any) -> Pixels:
    return pixels + generator.normal(scale=deviation, size=pixels.shape)


def add_shot_noise(pixels: Pixels, photons: float, generator: Any) -> Pixels:
    """Poisson noise of a sensor that counts `photons` where a pixel is white."""
    return generator.poisson(pixels * photons) / photons


def add_impulse_noise(pixels: Pixels, share: float, generator: Any) -> Pixels:
    """Sets a `share` of all values to 0 or 1."""
    draws = generator.random(pixels.shape)
    return np.where(draws < share / 2, 0, np.where(draws < share, 1, pixels))


def blur(pixels: Pixels, deviation: float, generator: Any) -> Pixels:
    """Gaussian blur, cut at 4 deviations; the border is repeated."""
    reach = int(4 * deviation + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    return _filter(_filter(pixels, kernel[:, None], "edge"), kernel[None], "edge")


def defocus(pixels: Pixels, lens: tuple[float, float], generator: Any) -> Pixels:
    """The mean over a disk of a radius, whose edge is softened by a small Gaussian of a deviation."""
    radius, softness = lens
    softening = 2 if radius > 8 else 1  # pixels to each side
    reach = math.ceil(radius) + softening
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    soft = np.exp(-0.5 * (np.arange(-softening, softening + 1) / softness) ** 2)
    disk = _filter(disk[:, :, None] / disk.sum(), np.outer(soft, soft) / soft.sum() ** 2, "constant")[:, :, 0]
    return _filter(pixels, disk, "reflect")


def blur_by_motion(pixels: Pixels, motion: tuple[int, float], generator: Any) -> Pixels:
    """Shifts the image along a line at up to 45 degrees to the rows, step by step, with falling weights."""
    radius, deviation = motion
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-0.5 * (steps / deviation) ** 2)
    angle, (height, width) = math.radians(generator.uniform(-45, 45)), pixels.shape[:2]
    rows, columns = (np.ceil(steps * slope - 0.5).astype(int) for slope in (math.sin(angle), math.cos(angle)))
    reach = steps[-1]
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    blurred = np.zeros_like(pixels)
    for row, column, weight in zip(rows + reach, columns + reach, weights / weights.sum(), strict=True):
        blurred += weight * padded[row : row + height, column : column + width]
    return blurred


def add_fog(pixels: Pixels, fog: tuple[float, float], generator: Any) -> Pixels:
    """Adds clouds of some density; the larger the decay, the smoother they are."""
    density, decay = fog
    highest = pixels.max()
    return (pixels + density * _draw_clouds(pixels.shape[:2], decay, generator)) * highest / (highest + density)


def _draw_clouds(size: tuple[int, int], decay: float, generator: Any) -> Float[np.ndarray, "h w 1"]:
    """Noise between 0 and 1: grids of uniform numbers, each twice as fine as the one before and weaker by decay^2."""
    clouds, cells = np.zeros(size, np.float32), 2
    for octave in range(math.ceil(math.log2(max(*size, 2)))):
        grid = Image.fromarray(generator.uniform(-1, 1, (cells, cells)).astype(np.float32))
        clouds += decay ** (-2 * octave) * np.asarray(grid.resize(size[::-1], Image.Resampling.BILINEAR))
        cells *= 2
    clouds -= clouds.min()
    return (clouds / max(float(clouds.max()), 1e-6))[:, :, None]


def brighten(pixels: Pixels, amount: float, generator: Any) -> Pixels:
    """Adds to the value of HSV, the largest channel; hue and saturation stay."""
    value = pixels.max(axis=2, keepdims=True)
    brighter = np.minimum(value + amount, 1)
    return np.where(value > 0, pixels * (brighter / np.where(value > 0, value, 1)), brighter)


def lower_contrast(pixels: Pixels, share: float, generator: Any) -> Pixels:
    """Keeps a `share` of the distance from each channel's mean."""
    means = pixels.mean(axis=(0, 1), keepdims=True)
    return means + share * (pixels - means)


def pixelate(pixels: Pixels, share: float, generator: Any) -> Pixels:
    """Resizes both sides to a `share` and back."""
    image = _to_image(pixels)
    size = (max(int(image.width * share), 1), max(int(image.height * share), 1))
    return _from_image(image.resize(size, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX))


def compress(pixels: Pixels, quality: int, generator: Any) -> Pixels:
    """Writes a JPEG of this quality, 1 to 95, and reads it."""
    file = io.BytesIO()
    _to_image(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return _from_image(image)


def _to_image(pixels: Pixels) -> Image.Image:
    values = (255 * pixels).round().astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)


def _from_image(image: Image.Image) -> Pixels:
    values = np.asarray(image, dtype=np.float32) / 255
    return values if values.ndim == 3 else values[:, :, None]


def _filter(pixels: Pixels, kernel: Float[np.ndarray, "a b"], border: Any) -> Pixels:
    """Correlates each channel with a kernel of odd sides; `border` is a mode of `np.pad`."""
    rows, columns = (side // 2 for side in kernel.shape)
    padded = np.pad(pixels, ((rows, rows), (columns, columns), (0, 0)), mode=border)
    images = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1), dtype=np.float32))
    weights = torch.from_numpy(np.ascontiguousarray(kernel, dtype=np.float32))[None, None]
    return torch.nn.functional.conv2d(images[:, None], weights)[:, 0].permute(1, 2, 0).numpy()


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(add_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(add_shot_noise, (500.0, 250.0, 100.0, 75.0, 50.0), (60.0, 25.0, 12.0, 5.0, 3.0)),
    "impulse_noise": Corruption(add_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": Corruption(blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)),
    "defocus_blur": Corruption(
        defocus,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
        ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
    ),
    "motion_blur": Corruption(
        blur_by_motion,
        ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
        ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
    ),
    "fog": Corruption(
        add_fog,
        ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
        ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    ),
    "brightness": Corruption(brighten, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(lower_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": Corruption(compress, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
