"""PIL image -> normalised tensor: the presentation that a recipe's data settings describe; masks in `joint`."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...config.recipe import DataPart
from .base import chosen_names, image_shape, refuse_color_change, unknown
from .batch import Batched, Cutout, Erasing, Flip, PaddedCrop, ResizedCrop, Rotation
from .image_mask import JointEvaluation, JointTraining
from .pipeline import CenterCrop, ImageTransform, ResizeToCover, Step, UserImageTransform, is_small

DEFAULT_SIZE = 224


def train_transform(part: DataPart, kind: str = "classification") -> ImageTransform | JointTraining:
    """The augmentations of a resolved part, for a kind of task; draws from the global generators.

    Classification: PIL image -> (c, h, w), normalized before those augmentations that erase; see `ImageTransform`.
    Segmentation: PIL image and int64 mask (h, w) -> (c, y, x) and int64 mask (y, x), both of the part's image size.
    """
    return TRANSFORMS[kind].training(part)


def eval_transform(part: DataPart, kind: str = "classification") -> ImageTransform | JointEvaluation:
    """A resolved part's images as evaluation shows them, normalised, for a kind of task.

    Classification: up to 64 pixels the whole image at that size; beyond, the middle of the image resized to 256/224 of
    the size. Segmentation: the whole image, and the mask as it is stored, which may be larger.
    """
    return TRANSFORMS[kind].evaluation(part)


def _training(part: DataPart) -> ImageTransform:
    assert isinstance(part.augment, list), "the part is not resolved"
    shape = image_shape(part)
    erasers = [ERASERS[name]() for name in part.augment if name in ERASERS]
    return ImageTransform(part, steps_of(part.augment, shape[1:], shape[0]), erasers)


def _evaluation(part: DataPart) -> ImageTransform:
    return ImageTransform(part, [CenterCrop(image_shape(part)[1:])])


def _crop(size: tuple[int, int]) -> list[Step]:
    """Random cut: of a small image padded with black by an eighth of its side, of a larger one within its margin."""
    from torchvision.transforms import v2

    return [PaddedCrop()] if is_small(size) else [ResizeToCover(size), v2.RandomCrop(size)]


def _resized_crop(size: tuple[int, int]) -> list[Step]:
    """A random rectangle, enlarged or reduced to the size; of small images one of the image at that size."""
    from torchvision.transforms import v2

    return [ResizedCrop()] if is_small(size) else [v2.RandomResizedCrop(size)]


def _flip(size: tuple[int, int]) -> list[Step]:
    return [Flip()]


def _rotation(size: tuple[int, int]) -> list[Step]:
    return [Rotation()]


def _randaugment(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.RandAugment()]


def _trivialaugment(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.TrivialAugmentWide()]


STEPS: dict[str, Callable[[tuple[int, int]], list[Step]]] = {
    "crop": _crop,
    "resized_crop": _resized_crop,
    "flip": _flip,
    "rotation": _rotation,
    "randaugment": _randaugment,
    "trivialaugment": _trivialaugment,
}
ERASERS: dict[str, type[Batched]] = {"cutout": Cutout, "erasing": Erasing}  # of normalised images
CUTS = ("crop", "resized_crop")
COLOURS = ("randaugment", "trivialaugment")


def augmentation_names(augment: str | list[str], size: tuple[int, int], mirrorable: bool) -> list[str]:
    return chosen_names(augment, ["crop" if is_small(size) else "resized_crop"] + ["flip"] * mirrorable)


def steps_of(names: Sequence[str], size: tuple[int, int], channels: int) -> list[Step]:
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
        named = _steps_called(name, size, channels)
        if is_small(size) and isinstance(named[0], Batched) and not isinstance(_last(steps), Batched | CenterCrop):
            steps.append(CenterCrop(size))
        steps += named
    return steps


def _last(steps: Sequence[Step]) -> Step | None:
    return steps[-1] if steps else None


def _steps_called(name: str, size: tuple[int, int], channels: int) -> list[Step]:
    if name in COLOURS:
        refuse_color_change(name, channels)
    if name in STEPS:
        return STEPS[name](size)
    if ":" in name:
        return [UserImageTransform(name)]
    raise unknown(name, [*STEPS, *ERASERS], "classification")


class Kind(NamedTuple):
    """How the images of one kind of task are presented."""

    training: Callable[[DataPart], ImageTransform | JointTraining]
    evaluation: Callable[[DataPart], ImageTransform | JointEvaluation]


TRANSFORMS = {
    "classification": Kind(_training, _evaluation),
    "segmentation": Kind(JointTraining, JointEvaluation),
}
