"""What is to be learned: the label space, the supervised loss and the shape of one image."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..losses import are_probabilities, cross_entropy, describe_shape, kd, refuse_float_target
from .label_loss import LabelLoss

SCORED_LABELS = (torch.int64, torch.uint8)  # what torch's cross-entropy takes for the class numbers of images


class Batch(NamedTuple):
    """What the loader yields; `Batch(images, target)` is enough for most methods.

    Attributes:
        images: (b, c, h, w), floats, normalized as the network expects them.
        target: Class numbers (b,) or (b, h, w), int64, where `Task.target` is "class"; 0 or 1 (b, k) for several
            labels.
        soft_target: (b, k) or (b, k, h, w), class probabilities of mixed labels, instead of `target`.
        index: (b,), of each example in the training set.
        views: (b, v, c, h, w), v further independent augmentations of each image.
        positives: (b, m, c, h, w), m other images of the same class.
    """

    images: Float[Tensor, "b c h w"]
    target: Tensor
    soft_target: Float[Tensor, "b k *pos"] | None = None
    index: Int64[Tensor, " b"] | None = None
    views: Float[Tensor, "b v c h w"] | None = None
    positives: Float[Tensor, "b m c h w"] | None = None

    def permute_labels(self, order: Int64[Tensor, " b"]) -> tuple[Tensor, Tensor | None]:
        """`target` and `soft_target` with the examples in another order, as `Task.loss` takes them."""
        return self.target[order], None if self.soft_target is None else self.soft_target[order]


class Step(NamedTuple):
    """What a method returns. The trainer minimizes the sum of `losses` and logs each by name."""

    losses: dict[str, Tensor]  # weighted terms, each ()
    logits: Tensor  # the student's scores for `batch.images`, as they were trained on
    teacher_logits: Tensor | None = None  # those of the method's own teacher, if it has one, detached: only logged
    level_distances: dict[str, Tensor] | None = None  # parts of a feature loss by map, each (), detached: only logged

    @property
    def loss(self) -> Tensor:
        """The training objective, ()."""
        return sum(self.losses.values())  # type: ignore[return-value]


def as_batch(batch: Any) -> Batch:
    """A `Batch`, made of a pair (images, target) where that is given, as a DataLoader of such pairs yields it.

    Raises `ValueError` for anything else.
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        return Batch(*batch)
    given = (
        f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list | dict) else type(batch).__name__
    )
    raise ValueError(f"a batch is sd.Batch(images, target, ...) or a pair of both, not a {given}")


def _check_tensors(batch: Any) -> None:
    """Raises `ValueError` for images that are no floats, and for labels that are no tensor."""
    for name, value in (("images", batch.images), ("target", batch.target)):
        if not isinstance(value, Tensor):
            raise ValueError(f"batch.{name} is a {type(value).__name__}; give a tensor")
    if not batch.images.is_floating_point():
        raise ValueError(
            f"images are {batch.images.dtype}; give floats, scaled and normalized as the network expects them"
        )


def check_scored(batch: Any, target: str) -> None:
    """Raises `ValueError` for images and labels, of a task's `target` type, that no student can be scored on."""
    _check_tensors(batch)
    if target != "class":
        return
    if batch.images.ndim == 3 or batch.target.ndim == 0:
        raise ValueError(
            f"images {tuple(batch.images.shape)} and labels {tuple(batch.target.shape)} are one example, not a batch; "
            f"give a torch.utils.data.DataLoader of the data set"
        )
    if batch.target.ndim not in (1, 3):
        raise ValueError(f"labels {tuple(batch.target.shape)} must be (b,), or (b, h, w) where they belong to pixels")
    if batch.target.is_floating_point() or batch.target.ndim == 1 and batch.target.dtype not in SCORED_LABELS:
        raise ValueError(f"labels are {batch.target.dtype}; give class numbers, target.long()")


def check_batch(batch: Batch, task: "Task") -> None:
    """Raises `ValueError` for images and labels of a type or shape that does not fit `task`. Reads no value."""
    _check_tensors(batch)
    images, target = batch.images, batch.target
    if images.ndim != 4 or images.shape[1] != task.image_shape[0]:
        raise ValueError(f"images {tuple(images.shape)} must be (b, {task.image_shape[0]}, h, w), as the task says")
    if not len(images):
        raise ValueError("the batch holds no image")
    if len(target) != len(images):
        raise ValueError(f"there are {len(images)} images and {len(target)} labels")
    if task.known_checks is not None:
        task.known_checks.types(batch, task)


def check_labels(batch: Batch, task: "Task") -> None:
    """Raises `ValueError` for labels whose values the task does not have."""
    if task.known_checks is not None:
        task.known_checks.values(batch, task)


def _check_class_types(batch: Batch, task: "Task") -> None:
    images, target, soft_target = batch.images, batch.target, batch.soft_target
    refuse_float_target(target)
    if target.dtype != torch.int64:
        raise ValueError(f"labels are {target.dtype}; give class numbers as int64, target.long()")
    wanted = "(b,)" if task.output == "image" else "(b, h, w)"
    if target.ndim != wanted.count(",") + (task.output == "pixel"):
        raise ValueError(f"labels {tuple(target.shape)} must be {wanted}, a class number for each {task.output}")
    if soft_target is not None and soft_target.shape != (len(images), task.num_classes, *target.shape[1:]):
        wanted = (len(images), task.num_classes, *target.shape[1:])
        raise ValueError(f"soft_target {tuple(soft_target.shape)} must have the shape of the scores, {wanted}")


def _check_class_numbers(batch: Batch, task: "Task") -> None:
    """Raises `ValueError` for class numbers that the task does not have, and for probabilities that do not sum to 1."""
    labels = batch.target.where(batch.target != task.ignore_index, 0)
    if labels.numel() and not all(0 <= int(label) < task.num_classes for label in labels.aminmax()):
        strange = labels[(labels < 0) | (labels >= task.num_classes)]
        raise ValueError(
            f"label {int(strange[0])} is none of the classes 0 to {task.num_classes - 1}"
            f"{_guess_cause(int(strange[0]), batch.target, task)}"
        )
    if batch.soft_target is not None and not are_probabilities(batch.soft_target):
        raise ValueError(
            "soft_target must hold probabilities that sum to 1 over the classes; where an image has several classes, "
            'train on sd.Task("multilabel", ...)'
        )


def _guess_cause(label: int, labels: Tensor, task: "Task") -> str:
    """The end of a sentence about a label that is no class."""
    if label < 0 or task.output == "pixel" and label == 255:
        what = "an image" if task.output == "image" else "a pixel"
        return f"; where {what} has no label give {task.ignore_index}, or make the task with ignore_index={label}"
    if label == task.num_classes and int(labels.min()) == 1:
        return "; they seem to begin at 1, so subtract 1"
    return f"; num_classes={task.num_classes} counts too few, or the label is wrong"


class LabelChecks(NamedTuple):
    """What raises `ValueError` for labels of a batch that do not fit its task."""

    types: Callable[[Batch, "Task"], None]  # by type and shape alone, in every step
    values: Callable[[Batch, "Task"], None]


CLASS_CHECKS = LabelChecks(_check_class_types, _check_class_numbers)
Criterion = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]  # (logits, target, soft_target, ignore_index)
# (logits, teacher_logits, temperature, mask), as `losses.kd`
SoftLabelLoss = Callable[[Tensor, Tensor, float, Tensor | None], Tensor]


def predict_class(logits: Float[Tensor, "b k *pos"]) -> Int64[Tensor, " b *pos"]:
    """The class with the highest score."""
    return logits.argmax(dim=1)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def refuse_no_count(num_classes: object) -> None:
    """Raises `ValueError` for a number of classes that is none."""
    if not _is_count(num_classes):
        raise ValueError(f"num_classes={num_classes!r} must be a whole number, 1 or more")


@dataclass(frozen=True)
class Task:
    """A supervised problem. Class scores always lie along dim 1; any further dims are positions.

    That one convention lets a loss written for `(b, k)` serve `(b, k, h, w)` unchanged. Heads and score maps depend on
    `output` alone; the loss, predictions and which methods can train on the labels depend on `target` alone.
    `selfdistill.Task("classification", 10, (3, 32, 32))` fills in what a task is known to be by its name.

    Attributes:
        kind: The name of the task.
        num_classes: How many classes a network scores.
        image_shape: (C, H, W) of one training image.
        num_examples: Images in the training set; 0 where unknown.
        ignore_index: The label that counts for nothing.
        output: What a score belongs to, "image" or "pixel".
        target: What a label is: "class", its number; or something of the task's own.
        criterion: `(logits, target, soft_target, ignore_index)`, the supervised loss of every method: cross-entropy, a
            `LabelLoss` with class weights and more, or a loss of your own. `soft_target` is None, or class
            probabilities that stand in for `target`.
        predict: `(logits)` gives what is compared with `target`, element by element.
        soft_label_loss: `(logits, teacher_logits, temperature, mask)`, how methods compare class scores: `losses.kd`
            for class numbers unless given, else a loss of the task's own; without one, methods that need it refuse
            the task.
        label_checks: What refuses wrong labels; None: those of class numbers, or none for other labels.
    """

    kind: str
    num_classes: int
    image_shape: tuple[int, int, int]
    num_examples: int = 0
    ignore_index: int = -100
    _: KW_ONLY
    output: Literal["image", "pixel"]
    target: str = "class"
    criterion: Criterion = cross_entropy
    predict: Callable[[Tensor], Tensor] = predict_class
    soft_label_loss: SoftLabelLoss | None = None
    label_checks: LabelChecks | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for a class count or an image shape that is none."""
        refuse_no_count(self.num_classes)
        shape = self.image_shape
        if not (isinstance(shape, Sequence) and len(shape) == 3 and all(map(_is_count, shape))):
            raise ValueError(f"image_shape={shape!r} must be (channels, height, width), such as (3, 32, 32)")

    @property
    def positions(self) -> tuple[int, ...]:
        """What follows (b, k) in the shape of the scores for one batch of training images: (), or (H, W)."""
        return () if self.output == "image" else self.image_shape[1:]

    def refuse_positions(self, positions: tuple[int, ...]) -> None:
        """Raises `ValueError` for a network whose scores for training images have other `positions` behind (b, k)."""
        if positions != self.positions:
            given, wanted = describe_shape(positions), describe_shape(self.positions)
            size = "x".join(map(str, self.image_shape[1:]))
            raise ValueError(f"the network scores {size} images as {given}, and {self.kind} needs {wanted}")

    def loss(
        self, logits: Float[Tensor, "b k *pos"], target: Tensor, soft_target: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """The supervised loss: by default `losses.cross_entropy`, 0 where nothing is labeled."""
        return self.criterion(logits, target, soft_target, self.ignore_index)

    def distill(
        self,
        logits: Float[Tensor, "b k *pos"],
        teacher_logits: Float[Tensor, "b k *pos"],
        temperature: float,
        mask: Bool[Tensor, " b *pos"] | None = None,
    ) -> Float[Tensor, ""]:
        """The soft-label loss from teacher to student: by default `losses.kd`; the teacher is detached."""
        assert self.can_distill, f"{self.kind} has no soft_label_loss"
        return (self.soft_label_loss or kd)(logits, teacher_logits, temperature, mask)

    @property
    def can_distill(self) -> bool:
        """Whether class scores can be compared by `distill`."""
        return self.soft_label_loss is not None or self.target == "class"

    @property
    def known_checks(self) -> LabelChecks | None:
        """The checks of labels, as far as the task's labels are known."""
        return self.label_checks or (CLASS_CHECKS if self.target == "class" else None)

    @property
    def has_plain_loss(self) -> bool:
        """Whether the supervised loss is the default of the labels, with or without class weights."""
        is_weighted = isinstance(self.criterion, LabelLoss) and self.criterion.is_plain
        return self.criterion is cross_entropy or is_weighted

    @property
    def class_weights(self) -> Float[Tensor, " k"] | None:
        """What the labels of each class weigh, for a method's own cross-entropies; None: all alike."""
        return self.criterion.class_weights if isinstance(self.criterion, LabelLoss) else None

    def count_labels(self, target: Tensor) -> Float[Tensor, ""] | None:
        """What the supervised loss of these labels is divided by; None: by the number of images."""
        if isinstance(self.criterion, LabelLoss) and self.criterion.weights is not None:
            return self.criterion.count(target, self.ignore_index)
        mask = self.labeled_mask(target)
        return None if mask is None else mask.sum().double()

    def labeled_mask(self, target: Shaped[Tensor, " b *pos"]) -> Bool[Tensor, "b h w"] | None:
        """Which positions have a label and count in losses; None: all, since a label belongs to a whole image."""
        return None if self.output == "image" else target != self.ignore_index

    def count_correct(
        self, logits: Float[Tensor, "b k *pos"], target: Tensor, soft_target: Tensor | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """How many labels are predicted, and how many there are.

        Of mixed labels, each position counts as the probability that they give the predicted class, or, where a
        prediction says yes or no of each class, as that of each answer.
        """
        predicted = self.predict(logits)
        if soft_target is not None and predicted.shape == soft_target.shape:
            correct = soft_target.where(predicted > 0, 1 - soft_target)
            return correct.sum().double(), correct.new_ones(correct.shape).sum().double()
        if soft_target is not None:
            correct = soft_target.gather(1, predicted[:, None])
            return correct.sum().double(), correct.new_ones(correct.shape).sum().double()
        return (predicted == target).sum().double(), (target != self.ignore_index).sum().double()
