"""What a method is given and gives: a batch and the losses of one step."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

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
    index: Int64[Tensor, " b"] | None = None  # type: ignore[assignment]  # tuples have a method of this name
    views: Float[Tensor, "b v c h w"] | None = None
    positives: Float[Tensor, "b m c h w"] | None = None

    def permute_labels(self, order: Int64[Tensor, " b"]) -> tuple[Tensor, Tensor | None]:
        """`target` and `soft_target` with the examples in another order, as `Task.loss` takes them."""
        return self.target[order], None if self.soft_target is None else self.soft_target[order]


class Step(NamedTuple):
    """What a method returns. The trainer minimizes the sum of `losses` and logs each by name."""

    losses: dict[str, Tensor]  # weighted terms, each ()
    logits: Tensor  # the student's scores for `batch.images`, as they were trained on
    teacher_logits: Tensor | None = None  # of the method's own teacher for all or the first images, detached: logged
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


def check_tensors(batch: Any) -> None:
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
    check_tensors(batch)
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
