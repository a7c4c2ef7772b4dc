"""(PIL image, mask) -> (normalised tensor, mask): the presentation of images that are labelled pixel by pixel.

What moves pixels moves those of image and mask alike; colors change in the image only. The mask takes the nearest
label, so that no label arises between two others.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from PIL import Image, ImageFilter
from torch import Tensor

from ...config.recipe import DataPart
from ..datasets.image_io import to_channels
from ..datasets.label_map import IGNORE_INDEX
from .base import UserTransform, as_tensor, chosen_names, image_shape, mean_and_std, refuse_color_change, unknown

LARGEST = 512  # pixels; training crops are no larger unless the recipe says so
MULTIPLE = 32  # what the deepest maps of the usual networks divide the sides of a crop by

Size = tuple[int, int]  # height, width


class JointTraining:
    """The steps in order, then float32 in [0, 1], then (x - mean) / std per channel; always of the part's image size.

    Draws from the global generators. Raises `ValueError` for a mask of another size than its image.
    """

    def __init__(self, part: DataPart) -> None:
        assert isinstance(part.augment, list), "the part is not resolved"
        shape = image_shape(part)
        self.channels, self.short_side = shape[0], part.short_side
        self.mean, self.std = mean_and_std(part)
        self.steps = steps_of(part.augment, shape[1:], self.mean.flatten().tolist())

    def __call__(
        self, image: Image.Image, mask: Int64[Tensor, "h w"]
    ) -> tuple[Float[Tensor, "c y x"], Int64[Tensor, "y x"]]:
        pair = paired(to_channels(image, self.channels), mask)
        pair = pair._replace(size=with_short_side(pair.size, self.short_side))
        for step in self.steps:
            pair = step(pair)
        tensor = as_tensor(pair.image, self.channels).sub_(self.mean).div_(self.std)
        return tensor, pair.mask.as_subclass(Tensor).contiguous()


class JointEvaluation:
    """The whole image, its short side resized where the part says so, normalised; the mask as it is stored."""

    def __init__(self, part: DataPart) -> None:
        self.channels, self.short_side = image_shape(part)[0], part.short_side
        self.mean, self.std = mean_and_std(part)

    def __call__(
        self, image: Image.Image, mask: Int64[Tensor, "h w"]
    ) -> tuple[Float[Tensor, "c y x"], Int64[Tensor, "h w"]]:
        return self.image(image), mask

    def image(self, image: Image.Image) -> Float[Tensor, "c y x"]:
        """What evaluation shows of an image, with or without a mask."""
        shown = evaluated(to_channels(image, self.channels), self.short_side)
        return as_tensor(shown, self.channels).sub_(self.mean).div_(self.std)


class Pair(NamedTuple):
    """An image and its mask, and the size at which they are looked at.

    A step that resizes changes `size` alone. Pixels are made by `cut` at last, so that of an image that is enlarged and
    cropped only the crop is ever made, and once.
    """

    image: Image.Image
    mask: Int64[Tensor, "h w"]  # as large as the image
    size: Size

    def cut(self, top: int, left: int, size: Size) -> "Pair":
        """The window of this size at (top, left), bilinear with antialias; of the mask the nearest labels.

        The image's filter reaches beyond the window, which so is that of the image resized whole, up to rounding.
        """
        (rows, columns), (height, width) = self.mask.shape, size
        y, x = rows / self.size[0], columns / self.size[1]
        box = (left * x, top * y, min((left + width) * x, columns), min((top + height) * y, rows))
        image = self.image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        mask = self.mask[_nearest(top, height, y)[:, None], _nearest(left, width, x)]
        return Pair(image, mask, size)

    def made(self) -> "Pair":
        """All of it, in pixels of `size`."""
        return self if tuple(self.mask.shape) == self.size else self.cut(0, 0, self.size)


def _nearest(start: int, count: int, scale: float) -> Int64[Tensor, " count"]:
    """The stored pixels that hold the middles of `count` pixels from `start`, each `scale` stored ones wide."""
    return ((torch.arange(start, start + count, dtype=torch.float64) + 0.5) * scale).long()


def paired(image: Image.Image, mask: Int64[Tensor, "h w"]) -> Pair:
    """Image and mask, which must be of one size."""
    if tuple(mask.shape) != (image.height, image.width):
        sizes = f"{mask.shape[0]}x{mask.shape[1]} and the image {image.height}x{image.width}"
        raise ValueError(f"the mask is of height x width {sizes}; they must agree")
    return Pair(image, mask, (image.height, image.width))


def with_short_side(size: Size, side: int | None) -> Size:
    """The size, aspect kept, with this short side; None leaves it as it is.

    >>> with_short_side((360, 480), 180)
    (180, 240)
    """
    return size if side is None else (round(size[0] * side / min(size)), round(size[1] * side / min(size)))


def evaluated(image: Image.Image, short_side: int | None) -> Image.Image:
    """The image at the size at which evaluation shows it."""
    height, width = with_short_side((image.height, image.width), short_side)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


class Step(ABC):
    """One augmentation of pairs for crops of `size`; `fill` is the color of what lies beyond an image's border."""

    def __init__(self, size: Size, fill: tuple[int, ...]) -> None:
        self.size, self.fill = size, fill

    @abstractmethod
    def __call__(self, pair: Pair) -> Pair: ...


class Scale(Step):
    """Both sides times one factor, uniform in 0.5..2."""

    def __call__(self, pair: Pair) -> Pair:
        factor = _uniform(0.5, 2.0)
        return pair._replace(size=(max(round(pair.size[0] * factor), 1), max(round(pair.size[1] * factor), 1)))


class ShortSide(Step):
    """The short side becomes a whole number, uniform from half to twice that of the crop, both included.

    Source: the published code of Ji et al., 2021, https://arxiv.org/abs/2103.08273: 256 to 1024 for crops of 512.
    """

    def __call__(self, pair: Pair) -> Pair:
        side = min(self.size)
        return pair._replace(size=with_short_side(pair.size, int(torch.randint(max(side // 2, 1), 2 * side + 1, ()))))


class CenterCrop(Step):
    """The middle of what is larger than `size`; what is smaller is padded at the right and at the bottom.

    The image is padded with its mean color, to the nearest of 256 shades, and the mask with void.
    """

    def __call__(self, pair: Pair) -> Pair:
        if pair.size == self.size:
            return pair.made()
        height, width = (min(each) for each in zip(pair.size, self.size, strict=True))
        cut = pair.cut(self.start(pair.size[0] - height), self.start(pair.size[1] - width), (height, width))
        return cut if cut.size == self.size else self._padded(cut)

    def start(self, margin: int) -> int:
        """Where between 0 and `margin` a side of the window begins."""
        return margin // 2

    def _padded(self, pair: Pair) -> Pair:
        image = Image.new(pair.image.mode, self.size[::-1], self.fill)
        image.paste(pair.image, (0, 0))
        mask = pair.mask.new_full(self.size, IGNORE_INDEX)
        mask[: pair.size[0], : pair.size[1]] = pair.mask
        return Pair(image, mask, self.size)


class Crop(CenterCrop):
    """As `CenterCrop`, but anywhere in what is larger."""

    def start(self, margin: int) -> int:
        return int(torch.randint(margin + 1, ()))


class Flip(Step):
    """Half of the pairs are mirrored left to right."""

    def __init__(self, size: Size, fill: tuple[int, ...]) -> None:
        from torchvision.transforms import v2

        super().__init__(size, fill)
        self.transform = v2.RandomHorizontalFlip()

    def __call__(self, pair: Pair) -> Pair:
        pair = pair.made()
        return paired(*self.transform(pair.image, _labels(pair.mask)))


class Color(Step):
    """Brightness, contrast and saturation times factors uniform in 0.5..1.5, hue turned by up to 1/20 of its circle.

    In random order, of the image only.
    """

    def __init__(self, size: Size, fill: tuple[int, ...]) -> None:
        from torchvision.transforms import v2

        super().__init__(size, fill)
        refuse_color_change("colour", len(fill))
        self.transform = v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.05)

    def __call__(self, pair: Pair) -> Pair:
        pair = pair.made()
        return pair._replace(image=self.transform(pair.image))


class Blur(Step):
    """Half of the images, not their masks, are blurred by a Gaussian of a deviation uniform in 0..1 pixels.

    Source: the published code of Ji et al., 2021, https://arxiv.org/abs/2103.08273
    """

    def __call__(self, pair: Pair) -> Pair:
        if _uniform(0.0, 1.0) < 0.5:
            return pair
        pair = pair.made()
        return pair._replace(image=pair.image.filter(ImageFilter.GaussianBlur(_uniform(0.0, 1.0))))


class UserPairTransform(UserTransform):
    """A user's callable for image and mask, with its result checked.

    It is given copies, and a mask that transforms of torchvision (v2) know for one.
    """

    def __call__(self, pair: Pair) -> Pair:
        pair = pair.made()
        shown = self.called(pair.image.copy(), _labels(pair.mask.clone()))
        if not isinstance(shown, tuple | list) or len(shown) != 2:
            raise ValueError(f"the transform {self.name} returned {_named(shown)}, not an image and a mask")
        image, mask = shown
        if not isinstance(image, Image.Image):
            raise ValueError(f"the transform {self.name} returned {_named(image)} for the image, not a PIL image")
        if not isinstance(mask, Tensor) or mask.dtype != torch.int64 or mask.ndim != 2:
            raise ValueError(f"the transform {self.name} returned {_named(mask)} for the mask, not int64 of (h, w)")
        try:
            return paired(to_channels(image, len(pair.image.getbands())), mask.as_subclass(Tensor))
        except ValueError as error:
            raise ValueError(f"the transform {self.name} returned what does not fit: {error}") from None


def _labels(mask: Int64[Tensor, "h w"]) -> Tensor:
    from torchvision import tv_tensors

    return tv_tensors.Mask(mask)


def _named(value: object) -> str:
    """The type of a value, of tensors with dtype and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


STEPS: dict[str, type[Step]] = {
    "scale": Scale,
    "short_side": ShortSide,
    "crop": Crop,
    "flip": Flip,
    "colour": Color,
    "blur": Blur,
}


def augmentation_names(augment: str | list[str], size: Size, mirrorable: bool) -> list[str]:
    return chosen_names(augment, ["scale", "crop"] + ["flip"] * mirrorable)


def steps_of(names: Sequence[str], size: Size, mean: Sequence[float]) -> list[Step | UserPairTransform]:
    """The steps in the order of their names; at the end what is not yet of `size` is cut or padded to it."""
    if ("scale", "short_side") in pairwise(names):
        raise ValueError("augment=scale has no effect before short_side, which sets the size anew; put it behind")
    fill = tuple(round(255 * value) for value in mean)
    return [*(_step(name, size, fill) for name in names), CenterCrop(size, fill)]


def _step(name: str, size: Size, fill: tuple[int, ...]) -> Step | UserPairTransform:
    if name in STEPS:
        return STEPS[name](size, fill)
    if ":" in name:
        return UserPairTransform(name)
    raise unknown(name, list(STEPS), "images with masks")


def default_size(sizes: set[Size], short_side: int | None) -> Size:
    """Of training crops: the images' own size where all agree and no side exceeds 512; else 512 on either side.

    Where images differ and are all smaller than that, the longest side rounded up to a multiple of 32.
    """
    own = {with_short_side(size, short_side) for size in sizes}
    longest = max(map(max, own))
    if len(own) == 1 and longest <= LARGEST:
        return own.pop()
    side = min(-(-longest // MULTIPLE) * MULTIPLE, LARGEST)
    return (side, side)
