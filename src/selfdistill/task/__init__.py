"""What is to be learned: the label space, the supervised loss and the shape of one image."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..losses import are_probabilities, cross_entropy, describe_shape, kd, refuse_float_target
from .batch import Batch as Batch
from .batch import Step as Step
from .batch import as_batch as as_batch
from .batch import check_scored as check_scored
from .batch import check_tensors
from .label_loss import DEFAULT_GAMMA, LabelLoss


def check_batch(batch: Batch, task: "Task") -> None:
    """Raises `ValueError` for images and labels of a type or shape that does not fit `task`. Reads no value."""
    check_tensors(batch)
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
        shape = (len(images), task.num_classes, *target.shape[1:])
        raise ValueError(f"soft_target {tuple(soft_target.shape)} must have the shape of the scores, {shape}")


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
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def refuse_no_count(num_classes: object) -> None:
    """Raises `ValueError` for a number of classes that is none."""
    if not _is_count(num_classes):
        raise ValueError(f"num_classes={num_classes!r} must be a whole number, 1 or more")


@runtime_checkable
class Kind(Protocol):
    """What a task asks of the class that its name stands for, a `selfdistill.tasks.base.TaskKind`."""

    @property
    def name(self) -> str: ...

    @property
    def output(self) -> Literal["image", "pixel"]: ...

    @property
    def target(self) -> str: ...

    @property
    def predict(self) -> Callable[[Tensor], Tensor] | None: ...

    @property
    def soft_label_loss(self) -> SoftLabelLoss | None: ...

    @property
    def label_checks(self) -> LabelChecks | None: ...

    def create_criterion(self, loss: Criterion | str | None, num_classes: int, **settings: Any) -> Criterion | None:
        """The supervised loss; None for cross-entropy."""


def _find_no_kind(name: str) -> Kind:
    raise ValueError(f"no task is known by its name before selfdistill.tasks is imported; take sd.Task({name!r}, ...)")


@dataclass(frozen=True, init=False)
class Task:
    """The supervised problem that a method trains on.

    Class scores always lie along dim 1; any further dims are positions. That one convention lets a loss written for
    `(b, k)` serve `(b, k, h, w)` unchanged. Heads and score maps depend on `output` alone; the loss, predictions and
    which methods can train on the labels depend on `target` alone.

    Args:
        kind: "classification", "multilabel", "segmentation", or "package.module:Class" of a task of your own.
        num_classes: How many classes a network scores.
        image_shape: (channels, height, width) of one training image.
        num_examples: Images in the training set; needed by methods that store a state for each image.
        ignore_index: The label that counts for nothing.
        loss: The supervised loss of every method: "cross_entropy", "focal", "bce", "dice+cross_entropy" for
            segmentation, "asymmetric" for multilabel, "package.module:function", or a function that is called as
            `loss(logits, target, soft_target, ignore_index)`. `soft_target` is None, or class probabilities that stand
            in for `target`. None: the task's own.
        class_weights: How much the labels of each class weigh, in order; `selfdistill.task.label_loss.weigh_classes`
            makes them of counts. For "multilabel": how much the images weigh that show it.
        label_smoothing: The share of each label that all classes get alike, or yes and no, in [0, 1).
        gamma: Of the focal loss.
        criterion: The older name of `loss`.

    Attributes:
        output: What a score belongs to, "image" or "pixel".
        target: What a label is: "class", its number; or something of the task's own.
        criterion: `(logits, target, soft_target, ignore_index)`, the supervised loss of every method: cross-entropy, a
            `LabelLoss` with class weights and more, or a loss of your own.
        predict: `(logits)` gives what is compared with `target`, element by element.
        soft_label_loss: `(logits, teacher_logits, temperature, mask)`, how methods compare class scores: `losses.kd`
            for class numbers unless given, else a loss of the task's own; without one, methods that need it refuse
            the task.
        label_checks: What refuses wrong labels; None: those of class numbers, or none for other labels.

    Raises:
        ValueError: for an unknown task or loss, with the nearest one, for settings that the loss does not take, and
            for a class count or an image shape that is none.

    >>> import selfdistill as sd
    >>> sd.Task("segmentation", 4, (3, 32, 32)).positions
    (32, 32)
    """

    kind: str
    num_classes: int
    image_shape: tuple[int, int, int]
    num_examples: int
    ignore_index: int
    output: Literal["image", "pixel"]
    target: str
    criterion: Criterion
    predict: Callable[[Tensor], Tensor]
    soft_label_loss: SoftLabelLoss | None
    label_checks: LabelChecks | None
    _find_kind: ClassVar[Callable[[str], Kind]] = _find_no_kind  # `tasks`, which knows the names, puts its own here

    def __init__(
        self,
        kind: str | Kind,
        num_classes: int,
        image_shape: tuple[int, int, int],
        num_examples: int = 0,
        ignore_index: int = -100,
        *,
        loss: Criterion | str | None = None,
        class_weights: Sequence[int | float] | Tensor | None = None,
        label_smoothing: float = 0.0,
        gamma: float = DEFAULT_GAMMA,
        criterion: Criterion | str | None = None,
    ) -> None:
        if loss is not None and criterion is not None:
            raise ValueError("criterion is the older name of loss; give one of them")
        kind = Task._find_kind(kind) if isinstance(kind, str) else kind
        loss = criterion if loss is None else loss
        settings = {"class_weights": class_weights, "label_smoothing": label_smoothing, "gamma": gamma}
        vars(self).update(
            kind=kind.name,
            num_classes=num_classes,
            image_shape=image_shape,
            num_examples=num_examples,
            ignore_index=ignore_index,
            output=kind.output,
            target=kind.target,
            criterion=kind.create_criterion(loss, num_classes, **settings) or cross_entropy,
            predict=kind.predict or predict_class,
            soft_label_loss=kind.soft_label_loss,
            label_checks=kind.label_checks,
        )
        self._check()

    def replace(self, **changes: Any) -> "Task":
        """A copy with other values of some attributes; raises `ValueError` for others, and as for a new one."""
        if unknown := [name for name in changes if name not in vars(self)]:
            raise ValueError(f"a task has no {unknown[0]}; it has {', '.join(vars(self))}")
        changed = copy.copy(self)
        vars(changed).update(changes)
        changed._check()
        return changed

    def _check(self) -> None:
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
        mask: Bool[Tensor, "b ..."] | None = None,
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

    def labeled_mask(self, target: Shaped[Tensor, "b ..."]) -> Bool[Tensor, "b ..."] | None:
        """What has a label and counts in losses: positions, or of several labels those that are known.

        None: all, since one label belongs to a whole image.
        """
        has_one_label = self.output == "image" and self.target != "multi_label"
        return None if has_one_label else target != self.ignore_index

    def count_correct(
        self, logits: Float[Tensor, "b k *pos"], target: Tensor, soft_target: Tensor | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """How many labels are predicted, and how many there are.

        Of mixed labels, each position counts as the probability that they give the predicted class, or, where a
        prediction says yes or no of each class, as that of each answer.
        """
        predicted = self.predict(logits)
        if soft_target is not None and predicted.shape == soft_target.shape:
            correct, known = soft_target.where(predicted > 0, 1 - soft_target), target != self.ignore_index
            return correct.where(known, 0).sum().double(), known.sum().double()
        if soft_target is not None:
            correct = soft_target.gather(1, predicted[:, None])
            return correct.sum().double(), correct.new_ones(correct.shape).sum().double()
        return (predicted == target).sum().double(), (target != self.ignore_index).sum().double()
