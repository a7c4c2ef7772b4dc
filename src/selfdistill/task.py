"""What is to be learned: the label space, the supervised loss and the shape of one image."""

from typing import Literal, NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .losses import in_float32, refuse_misfit, scored


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
            given, wanted, size = scored(positions), scored(self.positions), "x".join(map(str, self.image_shape[1:]))
            raise ValueError(f"the network scores {size} images as {given}, and {self.kind} needs {wanted}")

    @in_float32
    def loss(self, logits: Float[Tensor, "b k *pos"], target: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy in nats, mean over the labelled positions; 0 where there is none.

        `target` holds class numbers (b, *pos), int64, or class probabilities (b, k, *pos).
        """
        refuse_misfit(logits, target)
        if target.is_floating_point():
            return F.cross_entropy(logits, target)
        total = F.cross_entropy(logits, target, ignore_index=self.void, reduction="sum")
        return total / (target != self.void).sum().clamp(min=1)

    def labelled(self, target: Tensor) -> Bool[Tensor, "b h w"] | None:
        """Which positions count where a method compares scores; None: all, since a label belongs to a whole image."""
        return None if self.kind == "classification" or target.is_floating_point() else target != self.void
