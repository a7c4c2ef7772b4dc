"""What is to be learned: the label space, the supervised loss and the shape of one image."""

from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .losses import cross_entropy, describe_shape


class Batch(NamedTuple):
    """What the loader yields; `Batch(images, target)` is enough for most methods."""

    images: Float[Tensor, "b c h w"]
    target: Int64[Tensor, "b *pos"]  # class numbers, (b,) or (b, h, w)
    soft_target: Float[Tensor, "b k *pos"] | None = None  # class probabilities of mixed labels, instead of `target`
    index: Int64[Tensor, " b"] | None = None  # of each example in the training set
    views: Float[Tensor, "b v c h w"] | None = None  # v further independent augmentations of each image
    positives: Float[Tensor, "b m c h w"] | None = None  # m other images of the same class

    def permute_labels(self, order: Int64[Tensor, " b"]) -> tuple[Tensor, Tensor | None]:
        """`target` and `soft_target` with the examples in another order, as `Task.loss` takes them."""
        return self.target[order], None if self.soft_target is None else self.soft_target[order]


class Step(NamedTuple):
    """What a method returns. The trainer minimises the sum of `losses` and logs each by name."""

    losses: dict[str, Tensor]  # weighted terms, each ()
    logits: Tensor  # the student's scores for `batch.images`, as they were trained on

    @property
    def loss(self) -> Tensor:
        """The training objective, ()."""
        return sum(self.losses.values())  # type: ignore[return-value]


class Task(NamedTuple):
    """A supervised problem. Class scores always lie along dim 1; any further dims are positions.

    That one convention lets a loss written for `(b, k)` serve `(b, k, h, w)` unchanged.
    """

    kind: Literal["classification", "segmentation"]
    num_classes: int
    image_shape: tuple[int, int, int]  # (C, H, W) of one training image
    num_examples: int = 0  # rows of the training set; 0 where unknown
    void: int = -100  # label that counts for nothing

    @property
    def output(self) -> Literal["image", "pixel"]:
        """What a class score belongs to: a whole image, or one pixel of it."""
        return "image" if self.kind == "classification" else "pixel"

    @property
    def positions(self) -> tuple[int, ...]:
        """What follows (b, k) in the shape of the scores for one batch of training images: (), or (H, W)."""
        return () if self.kind == "classification" else self.image_shape[1:]

    def refuse_positions(self, positions: tuple[int, ...]) -> None:
        """Raises `ValueError` for a network whose scores for training images have other `positions` behind (b, k)."""
        if positions != self.positions:
            given, wanted = describe_shape(positions), describe_shape(self.positions)
            size = "x".join(map(str, self.image_shape[1:]))
            raise ValueError(f"the network scores {size} images as {given}, and {self.kind} needs {wanted}")

    def loss(
        self,
        logits: Float[Tensor, "b k *pos"],
        target: Int64[Tensor, "b ..."],
        soft_target: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The supervised loss of class scores: `losses.cross_entropy`, 0 where nothing is labelled."""
        return cross_entropy(logits, target, soft_target, self.void)

    def labelled(self, target: Int64[Tensor, "b *pos"]) -> Bool[Tensor, "b h w"] | None:
        """Which positions count where a method compares scores; None: all, since a label belongs to a whole image."""
        return None if self.kind == "classification" else target != self.void
