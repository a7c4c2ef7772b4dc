"""Augmentations of whole batches on their device. Each image draws from its key, see `random/keys`."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..random.keys import branch, normal, to_integers, uniform

LARGE = 2**15  # values of an image that is faster mirrored alone, on a CPU, than with all of its batch
TRIES = 10  # random rectangles; the first that fits into the image is used
ANGLE = math.radians(15)

Size = tuple[int, int]  # height, width
Images = Shaped[Tensor, "n c h w"]
Keys = Int64[Tensor, " n"]


class BatchStep(ABC):
    """One augmentation: images (n, c, h, w), uint8 or float, and n keys -> images of the same shape and type.

    An image's result depends on the image and its key alone.
    """

    @abstractmethod
    def __call__(self, images: Images, keys: Keys) -> Images: ...


class PaddedCrop(BatchStep):
    """Shifts images by a uniform number of pixels, up to an eighth of their sides, and fills with black."""

    def __call__(self, images: Images, keys: Keys) -> Images:
        height, width = images.shape[2:]
        y, x = height // 8, width // 8
        top, left = uniform(keys, 2)
        windows = F.pad(images, (x, x, y, y)).unfold(2, height, 1).unfold(3, width, 1)  # a view: n c top left h w
        image = torch.arange(len(images), device=images.device)
        return windows[image, :, to_integers(top, 2 * y + 1), to_integers(left, 2 * x + 1)]


class ReflectedCrop(BatchStep):
    """As `PaddedCrop`, but fills with the image's mirror image about its outermost pixels."""

    def __call__(self, images: Images, keys: Keys) -> Images:
        height, width = images.shape[2:]
        rows, columns = (_reflect(side, side // 8, images.device) for side in (height, width))
        windows = images[:, :, rows][:, :, :, columns].unfold(2, height, 1).unfold(3, width, 1)
        top, left = uniform(keys, 2)
        image = torch.arange(len(images), device=images.device)
        return windows[image, :, to_integers(top, len(rows) - height + 1), to_integers(left, len(columns) - width + 1)]


def _reflect(length: int, padding: int, device: torch.device) -> Int64[Tensor, " padded"]:
    """The positions of a padded axis, mirrored about the first and the last.

    >>> _reflect(4, 2, torch.device("cpu")).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    positions = torch.arange(-padding, length + padding, device=device).abs()
    return length - 1 - (length - 1 - positions).abs()


class ResizedCrop(BatchStep):
    """Crops 8 to 100 % of the area, with aspect ratio 3:4 to 4:3, and resizes it to the image's size, bilinear.

    Source: Szegedy et al., 2015, section 6, https://arxiv.org/abs/1409.4842
    """

    def __call__(self, images: Images, keys: Keys) -> Images:
        height, width = images.shape[2:]
        numbers = uniform(keys, 2 * TRIES + 2)
        tall, wide = draw_rectangles(numbers[2:], (height, width), area=(0.08, 1.0), shape=4 / 3)
        any_fits, tall, wide = _select_first_fit((tall <= height) & (wide <= width), tall, wide)
        tall = tall.where(any_fits, min(height, round(width * 4 / 3)))
        wide = wide.where(any_fits, min(width, round(height * 4 / 3)))
        top = to_integers(numbers[0], height - tall + 1).where(any_fits, (height - tall) // 2)
        left = to_integers(numbers[1], width - wide + 1).where(any_fits, (width - wide) // 2)
        return sample_bilinear(
            images, _space_centers(top, tall, height)[:, :, None], _space_centers(left, wide, width)[:, None, :]
        )


class Flip(BatchStep):
    """Mirrors half of the images left to right."""

    def __call__(self, images: Images, keys: Keys) -> Images:
        is_mirrored = uniform(keys, 1)[0] < 0.5
        if images.device.type != "cpu" or images[0].numel() < LARGE:
            return torch.where(add_image_axes(is_mirrored), images.flip(3), images)
        flipped = images.clone()
        for i in is_mirrored.nonzero().flatten().tolist():
            flipped[i] = images[i].flip(2)
        return flipped


class Rotation(BatchStep):
    """Rotates images about their center by an angle uniform in -15..15 degrees, bilinear, and fills with black."""

    def __call__(self, images: Images, keys: Keys) -> Images:
        angle = add_image_axes((2 * uniform(keys, 1)[0] - 1) * ANGLE)[:, 0]
        centers = [(side - 1) / 2 for side in images.shape[2:]]
        y = torch.arange(images.shape[2], device=images.device)[:, None] - centers[0]
        x = torch.arange(images.shape[3], device=images.device) - centers[1]
        sine, cosine = angle.sin(), angle.cos()
        return sample_bilinear(images, centers[0] + cosine * y - sine * x, centers[1] + sine * y + cosine * x)


class Cutout(BatchStep):
    """Sets a square of half the shorter side to 0, the mean. Its center is anywhere, so the border may clip it.

    Source: DeVries, Taylor, 2017, section 3, https://arxiv.org/abs/1708.04552, where it is 16 of CIFAR-10's 32 pixels.
    """

    def __call__(self, images: Images, keys: Keys) -> Images:
        height, width = images.shape[2:]
        side = min(height, width) // 2
        y, x = uniform(keys, 2)
        hole = mark_window(to_integers(y, height) - side // 2, side, height)[:, :, None]
        return images.masked_fill(
            (hole & mark_window(to_integers(x, width) - side // 2, side, width)[:, None, :])[:, None], 0
        )


class Erasing(BatchStep):
    """Replaces a rectangle by noise in half of the images: 2 to 40 % of the area, aspect ratio 3:10 to 10:3.

    The noise is normal with the mean and deviation of the images.
    Departs from the paper: its noise is uniform over all values of a pixel.
    Source: Zhong et al., 2020, section 3.2, https://arxiv.org/abs/1708.04896
    """

    def __call__(self, images: Images, keys: Keys) -> Images:
        height, width = images.shape[2:]
        numbers = uniform(branch(keys, 0), 2 * TRIES + 3)
        tall, wide = draw_rectangles(numbers[3:], (height, width), area=(0.02, 0.4), shape=10 / 3)
        any_fits, tall, wide = _select_first_fit((tall < height) & (wide < width), tall, wide)
        rows = mark_window(to_integers(numbers[0], height - tall + 1), tall, height)[:, :, None]
        columns = mark_window(to_integers(numbers[1], width - wide + 1), wide, width)[:, None, :]
        erased = (rows & columns)[:, None] & add_image_axes(any_fits & (numbers[2] < 0.5))
        return torch.where(erased, normal(branch(keys, 1), tuple(images.shape[1:])).to(images.dtype), images)


def draw_rectangles(
    numbers: Float[Tensor, "u n"], size: Size, *, area: tuple[float, float], shape: float
) -> tuple[Int64[Tensor, "t n"], Int64[Tensor, "t n"]]:
    """Draws heights and widths, at least 1 pixel, of t = u / 2 random rectangles for each image.

    The areas are uniform between two shares of the image's area. The aspect ratios are log-uniform from 1 / `shape` to
    `shape`. Some rectangles are larger than the image.
    """
    areas, shapes = numbers.chunk(2)
    sides = ((area[0] + (area[1] - area[0]) * areas) * (size[0] * size[1])).sqrt()
    stretch = torch.exp((shapes - 0.5) * math.log(shape))  # square root of the aspect ratio
    return (sides / stretch).round().long().clamp(min=1), (sides * stretch).round().long().clamp(min=1)


def _select_first_fit(
    fits: Bool[Tensor, "t n"], tall: Int64[Tensor, "t n"], wide: Int64[Tensor, "t n"]
) -> tuple[Bool[Tensor, " n"], Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Whether any of t rectangles fits, and the height and width of the first that fits."""
    first = fits.int().argmax(dim=0, keepdim=True)
    return fits.any(dim=0), tall.gather(0, first)[0], wide.gather(0, first)[0]


def mark_window(
    start: Int64[Tensor, " n"], length: int | Int64[Tensor, " n"], extent: int
) -> Bool[Tensor, "n {extent}"]:
    """Marks the positions in range(extent) that lie in a window of this length."""
    positions = torch.arange(extent, device=start.device)[:, None]
    return ((positions >= start) & (positions < start + length)).T


def add_image_axes(values: Shaped[Tensor, " n"]) -> Shaped[Tensor, "n 1 1 1"]:
    return values[:, None, None, None]


def _space_centers(start: Int64[Tensor, " n"], length: Int64[Tensor, " n"], count: int) -> Float[Tensor, "n {count}"]:
    """The centers of `count` equal parts of a window, in pixels, at most the center of its last pixel."""
    offsets = (torch.arange(count, device=start.device) + 0.5) * (length[:, None] / count) - 0.5
    return start[:, None] + offsets.clamp(min=0).minimum(length[:, None] - 1)


def sample_bilinear(images: Images, y: Float[Tensor, " n #h #w"], x: Float[Tensor, " n #h #w"]) -> Images:
    """Samples the images at positions in pixels, bilinear, with zeros beyond the border."""
    height, width = images.shape[2:]
    grid = torch.stack(torch.broadcast_tensors((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    values = images.contiguous() if images.is_floating_point() else images.contiguous().float()
    sampled = F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled if images.is_floating_point() else sampled.round_().to(images.dtype)
