"""What is to be learned: the label space, the supervised loss and the shape of one image."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from .losses import cross_entropy, describe_shape


class Batch(NamedTuple):
    """What the loader yields; `Batch(images, target)` is enough for most methods."""

    images: Float[Tensor, "b c h w"]
    target: Tensor  # class numbers (b,) or (b, h, w), int64, where `Task.target` is "class"
    soft_target: Float[Tensor, "b k *pos"] | None = None  # class probabilities of mixed labels, instead of `target`
    index: Int64[Tensor, " b"] | None = None  # of each example in the training set
    views: Float[Tensor, "b v c h w"] | None = None  # v further independent augmentations of each image
    positives: Float[Tensor, "b m c h w"] | None = None  # m other images of the same class

    def permute_labels(self, order: Int64[Tensor, " b"]) -> tuple[Tensor, Tensor | None]:
        """`target` and `soft_target` with the examples in another order, as `Task.loss` takes them."""
        return self.target[order], None if self.soft_target is None else self.soft_target[order]


class Step(NamedTuple):
    """What a method returns. The trainer minimizes the sum of `losses` and logs each by name."""

    losses: dict[str, Tensor]  # weighted terms, each ()
    logits: Tensor  # the student's scores for `batch.images`, as they were trained on

    @property
    def loss(self) -> Tensor:
        """The training objective, ()."""
        return sum(self.losses.values())  # type: ignore[return-value]


Criterion = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]  # (logits, target, soft_target, ignore_index)


def predict_class(logits: Float[Tensor, "b k *pos"]) -> Int64[Tensor, " b *pos"]:
    """The class with the highest score."""
    return logits.argmax(dim=1)


@dataclass(frozen=True)
class Task:
    """A supervised problem. Class scores always lie along dim 1; any further dims are positions.

    That one convention lets a loss written for `(b, k)` serve `(b, k, h, w)` unchanged. Heads and score maps depend on
    `output` alone; the loss, predictions and which methods can train on the labels depend on `target` alone.
    `selfdistill.Task("classification", 10, (3, 32, 32))` fills in what a task is known to be by its name.

    `criterion(logits, target, soft_target, ignore_index)` is the supervised loss of every method: class weights, or a
    loss of your own, go here. `soft_target` is None, or class probabilities that stand in for `target`.
    `predict(logits)` gives what is compared with `target`, element by element.
    """

    kind: str  # the name of the task
    num_classes: int
    image_shape: tuple[int, int, int]  # (C, H, W) of one training image
    num_examples: int = 0  # images in the training set; 0 where unknown
    ignore_index: int = -100  # label that counts for nothing
    _: KW_ONLY
    output: Literal["image", "pixel"]  # what a score belongs to
    target: str = "class"  # what a label is: "class", its number; or something of the task's own
    criterion: Criterion = cross_entropy
    predict: Callable[[Tensor], Tensor] = predict_class

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

    def labeled_mask(self, target: Shaped[Tensor, " b *pos"]) -> Bool[Tensor, "b h w"] | None:
        """Which positions have a label and count in losses; None: all, since a label belongs to a whole image."""
        return None if self.output == "image" else target != self.ignore_index

    def count_correct(
        self, logits: Float[Tensor, "b k *pos"], target: Tensor, soft_target: Tensor | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """How many labels are predicted, and how many there are.

        Of mixed labels, each position counts as the probability that they give the predicted class.
        """
        predicted = self.predict(logits)
        if soft_target is not None:
            correct = soft_target.gather(1, predicted[:, None])
            return correct.sum().double(), correct.new_ones(correct.shape).sum().double()
        return (predicted == target).sum().double(), (target != self.ignore_index).sum().double()
