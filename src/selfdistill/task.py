"""What is to be learned: the label space, the supervised loss and the shape of one image."""

from typing import Literal, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .losses import in_float32


class Task(NamedTuple):
    """A supervised problem. Class scores always lie along dim 1; any further dims are positions.

    That one convention lets a loss written for `(b, k)` serve `(b, k, h, w)` unchanged.
    """

    kind: Literal["classification", "segmentation"]
    num_classes: int
    image_shape: tuple[int, int, int]  # (C, H, W) of one training image
    num_examples: int = 0  # rows of the training set; 0 where unknown
    void: int = -100  # label that counts for nothing

    @in_float32
    def loss(self, logits: Float[Tensor, "b k *pos"], target: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy in nats, mean over the labelled positions.

        `target` holds class numbers (b, *pos), int64, or class probabilities (b, k, *pos).
        """
        return F.cross_entropy(logits, target, ignore_index=self.void)
