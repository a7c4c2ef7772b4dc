"""The transforms of images with masks. The target of a sample is its mask.

Geometric steps change image and mask; color steps change the image only. Masks are resized to the nearest label, so
that no new labels arise.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from PIL import Image, ImageFilter
from torch import Tensor

from ...config.recipe import DataPart
from ...errors import UserCodeError
from ..datasets.base import Sample
from ..datasets.conversion import PixelFormat, convert_channels
from ..datasets.label_map import IGNORE_INDEX
from .base import (
    Normalization,
    Transform,
    UserTransform,
    as_pixels,
    as_tensor,
    choose_names,
    get_size,
    image_shape,
    say_unknown,
)

LARGEST = 512  # pixels; default maximum of the sides of training crops
MULTIPLE = 32  # the usual networks divide the sides of a crop by this

Size = tuple[int, int]  # height, width
Color = Sequence[float | int]  # one value in [0, 1] for each channel


class MaskTransform(Transform):
    """The common part of transforms of images with masks: float32 in [0, 1], then (x - mean) / std per channel."""

    fixed_size, keeps_target = False, False

    def __init__(self, settings: DataPart) -> None:
        self.pixels, self.short_side = PixelFormat.of(settings), settings.short_side
        self.normalize = Normalization(settings)

    def batch(self, images: Shaped[Tensor, "n c h w"], keys: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return self.normalize(images)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "MaskTransform":
        moved = copy.copy(self)
        moved.normalize = self.normalize.to(device, memory_format)
        return moved


class TrainMaskTransform(MaskTransform):
    """Applies the steps in order and then the normalization. Gives crops of the settings' image size.

    Draws from the global generators. Raises `ValueError` for a mask of another size than its image.
    """

    draws_per_image = True

    def __init__(self, settings: DataPart) -> None:
        super().__init__(settings)
        assert isinstance(settings.augment, list), "the settings are not resolved"
        mean = self.normalize.mean.flatten().tolist()
        self.steps = create_steps(settings.augment, image_shape(settings)[1:], mean, self.pixels)

    def cached(self, sample: Sample) -> Sample:
        image = self.pixels.convert(sample.image)
        check_sizes(image, sample.target)
        return sample._replace(image=image)

    def per_image(self, sample: Sample, keys: Int64[Tensor, " 1"]) -> Sample:
        image, mask = sample
        pair = Pair(image, mask, scale_short_side(get_size(image), self.short_side))
        for step in self.steps:
            pair = step(pair)
        return Sample(as_pixels(pair.image, self.channels), pair.mask.as_subclass(Tensor).contiguous())


class EvalMaskTransform(MaskTransform):
    """The whole image, normalized, with its short side resized if the settings say so; the mask as stored."""

    draws_per_image = False

    def cached(self, sample: Sample) -> Sample:
        return sample._replace(image=resize_for_evaluation(self.pixels.convert(sample.image), self.short_side))

    def per_image(self, sample: Sample, keys: Int64[Tensor, " 1"]) -> Sample:
        return sample._replace(image=as_pixels(sample.image, self.channels))


class Pair(NamedTuple):
    """An image, its mask, and the size to which both will be resized.

    A step that resizes changes only `size`. Only `crop` computes pixels, so an image that is enlarged and then cropped
    is computed only within the crop.
    """

    image: Image.Image | Tensor  # of 8 bits, or floats (c, h, w)
    mask: Int64[Tensor, "h w"]  # as large as the image
    size: Size

    def crop(self, top: int, left: int, size: Size) -> "Pair":
        """The window of this size at (top, left): the image bilinear with antialias, the mask nearest.

        The filter of the image reaches beyond the window. Up to rounding, the result is a window of the resized image.
        """
        (rows, columns), (height, width) = self.mask.shape, size
        y, x = rows / self.size[0], columns / self.size[1]
        box = (left * x, top * y, min((left + width) * x, columns), min((top + height) * y, rows))
        image = _resize(self.image, size, box)
        mask = self.mask[_find_nearest(top, height, y)[:, None], _find_nearest(left, width, x)]
        return Pair(image, mask, size)

    def resize(self) -> "Pair":
        """The whole pair, resized to `size`."""
        return self if tuple(self.mask.shape) == self.size else self.crop(0, 0, self.size)


def _find_nearest(start: int, count: int, scale: float) -> Int64[Tensor, " count"]:
    """The stored pixels at the centers of `count` pixels from `start`, each `scale` stored pixels wide."""
    return ((torch.arange(start, start + count, dtype=torch.float64) + 0.5) * scale).long()


def _resize(image: Image.Image | Tensor, size: Size, box: Sequence[float | int] | None = None) -> Image.Image | Tensor:
    """The window `box` (left, top, right, bottom) of an image at another size, bilinear with antialias."""
    if isinstance(image, Image.Image):
        return image.resize(size[::-1], Image.Resampling.BILINEAR, box=box)
    channels = [Image.fromarray(channel.numpy()) for channel in image.contiguous()]
    resized = [np.asarray(channel.resize(size[::-1], Image.Resampling.BILINEAR, box=box)) for channel in channels]
    return torch.from_numpy(np.stack(resized))


def check_sizes(image: Image.Image | Tensor, mask: Int64[Tensor, "h w"]) -> None:
    """Raises `ValueError` for an image and a mask of different sizes."""
    size = get_size(image)
    if tuple(mask.shape) != size:
        sizes = f"{mask.shape[0]}x{mask.shape[1]} and the image {size[0]}x{size[1]}"
        raise ValueError(f"the mask is of height x width {sizes}; they must agree")


def scale_short_side(size: Size, side: int | None) -> Size:
    """The size with this short side and the same aspect ratio; None keeps the size.

    >>> scale_short_side((360, 480), 180)
    (180, 240)
    """
    return size if side is None else (round(size[0] * side / min(size)), round(size[1] * side / min(size)))


def resize_for_evaluation(image: Image.Image | Tensor, short_side: int | None) -> Image.Image | Tensor:
    """Resizes an image for evaluation."""
    size = scale_short_side(get_size(image), short_side)
    return image if get_size(image) == size else _resize(image, size)


class MaskStep(ABC):
    """One augmentation of image and mask, for crops of `size`; `fill` is the padding color, in [0, 1]."""

    def __init__(self, size: Size, fill: Color) -> None:
        self.size, self.fill = size, fill

    @abstractmethod
    def __call__(self, pair: Pair) -> Pair: ...


class RandomScale(MaskStep):
    """Scales both sides by one factor, uniform in 0.5..2."""

    def __call__(self, pair: Pair) -> Pair:
        factor = _draw_uniform(0.5, 2.0)
        return pair._replace(size=(max(round(pair.size[0] * factor), 1), max(round(pair.size[1] * factor), 1)))


class RandomShortSide(MaskStep):
    """Resizes the short side to an integer, uniform from half to twice that of the crop, both included.

    Source: the published code of Ji et al., 2021, https://arxiv.org/abs/2103.08273: 256 to 1024 for crops of 512.
    """

    def __call__(self, pair: Pair) -> Pair:
        side = min(self.size)
        return pair._replace(size=scale_short_side(pair.size, int(torch.randint(max(side // 2, 1), 2 * side + 1, ()))))


class CropOrPad(MaskStep):
    """Crops larger pairs to their center, and pads smaller ones at the right and the bottom.

    The image is padded with its mean color, in 8 bits to the nearest shade, and the mask with IGNORE_INDEX.
    """

    def __call__(self, pair: Pair) -> Pair:
        if pair.size == self.size:
            return pair.resize()
        height, width = (min(sides) for sides in zip(pair.size, self.size, strict=True))
        crop = pair.crop(
            self.choose_start(pair.size[0] - height), self.choose_start(pair.size[1] - width), (height, width)
        )
        return crop if crop.size == self.size else self._pad(crop)

    def choose_start(self, margin: int) -> int:
        """The start of the window along a side, between 0 and `margin`."""
        return margin // 2

    def _pad(self, pair: Pair) -> Pair:
        if isinstance(pair.image, Tensor):
            image = torch.tensor(self.fill)[:, None, None].repeat(1, *self.size)
            image[:, : pair.size[0], : pair.size[1]] = pair.image
        else:
            image = Image.new(pair.image.mode, self.size[::-1], tuple(round(255 * value) for value in self.fill))
            image.paste(pair.image, (0, 0))
        mask = pair.mask.new_full(self.size, IGNORE_INDEX)
        mask[: pair.size[0], : pair.size[1]] = pair.mask
        return Pair(image, mask, self.size)


class RandomCrop(CropOrPad):
    """As `CropOrPad`, but crops at a random position."""

    def choose_start(self, margin: int) -> int:
        return int(torch.randint(margin + 1, ()))


class RandomFlip(MaskStep):
    """Mirrors half of the pairs left to right."""

    def __init__(self, size: Size, fill: Color) -> None:
        from torchvision.transforms import v2

        super().__init__(size, fill)
        self.transform = v2.RandomHorizontalFlip()

    def __call__(self, pair: Pair) -> Pair:
        pair = pair.resize()
        return Pair(*self.transform(pair.image, _mark_as_mask(pair.mask)), pair.size)


class ColorJitter(MaskStep):
    """Multiplies brightness, contrast and saturation by 0.5..1.5, and turns the hue by up to 1/20 of its circle.

    The order is random. The mask does not change.
    """

    def __init__(self, size: Size, fill: Color) -> None:
        from torchvision.transforms import v2

        super().__init__(size, fill)
        self.transform = v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.05)

    def __call__(self, pair: Pair) -> Pair:
        pair = pair.resize()
        return pair._replace(image=self.transform(pair.image))


class RandomBlur(MaskStep):
    """Blurs half of the images by a Gaussian with a deviation uniform in 0..1 pixels. Masks do not change.

    Source: the published code of Ji et al., 2021, https://arxiv.org/abs/2103.08273
    """

    def __call__(self, pair: Pair) -> Pair:
        if _draw_uniform(0.0, 1.0) < 0.5:
            return pair
        pair = pair.resize()
        deviation = _draw_uniform(0.0, 1.0)
        if isinstance(pair.image, Tensor):
            return pair._replace(image=_blur(pair.image, deviation))
        return pair._replace(image=pair.image.filter(ImageFilter.GaussianBlur(deviation)))


def _blur(image: Float[Tensor, "c h w"], deviation: float) -> Float[Tensor, "c h w"]:
    """Blurs by a Gaussian, of at most 1 pixel, cut off at 3."""
    from torchvision.transforms.v2 import functional

    kernel = [min(7, side - 1 + side % 2) for side in image.shape[:0:-1]]  # odd, and no wider than the image
    return functional.gaussian_blur(image, kernel, [max(deviation, 1e-3)] * 2)


class UserPairTransform(UserTransform):
    """A user's function of an image and its mask, with a check of its result.

    It gets copies. The mask is a `tv_tensors.Mask`, so that transforms of torchvision (v2) treat it as one.
    """

    def __call__(self, pair: Pair) -> Pair:
        pair = pair.resize()
        image = pair.image.clone() if isinstance(pair.image, Tensor) else pair.image.copy()
        result = self.call(image, _mark_as_mask(pair.mask.clone()))
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise UserCodeError(f"the transform {self.name} returned {_describe(result)}, not an image and a mask")
        image, mask = result
        if not isinstance(image, type(pair.image)) and not isinstance(image, Image.Image):
            kind = "a tensor" if isinstance(pair.image, Tensor) else "a PIL image"
            raise UserCodeError(f"the transform {self.name} returned {_describe(image)} for the image, not {kind}")
        if not isinstance(mask, Tensor) or mask.dtype != torch.int64 or mask.ndim != 2:
            given = _describe(mask)
            raise UserCodeError(f"the transform {self.name} returned {given} for the mask, not int64 of (h, w)")
        try:
            check_sizes(image, mask)
            image = self.fit(image, pair.image)
        except ValueError as error:
            raise UserCodeError(f"the transform {self.name} returned what does not fit: {error}") from None
        return Pair(image, mask.as_subclass(Tensor), get_size(image))

    def fit(self, image: Image.Image | Tensor, given: Image.Image | Tensor) -> Image.Image | Tensor:
        """The result in the format of the image that the function was given."""
        if isinstance(given, Image.Image):
            return convert_channels(image, len(given.getbands()))
        image = as_tensor(image, len(given))
        if image.shape[0] != len(given):
            raise ValueError(f"an image of {image.shape[0]} channels, not {len(given)}")
        return image


def _mark_as_mask(mask: Int64[Tensor, "h w"]) -> Tensor:
    from torchvision import tv_tensors

    return tv_tensors.Mask(mask)


def _describe(value: object) -> str:
    """The type of a value; for tensors dtype and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _draw_uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


STEPS: dict[str, type[MaskStep]] = {
    "scale": RandomScale,
    "short_side": RandomShortSide,
    "crop": RandomCrop,
    "flip": RandomFlip,
    "colour": ColorJitter,
    "blur": RandomBlur,
}
COLOR_STEPS = ("colour",)


def choose_augmentation_names(augment: str | list[str], size: Size, mirrorable: bool) -> list[str]:
    return choose_names(augment, ["scale", "crop"] + ["flip"] * mirrorable)


def create_steps(
    names: Sequence[str], size: Size, mean: Sequence[float], pixels: PixelFormat
) -> list[MaskStep | UserPairTransform]:
    """Creates the steps in the order of their names; the last step crops or pads to `size`."""
    if ("scale", "short_side") in pairwise(names):
        raise ValueError("augment=scale has no effect before short_side, which sets the size anew; put it behind")
    return [*(_create_step(name, size, mean, pixels) for name in names), CropOrPad(size, mean)]


def _create_step(name: str, size: Size, fill: Color, pixels: PixelFormat) -> MaskStep | UserPairTransform:
    if name in STEPS:
        if name in COLOR_STEPS:
            pixels.refuse_color_change(name)
        return STEPS[name](size, fill)
    if ":" in name:
        return UserPairTransform(name)
    raise say_unknown(name, list(STEPS), "images with masks")


def choose_default_size(sizes: set[Size], short_side: int | None) -> Size:
    """The size of training crops: that of the images if all have one and no side exceeds 512, else 512x512.

    If sizes differ and all are smaller, it is the longest side rounded up to a multiple of 32.
    """
    resized = {scale_short_side(size, short_side) for size in sizes}
    longest = max(map(max, resized))
    if len(resized) == 1 and longest <= LARGEST:
        return resized.pop()
    side = min(-(-longest // MULTIPLE) * MULTIPLE, LARGEST)
    return (side, side)
