"""The one abstraction of a task: everything that is particular to it, in one class."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric

from ..config.recipe import DataPart
from ..data.task_data import TaskData
from ..imports import load
from ..metrics.evaluation import Scorer, score_images, score_pixels
from ..runs.student import StudentCard
from ..task import Batch, Criterion, Task

ImageShape = tuple[int, int, int]  # how many images, height, width


class Defaults(NamedTuple):
    """Settings of a recipe that depend on the task."""

    data: str
    student: str
    lr: float  # of SGD
    batch_size: int


class Mixer(NamedTuple):
    """A way of mixing the images and labels of a batch: `mix` in a recipe."""

    mix: Callable[[Batch, int, float], Batch]  # takes the number of classes, and alpha of Beta(alpha, alpha)
    soft: bool  # whether labels become class probabilities, which not every method takes


class FreeAxes(NamedTuple):
    """What an exported network leaves open of its images (b, c, h, w)."""

    names: dict[int, str]  # of the free axes
    tried_shapes: Callable[[int, int], Sequence[ImageShape]]  # on which the file is tried, from those of training


FIXED_SIZE = FreeAxes({0: "batch"}, lambda height, width: [(1, height, width), (3, height, width)])


class Column(NamedTuple):
    """A score that `report` and `compare` show."""

    score: str  # its name among the scores
    title: str
    format: str = ".2f"
    scale: float = 100.0  # shares are shown in percent


class ImageFile(NamedTuple):
    """An image to predict: its path, and below which folder it was found."""

    path: Path
    stem: Path  # the path below the folder that was named, without its suffix


class Prediction(NamedTuple):
    """What a student says of an image."""

    image: Path
    classes: list[tuple[str, float]]  # with the largest first; what the numbers are is the task's
    files: dict[str, Path]  # what was written of it, by what it is


class Predictor:
    """What a trained student says of image files."""

    def check(self, images: Sequence[ImageFile]) -> None:
        """Raises `ValueError` where writing down the predictions would go wrong; nothing is written yet."""

    def predict(self, image: ImageFile, top: int) -> Prediction:
        """The `top` classes of one image file; what is to be written of it is written."""
        raise NotImplementedError


class TaskKind(TaskData):
    """What a task means wherever tasks differ. A subclass in a file of this folder is a task of that name."""

    output: ClassVar[Literal["image", "pixel"]]  # what a score belongs to
    target: ClassVar[str] = "class"  # what a label is: the number of a class, or something of the task's own
    criterion: ClassVar[Criterion | None] = None  # the supervised loss, see `Task`; None: cross-entropy
    predict: ClassVar[Callable[[Tensor], Tensor] | None] = None  # see `Task`; None: the class with the highest score
    defaults: ClassVar[Defaults]
    mixers: ClassVar[Mapping[str, Mixer]] = {}
    columns: ClassVar[tuple[Column, ...]]  # of `report`; the first is the main score, which has a spread
    class_scores: ClassVar[Mapping[str, str]] = {}  # scores that hold a share for each class, and their titles
    free_axes: ClassVar[FreeAxes] = FIXED_SIZE

    def __init__(self, name: str) -> None:
        self.name = name

    def create_task(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        num_examples: int = 0,
        ignore_index: int = -100,
        *,
        criterion: Criterion | str | None = None,
    ) -> Task:
        """The problem that a method trains on, see `selfdistill.Task`."""
        if isinstance(criterion, str):
            criterion = load(criterion)
        particular = {"criterion": criterion or self.criterion, "predict": self.predict}
        return Task(
            self.name,
            num_classes,
            image_shape,
            num_examples,
            ignore_index,
            output=self.output,
            target=self.target,
            **{name: function for name, function in particular.items() if function is not None},
        )

    @abstractmethod
    def metric(self, num_classes: int, ignore_index: int) -> Metric:
        """What computes the scores of a student from its logits and the labels."""

    def scorer(self, window: tuple[int, int] | None = None) -> Scorer:
        """How a student is asked for its logits, for pixels in windows of so many (height, width) where given."""
        if self.output == "pixel":
            return functools.partial(score_pixels, window=window)
        if window is not None:
            raise ValueError(f"window={window} has no effect: only pixels are scored window by window")
        return score_images

    @abstractmethod
    def eval_batch_size(self, settings: DataPart) -> int:
        """How many images evaluation shows at a time, under resolved data settings."""

    @abstractmethod
    def predictor(self, student: nn.Module, card: StudentCard, run: Path, out: Path | None) -> Predictor:
        """What predicts with the student of a `run`, which `card` describes; `out`: where files go."""

    def export_metadata(self, card: StudentCard) -> dict[str, str]:
        """What an exported file tells of this task beside classes, image shape and normalization; values are JSON."""
        return {}


def select_largest(values: Float[Tensor, " k"], names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The names of the `top` largest values, with these, the largest first."""
    highest = values.topk(min(top, len(values)))
    return [(names[k], value) for k, value in zip(highest.indices.tolist(), highest.values.tolist(), strict=True)]


def find_device(student: nn.Module) -> torch.device:
    """Where a network computes."""
    return next((parameter.device for parameter in student.parameters()), torch.device("cpu"))
