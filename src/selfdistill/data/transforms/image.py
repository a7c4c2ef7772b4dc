"""PIL image -> normalized tensor: the augmentations of images that have no mask, by their names."""

import itertools
from collections.abc import Callable, Sequence

from ...config.recipe import DataPart
from .base import choose_names, image_shape, refuse_color_change, say_unknown
from .batch import BatchStep, Cutout, Erasing, Flip, PaddedCrop, ResizedCrop, Rotation
from .pipeline import CenterCrop, ImageTransform, ResizeToCover, Step, UserImageTransform, is_small

DEFAULT_SIZE = 224  # of either side, where images are not small and alike
STATISTICS = {True: 10_000, False: 2_000}  # small images, larger ones: how many mean and std are computed from

Size = tuple[int, int]  # height, width


def train_transform(settings: DataPart) -> ImageTransform:
    """The augmentations of resolved settings: PIL image -> (c, h, w), normalized before those that erase."""
    assert isinstance(settings.augment, list), "the settings are not resolved"
    channels, *size = image_shape(settings)
    erasers = [ERASERS[name]() for name in settings.augment if name in ERASERS]
    return ImageTransform(settings, create_steps(settings.augment, tuple(size), channels), erasers)


def eval_transform(settings: DataPart) -> ImageTransform:
    """The whole image at the size of resolved settings up to 64 pixels; beyond, the middle of one resized to 256/224.

    PIL image -> (c, h, w), normalized.
    """
    return ImageTransform(settings, [CenterCrop(image_shape(settings)[1:])])


def statistics_view(size: Size) -> tuple[CenterCrop, int]:
    """What of an image mean and std are computed on, and of how many images."""
    return CenterCrop(size), STATISTICS[is_small(size)]


def choose_default_size(sizes: set[Size]) -> Size:
    """The images' own size where all agree and no side exceeds 64, else 224 on either side."""
    own = next(iter(sizes))
    return own if len(sizes) == 1 and is_small(own) else (DEFAULT_SIZE, DEFAULT_SIZE)


def _create_crop(size: tuple[int, int]) -> list[Step]:
    """Random cut: of a small image padded with black by an eighth of its side, of a larger one within its margin."""
    from torchvision.transforms import v2

    return [PaddedCrop()] if is_small(size) else [ResizeToCover(size), v2.RandomCrop(size)]


def _create_resized_crop(size: tuple[int, int]) -> list[Step]:
    """A random rectangle, enlarged or reduced to the size; of small images one of the image at that size."""
    from torchvision.transforms import v2

    return [ResizedCrop()] if is_small(size) else [v2.RandomResizedCrop(size)]


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
    "resized_crop": _create_resized_crop,
    "flip": _create_flip,
    "rotation": _create_rotation,
    "randaugment": _create_randaugment,
    "trivialaugment": _create_trivialaugment,
}
ERASERS: dict[str, type[BatchStep]] = {"cutout": Cutout, "erasing": Erasing}  # of normalised images
CUTS = ("crop", "resized_crop")
COLOR_STEPS = ("randaugment", "trivialaugment")


def choose_augmentation_names(augment: str | list[str], size: tuple[int, int], mirrorable: bool) -> list[str]:
    """The names in `data.augment`. auto: crop up to 64 pixels, resized_crop beyond, and flip where images may be."""
    return choose_names(augment, ["crop" if is_small(size) else "resized_crop"] + ["flip"] * mirrorable)


def create_steps(names: Sequence[str], size: tuple[int, int], channels: int) -> list[Step]:
    """The steps in the order of their names; without a cut among them, what evaluation shows comes first.

    Small images are resized in front of the first step that can be batched, which needs them alike. Those that erase
    are no steps, since they follow the normalisation; they must come last.
    """
    steps: list[Step] = [] if set(names) & set(CUTS) else [CenterCrop(size)]
    for name, then in itertools.pairwise(names):
        if name in ERASERS and then not in ERASERS:
            raise ValueError(f"augment={name} works on the finished image, so it comes last, not before {then}")
    for name in names:
        if name in ERASERS:
            continue
        named = _create_named_steps(name, size, channels)
        if (
            is_small(size)
            and isinstance(named[0], BatchStep)
            and not isinstance(_get_last(steps), BatchStep | CenterCrop)
        ):
            steps.append(CenterCrop(size))
        steps += named
    return steps


def _get_last(steps: Sequence[Step]) -> Step | None:
    return steps[-1] if steps else None


def _create_named_steps(name: str, size: tuple[int, int], channels: int) -> list[Step]:
    if name in COLOR_STEPS:
        refuse_color_change(name, channels)
    if name in STEPS:
        return STEPS[name](size)
    if ":" in name:
        return [UserImageTransform(name)]
    raise say_unknown(name, [*STEPS, *ERASERS], "labeled images")
