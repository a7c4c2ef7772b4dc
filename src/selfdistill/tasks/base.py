"""The interface of a task: everything that differs between tasks, in one class."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..config.recipe import DataPart
from ..data.datasets.base import LabelCounts
from ..data.datasets.conversion import Stored
from ..data.task_data import TaskData
from ..data.transforms.base import Transform
from ..errors import did_you_mean
from ..imports import load, suggest_colon
from ..metrics.evaluation import Scorer, score_images, score_pixels
from ..metrics.outcomes import ClassCollector, Collector, LabeledScores, PixelCollector
from ..runs.student import StudentCard
from ..task import Batch, Criterion, LabelChecks, SoftLabelLoss
from ..task.label_loss import DEFAULT_GAMMA, LOSS_NAMES, LabelLoss, weigh_classes

ImageShape = tuple[int, int, int]  # how many images, height, width


class Defaults(NamedTuple):
    """Settings of a recipe that depend on the task."""

    data: str
    student: str
    lr: float  # of SGD
    batch_size: int
    fine_tuning_lr: float | None = None  # of SGD, from trained weights; None: a tenth of `lr`


class Mixer(NamedTuple):
    """A way of mixing the images and labels of a batch: `mix` in a recipe."""

    mix: Callable[[Batch, int, float], Batch]  # takes the number of classes, and alpha of Beta(alpha, alpha)
    soft: bool  # whether labels become class probabilities, which some methods refuse


class FreeAxes(NamedTuple):
    """The axes of images (b, c, h, w) whose size an exported network leaves open."""

    names: dict[int, str]  # axis -> name
    tried_shapes: Callable[
        [int, int], Sequence[ImageShape]
    ]  # from the training size: shapes on which the file is checked


FIXED_SIZE = FreeAxes({0: "batch"}, lambda height, width: [(1, height, width), (3, height, width)])


class Column(NamedTuple):
    """A column of `report` and `compare`: one score."""

    score: str  # its name among the scores
    title: str
    format: str = ".2f"
    scale: float = 100.0  # shares are shown in percent


ReadLabel = Callable[[], Int64[Tensor, "h w"]]  # the class index of every pixel of an image, negative for void


class ImageFile(NamedTuple):
    """An image to predict."""

    path: Path
    stem: Path  # the path below the folder that was named, without its suffix


class Prediction(NamedTuple):
    """The prediction of a student for one image."""

    image: Path
    classes: list[tuple[str, float]]  # largest first; the task defines the numbers
    files: dict[str, Path]  # written files by kind, such as "mask"


class Predictor:
    """Predicts image files with a trained student."""

    default_top: int | None = 1  # of the command line; None: as many as the predictor itself finds
    notes: Sequence[str] = ()  # sentences for the user on what the numbers are

    def rank_classes(self, picture: Stored | Tensor, top: int | None) -> list[tuple[str, float]]:
        """The `top` classes of one image, largest first, as `predict` gives those of a file.

        A tensor (c, h, w) is shown to the student as it is.
        """
        raise NotImplementedError

    def compare_with(self, labels: Mapping[Path, ReadLabel]) -> None:
        """Makes `predict` write a comparison for each image that has a label; `labels` are by the resolved path.

        Raises `ValueError` for a task that writes no pictures.
        """
        raise ValueError("--compare has no effect: it draws the labels of pixels, and this run has none")

    def label_pixels(self, picture: Stored | Tensor) -> Int64[Tensor, "h w"]:
        """The class of every pixel, on the CPU; raises `ValueError` for a task that gives pixels none."""
        raise ValueError("this task gives pixels no class, so there are no masks to draw")

    def check(self, images: Sequence[ImageFile]) -> None:
        """Raises `ValueError` if the predictions cannot be written; writes nothing."""

    def predict(self, image: ImageFile, top: int) -> Prediction:
        """Predicts the `top` classes of one image file, and writes its output files.

        `top` is None too where `default_top` is.
        """
        raise NotImplementedError


class TaskKind(TaskData):
    """Everything that differs between tasks. A subclass in a file of this folder is the task of that name."""

    output: ClassVar[Literal["image", "pixel"]]  # what a score belongs to
    target: ClassVar[str] = "class"  # the type of a label: "class" for a class index, or the task's own
    criterion: ClassVar[Criterion | None] = None  # the supervised loss, see `Task`; None: cross-entropy
    predict: ClassVar[Callable[[Tensor], Tensor] | None] = None  # see `Task`; None: the class with the highest score
    losses: ClassVar[tuple[str, ...]] = ()  # names of `label_loss`, the default first; idle beside `criterion`
    label_loss: ClassVar[type[LabelLoss]] = LabelLoss
    soft_label_loss: ClassVar[SoftLabelLoss | None] = None  # see `Task`; None: softmax, or none for other targets
    label_checks: ClassVar[LabelChecks | None] = None  # see `Task`
    defaults: ClassVar[Defaults]
    mixers: ClassVar[Mapping[str, Mixer]] = {}
    chooses_thresholds: ClassVar[bool] = False  # whether `choose_thresholds` gives any, which the run then stores
    columns: ClassVar[tuple[Column, ...]]  # of `report`; the first is the main score, which has a spread
    rare_columns: ClassVar[tuple[Column, ...]] = ()  # further scores that some data have, and tables only then
    class_scores: ClassVar[Mapping[str, str]] = {}  # scores that hold a share for each class, and their titles
    free_axes: ClassVar[FreeAxes] = FIXED_SIZE

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def can_distill(self) -> bool:
        """Whether methods can compare class scores, see `Task.distill`."""
        return self.soft_label_loss is not None or self.target == "class"

    @property
    def choosing_scores(self) -> list[str]:
        """The scores by which a run can choose its best epoch (`best_by`), which chooses the thresholds too."""
        names = [column.score for column in (*self.columns, *self.rare_columns)]
        return [name for name in names if not name.startswith("thresholds_")]

    def create_criterion(
        self,
        loss: Criterion | str | None,
        num_classes: int,
        *,
        class_weights: Sequence[int | float] | Tensor | None = None,
        label_smoothing: float = 0.0,
        gamma: float = DEFAULT_GAMMA,
    ) -> Criterion | None:
        """The supervised loss; None for the default. Raises `ValueError` for a loss that the task does not have."""
        known = self.losses if self.criterion is None else ()
        if isinstance(loss, str) and loss not in LOSS_NAMES:
            if ":" not in loss and not suggest_colon(loss):
                raise ValueError(f"task.loss={loss} is no loss{did_you_mean(loss, known)}")
            loss = load(loss)
        if isinstance(loss, str) and loss not in known:
            others = f"take {' or '.join(known)}" if known else "which has a loss of its own"
            raise ValueError(f"task.loss={loss} does not fit task={self.name}; {others}")
        is_plain = class_weights is None and not label_smoothing
        if callable(loss) or not known:
            if not is_plain:
                own = "a loss of your own" if callable(loss) else f"the loss of task={self.name}"
                raise ValueError(f"{own} takes no class_weights and no label_smoothing; build them into it")
            return loss or self.criterion
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(f"there are {len(class_weights)} class weights, and the task has {num_classes} classes")
        name = loss or known[0]
        if name == "cross_entropy" and is_plain:
            return None
        return self.label_loss(name, class_weights=class_weights, label_smoothing=label_smoothing, gamma=gamma)

    @abstractmethod
    def metric(self, num_classes: int, ignore_index: int) -> nn.Module:
        """The metric that computes the scores of a student from logits and labels.

        That of a task that `chooses_thresholds` takes `thresholds=` too.
        """

    def choose_thresholds(self, sample: LabeledScores) -> tuple[float, ...] | None:
        """The probability from which on an image is said to show a class, for each class, from validation images."""
        return None

    def weigh_classes(self, counts: LabelCounts, images: int, rule: Literal["auto", "effective"]) -> list[float]:
        """Class weights from how often each class occurs in so many `images`; see `task.class_weights`."""
        return weigh_classes(counts.labels, rule, images=counts.images)

    def outcomes(self, num_classes: int, ignore_index: int) -> Collector | None:
        """Collects what a student answers for each image; None for a task with labels or predictions of its own."""
        if self.target != "class" or self.predict is not None:
            return None
        if self.output == "pixel":
            return PixelCollector(num_classes, ignore_index=ignore_index)
        return ClassCollector(num_classes)

    def scorer(self, window: tuple[int, int] | None = None) -> Scorer:
        """The function that computes a student's logits; for pixels in windows of (height, width), if not None."""
        if self.output == "pixel":
            return functools.partial(score_pixels, window=window)
        if window is not None:
            raise ValueError(f"window={window} has no effect: only pixels are scored window by window")
        return score_images

    @abstractmethod
    def eval_batch_size(self, settings: DataPart) -> int:
        """The batch size of evaluation under resolved data settings."""

    @abstractmethod
    def predictor(self, student: nn.Module, card: StudentCard, run: Path, out: Path | None) -> Predictor:
        """The predictor for the student of a `run` that `card` describes; `out` is the folder for its files."""

    def say_answer(self, logits: Tensor, card: StudentCard) -> str | None:
        """What a student says of an image by its scores (k, *pos); None: the class of the highest or of most pixels."""
        return None

    def export_metadata(self, card: StudentCard) -> dict[str, str]:
        """Metadata of this task in exported files, besides classes, image shape and normalization; values are JSON."""
        return {}


def show_picture(picture: Stored | Tensor, transform: Transform, student: nn.Module) -> Float[Tensor, "1 c h w"]:
    """What a student is shown of a picture: after the transform of evaluation; a tensor as it is."""
    image = picture if isinstance(picture, Tensor) else transform.show(picture)
    return image[None].to(find_device(student))


def select_largest(values: Float[Tensor, " k"], names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Selects the `top` largest values. Returns (name, value), largest first."""
    highest = values.topk(min(top, len(values)))
    return [(names[k], value) for k, value in zip(highest.indices.tolist(), highest.values.tolist(), strict=True)]


def find_device(student: nn.Module) -> torch.device:
    """The device of a network's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in student.parameters()), torch.device("cpu"))
