"""The transforms of images without masks, with their augmentations by name."""

import itertools
from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor

from ...config.recipe import DataPart
from ..datasets.conversion import PixelFormat
from .base import Transform, choose_names, image_shape, say_unknown
from .batch import BatchStep, Cutout, Erasing, Flip, PaddedCrop, ReflectedCrop, ResizedCrop, Rotation
from .finished import FinishedTransform
from .pipeline import SMALL, CenterCrop, ImageTransform, ResizeToCover, Step, UserImageTransform, is_small

DEFAULT_SIZE = 224  # of both sides, unless all images have one small size
LEAST_SHARE = 0.08  # of the area of a larger image, in a random rectangle
STATISTICS = {True: 10_000, False: 2_000}  # is small -> maximum number of images for mean and std

Size = tuple[int, int]  # height, width


def train_transform(settings: DataPart) -> Transform:
    """The transform of training under resolved settings: PIL image -> (c, h, w), normalized before erasing."""
    if settings.finished:
        return FinishedTransform(settings)
    assert isinstance(settings.augment, list), "the settings are not resolved"
    size = image_shape(settings)[1:]
    erasers = [ERASERS[name]() for name in settings.augment if name in ERASERS]
    transform = ImageTransform(settings, create_steps(settings.augment, size, PixelFormat.of(settings)), erasers)
    if settings.draft:
        transform.draft_side = find_draft_side(settings)
        if not transform.draft_side:
            raise ValueError(
                "data.draft=true has no effect here: it needs data.augment to begin with resized_crop, and an"
                f" image_size of more than {SMALL} pixels"
            )
    return transform


def find_draft_side(settings: DataPart) -> int:
    """With which `read_image` may read training images, so that the smallest crop keeps the size; 0: whole."""
    if settings.finished or settings.augment[:1] != ["resized_crop"]:
        return 0
    size = image_shape(settings)[1:]
    return 0 if is_small(size) else round(max(size) / LEAST_SHARE**0.5)


def eval_transform(settings: DataPart) -> Transform:
    """The transform of evaluation under resolved settings: PIL image -> (c, h, w), normalized.

    Images of up to 64 pixels are resized as a whole. Larger ones are resized to 256/224 and then cropped to the center.
    """
    if settings.finished:
        return FinishedTransform(settings)
    return ImageTransform(settings, [CenterCrop(image_shape(settings)[1:])])


def statistics_view(size: Size) -> tuple[CenterCrop, int]:
    """The view of an image that mean and std are computed from, and the maximum number of images."""
    return CenterCrop(size), STATISTICS[is_small(size)]


def choose_default_size(sizes: set[Size]) -> Size:
    """The size of the images if all have one and no side exceeds 64, else 224 on both sides."""
    image_size = next(iter(sizes))
    return image_size if len(sizes) == 1 and is_small(image_size) else (DEFAULT_SIZE, DEFAULT_SIZE)


def _create_crop(size: tuple[int, int]) -> list[Step]:
    """Random crop: of a small image padded with black by an eighth of its side, of a larger one within its margin."""
    from torchvision.transforms import v2

    return [PaddedCrop()] if is_small(size) else [ResizeToCover(size), v2.RandomCrop(size)]


def _create_reflect_crop(size: tuple[int, int]) -> list[Step]:
    """Random crop of a small image, padded with its mirror image by an eighth of its side."""
    if not is_small(size):
        raise ValueError(
            f"augment=reflect_crop pads images of up to 64 pixels, and these are {size[0]}x{size[1]}; take crop"
        )
    return [ReflectedCrop()]


def _create_resized_crop(size: tuple[int, int]) -> list[Step]:
    """Random rectangle, resized to `size`. Small images are resized to `size` before."""
    return [ResizedCrop()] if is_small(size) else [RandomRectangle(size)]


class RandomRectangle:
    """A random rectangle of a larger image, resized to `size`: torchvision's `RandomResizedCrop`.

    It takes `LEAST_SHARE` to 100 % of the area. The first version of torchvision's draws and computes the same for a
    picture in 0.14 ms less, a twentieth of what loading one takes.
    """

    def __init__(self, size: Size) -> None:
        from torchvision.transforms import RandomResizedCrop, v2

        scale = (LEAST_SHARE, 1.0)
        self.for_pictures, self.for_tensors = RandomResizedCrop(size, scale), v2.RandomResizedCrop(size, scale)

    def __call__(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        return (self.for_tensors if isinstance(image, Tensor) else self.for_pictures)(image)


def _create_flip(size: tuple[int, int]) -> list[Step]:
    return [Flip()]


def _create_rotation(size: tuple[int, int]) -> list[Step]:
    return [Rotation()]


def _create_randaugment(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.RandAugment()]


def _create_trivialaugment(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.TrivialAugmentWide()]


STEPS: dict[str, Callable[[tuple[int, int]], list[Step]]] = {
    "crop": _create_crop,
    "reflect_crop": _create_reflect_crop,
    "resized_crop": _create_resized_crop,
    "flip": _create_flip,
    "rotation": _create_rotation,
    "randaugment": _create_randaugment,
    "trivialaugment": _create_trivialaugment,
}
ERASERS: dict[str, type[BatchStep]] = {"cutout": Cutout, "erasing": Erasing}  # of normalized images
CROPS = ("crop", "reflect_crop", "resized_crop")
COLOR_STEPS = ("randaugment", "trivialaugment")


def choose_augmentation_names(augment: str | list[str], size: tuple[int, int], mirrorable: bool) -> list[str]:
    """The names in `data.augment`. auto: crop up to 64 pixels, resized_crop beyond, and flip if `mirrorable`."""
    return choose_names(augment, ["crop" if is_small(size) else "resized_crop"] + ["flip"] * mirrorable)


def create_steps(names: Sequence[str], size: tuple[int, int], pixels: PixelFormat) -> list[Step]:
    """Creates the steps in the order of their names. Without a crop among them, a center crop comes first.

    Small images are resized before the first step that runs on batches, which needs equal sizes. Erasers are not steps,
    because they follow the normalization; their names must come last.
    """
    steps: list[Step] = [] if set(names) & set(CROPS) else [CenterCrop(size)]
    for name, next_name in itertools.pairwise(names):
        if name in ERASERS and next_name not in ERASERS:
            raise ValueError(f"augment={name} works on the finished image, so it comes last, not before {next_name}")
    for name in names:
        if name in ERASERS:
            continue
        new_steps = _create_named_steps(name, size, pixels)
        if (
            is_small(size)
            and isinstance(new_steps[0], BatchStep)
            and not isinstance(_get_last(steps), BatchStep | CenterCrop)
        ):
            steps.append(CenterCrop(size))
        steps += new_steps
    return steps


def _get_last(steps: Sequence[Step]) -> Step | None:
    return steps[-1] if steps else None


def _create_named_steps(name: str, size: tuple[int, int], pixels: PixelFormat) -> list[Step]:
    if name in COLOR_STEPS:
        pixels.refuse_color_change(name)
    if name in STEPS:
        return STEPS[name](size)
    if ":" in name:
        return [UserImageTransform(name)]
    raise say_unknown(name, [*STEPS, *ERASERS], "labeled images")
