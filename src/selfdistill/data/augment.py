"""PIL image -> normalised tensor: the presentation that a recipe's data settings describe; masks in `joint`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..recipe import DataPart
from .images import to_channels
from .joint import JointEvaluation, JointTraining
from .steps import Own, as_tensor, chosen_names, image_shape, mean_and_std, refuse_colours, unknown

SMALL = 64  # pixels; images up to this side are shown whole, larger ones cut out of a resized one
DEFAULT_SIZE = 224
MARGIN = 256 / 224  # larger images: how much the resized short side exceeds the cut

Step = Callable[[Any], Any]


def train_transform(part: DataPart, kind: str = "classification") -> "Presentation | JointTraining":
    """The augmentations of a resolved part, for a kind of task; draws from the global generators.

    Classification: PIL image -> (c, h, w), normalised before those augmentations that erase. Segmentation: PIL image
    and int64 mask (h, w) -> (c, y, x) and int64 mask (y, x), both of the part's image size.
    """
    return PRESENTATIONS[kind].training(part)


def eval_transform(part: DataPart, kind: str = "classification") -> "Presentation | JointEvaluation":
    """A resolved part's images as evaluation shows them, normalised, for a kind of task.

    Classification: up to 64 pixels the whole image at that size; beyond, the middle of the image resized to 256/224 of
    the size. Segmentation: the whole image, and the mask as it is stored, which may be larger.
    """
    return PRESENTATIONS[kind].evaluation(part)


def _training(part: DataPart) -> "Presentation":
    assert isinstance(part.augment, list), "the part is not resolved"
    shape = image_shape(part)
    erasers = [ERASERS[name](shape[1:]) for name in part.augment if name in ERASERS]
    return Presentation(part, steps_of(part.augment, shape[1:], shape[0]), erasers)


def _evaluation(part: DataPart) -> "Presentation":
    return Presentation(part, [Middle(image_shape(part)[1:])])


class Presentation:
    """The steps in order, then float32 in [0, 1], then (x - mean) / std per channel, and then the erasers."""

    def __init__(self, part: DataPart, steps: Sequence[Step], erasers: Sequence[Step] = ()) -> None:
        self.shape, self.steps, self.erasers = image_shape(part), steps, erasers
        self.mean, self.std = mean_and_std(part)

    def __call__(self, image: Image.Image) -> Float[Tensor, "c h w"]:
        shown: Any = to_channels(image, self.shape[0])
        for step in self.steps:
            shown = step(shown)
        tensor = as_tensor(shown, self.shape[0])
        if tuple(tensor.shape) != self.shape:
            raise ValueError(f"the transforms make a tensor of shape {tuple(tensor.shape)}, not {self.shape}")
        normalised = tensor.sub_(self.mean).div_(self.std)
        for eraser in self.erasers:
            normalised = eraser(normalised)
        return normalised


class Middle:
    """What evaluation shows of an image, without randomness."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Any) -> Any:
        from torchvision.transforms.v2 import functional

        if is_small(self.size):
            return resized(image, self.size)
        return functional.center_crop(covering(image, self.size), list(self.size))


class Cover:
    """Resizes a larger image so that a crop of `size` has a margin of 256/224; a small one to `size`."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Any) -> Any:
        return resized(image, self.size) if is_small(self.size) else covering(image, self.size)


class Cutout:
    """Sets a square of half the shorter side to the mean; its middle is anywhere, so the border may clip it.

    Source: DeVries, Taylor, 2017, section 3, https://arxiv.org/abs/1708.04552, where it is 16 of CIFAR-10's 32 pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.side = size, min(size) // 2

    def __call__(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        top, left = (int(torch.randint(extent, ())) - self.side // 2 for extent in self.size)
        image = image.clone()
        image[:, max(top, 0) : top + self.side, max(left, 0) : left + self.side] = 0
        return image


class OwnImage(Own):
    """A user's callable, with its result checked."""

    def __call__(self, image: Any) -> Any:
        shown = self.called(image)
        if not isinstance(shown, Image.Image | Tensor):
            kind = type(shown).__name__
            raise ValueError(f"the transform {self.name} returned a {kind}, not a PIL image or a tensor")
        return shown


def is_small(size: tuple[int, int]) -> bool:
    return max(size) <= SMALL


def resized(image: Any, size: tuple[int, int]) -> Any:
    from torchvision.transforms.v2 import functional

    return image if _size_of(image) == size else functional.resize(image, list(size))


def covering(image: Any, size: tuple[int, int]) -> Any:
    """The image, aspect kept, at the smallest size that covers `size` times 256/224."""
    height, width = _size_of(image)
    scale = MARGIN * max(size[0] / height, size[1] / width)
    return resized(image, (max(round(height * scale), size[0]), max(round(width * scale), size[1])))


def _size_of(image: Any) -> tuple[int, int]:
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[-2], image.shape[-1])


def _crop(size: tuple[int, int]) -> list[Step]:
    """Random cut: of a small image padded with zeros by an eighth of its side, of a larger one within its margin."""
    from torchvision.transforms import v2

    height, width = size
    padding = [width // 8, height // 8] if is_small(size) else None
    return [Cover(size), v2.RandomCrop(size, padding=padding)]


def _resized_crop(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.RandomResizedCrop(size)]


def _flip(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.RandomHorizontalFlip()]


def _randaugment(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.RandAugment()]


def _trivialaugment(size: tuple[int, int]) -> list[Step]:
    from torchvision.transforms import v2

    return [v2.TrivialAugmentWide()]


def _erasing(size: tuple[int, int]) -> Step:
    """Half of the images lose a rectangle, 2 to 40 % of them and 3:10 to 10:3 in shape, to noise like their pixels.

    The noise is normal with the images' mean and deviation; the paper's is uniform over all values of a pixel.
    Source: Zhong et al., 2020, section 3.2, https://arxiv.org/abs/1708.04896
    """
    from torchvision.transforms import v2

    return v2.RandomErasing(p=0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value="random")


STEPS: dict[str, Callable[[tuple[int, int]], list[Step]]] = {
    "crop": _crop,
    "resized_crop": _resized_crop,
    "flip": _flip,
    "randaugment": _randaugment,
    "trivialaugment": _trivialaugment,
}
ERASERS: dict[str, Callable[[tuple[int, int]], Step]] = {"cutout": Cutout, "erasing": _erasing}  # of normalised images
CUTS = ("crop", "resized_crop")
COLOURS = ("randaugment", "trivialaugment")


def augmentation_names(augment: str | list[str], size: tuple[int, int], reflectable: bool) -> list[str]:
    return chosen_names(augment, ["crop" if is_small(size) else "resized_crop"] + ["flip"] * reflectable)


def steps_of(names: Sequence[str], size: tuple[int, int], channels: int) -> list[Step]:
    """The steps in the order of their names; without a cut among them, what evaluation shows comes first.

    Those that erase are no steps, since they follow the normalisation; they must come last.
    """
    steps: list[Step] = [] if set(names) & set(CUTS) else [Middle(size)]
    for name, then in itertools.pairwise(names):
        if name in ERASERS and then not in ERASERS:
            raise ValueError(f"augment={name} works on the finished image, so it comes last, not before {then}")
    for name in names:
        if name in ERASERS:
            continue
        if name in COLOURS:
            refuse_colours(name, channels)
        if name in STEPS:
            steps += STEPS[name](size)
        elif ":" in name:
            steps.append(OwnImage(name))
        else:
            raise unknown(name, [*STEPS, *ERASERS], "classification")
    return steps


class Kind(NamedTuple):
    """How the images of one kind of task are presented."""

    training: Callable[[DataPart], "Presentation | JointTraining"]
    evaluation: Callable[[DataPart], "Presentation | JointEvaluation"]


PRESENTATIONS = {
    "classification": Kind(_training, _evaluation),
    "segmentation": Kind(JointTraining, JointEvaluation),
}
