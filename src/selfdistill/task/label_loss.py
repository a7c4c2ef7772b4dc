"""The supervised loss of a task with its settings, and class weights from counts."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..losses.labels import DEFAULT_GAMMA as DEFAULT_GAMMA
from ..losses.labels import (
    ClassWeights,
    binary_cross_entropy,
    count_labels,
    cross_entropy,
    dice,
    focal_loss,
)
from ..losses.multi_label import GAMMA_NEGATIVE, MARGIN, binary_kd, multi_label_loss


class LabelLoss(nn.Module):
    """A supervised loss with its settings, to be a task's criterion.

    `name` is one of `LabelLoss.NAMES`. `class_weights` are numbers from 0 on, one for each class; None: all are alike.
    `label_smoothing` in [0, 1) is the share of each label that all classes get alike; Dice takes the labels as they
    are. `gamma` concerns the focal loss alone. Raises `ValueError` for other values.

    >>> loss = LabelLoss("cross_entropy", class_weights=[1, 3])
    >>> round(loss(torch.zeros(2, 2), torch.tensor([0, 1])).item(), 4)
    0.6931
    """

    NAMES: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal", "bce", "dice+cross_entropy")
    class_weights: Tensor | None  # moves with the method, so that no step waits for it

    def __init__(
        self,
        name: str = "cross_entropy",
        *,
        class_weights: Sequence[int | float] | Tensor | None = None,
        label_smoothing: float = 0.0,
        gamma: float = DEFAULT_GAMMA,
    ) -> None:
        super().__init__()
        if name not in self.NAMES:
            raise ValueError(f"loss={name!r} is none of {', '.join(self.NAMES)}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing!r} must be from 0 to below 1")
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma={gamma!r} must be a number from 0 on")
        self.name, self.label_smoothing, self.gamma = name, float(label_smoothing), float(gamma)
        self.weights = None if class_weights is None else _check_weights(class_weights)
        weights = None if self.weights is None else torch.tensor(self.weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    @property
    def is_plain(self) -> bool:
        """Whether it is the task's default loss but for class weights."""
        return self.name == self.NAMES[0] and self.label_smoothing == 0

    def find_weights(self, device: torch.device, dtype: torch.dtype) -> ClassWeights:
        """The class weights on a device; in float64 they are what was given."""
        if self.class_weights is None or dtype == torch.float64 and device.type == "cpu":
            return None if self.weights is None else torch.tensor(self.weights, dtype=dtype, device=device)
        return self.class_weights.to(device, torch.promote_types(dtype, torch.float32))

    def count(self, target: Int64[Tensor, "b ..."], ignore_index: int) -> Float[Tensor, ""]:
        """What the sum over these labels is divided by."""
        return count_labels(target, ignore_index, self.find_weights(target.device, torch.float64)).double()

    def forward(
        self,
        logits: Float[Tensor, "b k *pos"],
        target: Int64[Tensor, "b ..."],
        soft_target: Float[Tensor, "b ..."] | None = None,
        ignore_index: int = -100,
    ) -> Float[Tensor, ""]:
        settings = self.collect_settings(logits)
        if self.name == "focal":
            return focal_loss(logits, target, self.gamma, ignore_index, soft_target, **settings)
        if self.name == "bce":
            return binary_cross_entropy(logits, target, soft_target, ignore_index, **settings)
        loss = cross_entropy(logits, target, soft_target, ignore_index, **settings)
        if self.name == "cross_entropy":
            return loss
        return loss + dice(logits, target, soft_target, ignore_index, class_weights=settings["class_weights"])

    def collect_settings(self, logits: Tensor) -> dict[str, Any]:
        """The settings that all losses take; raises `ValueError` for another number of weights than of classes."""
        weights = self.find_weights(logits.device, logits.dtype)
        if weights is not None and len(weights) != logits.shape[1]:
            raise ValueError(
                f"there are {len(weights)} class weights, and the network scores {logits.shape[1]} classes"
            )
        return {"class_weights": weights, "label_smoothing": self.label_smoothing}


class MultiLabelLoss(LabelLoss):
    """As `LabelLoss`, for images that show any number of classes: labels (b, k) of zeros and ones, some not known.

    `class_weights` weigh the images that show a class against those that do not. `label_smoothing` moves each label
    towards one half. `gamma` concerns the focal loss; the asymmetric loss has its paper's settings: gamma 4 and a
    margin of 0.05 for what is not shown.

    >>> loss = MultiLabelLoss("bce", class_weights=[1, 3])
    >>> round(loss(torch.zeros(1, 2), torch.tensor([[0, 1]])).item(), 4)  # (1 + 3) log 2
    2.7726
    """

    NAMES = ("bce", "focal", "asymmetric")
    soft_label_loss = staticmethod(binary_kd)  # how methods compare class scores

    def count(self, target: Int64[Tensor, "b ..."], ignore_index: int) -> Float[Tensor, ""]:
        """The number of known labels: the loss is a mean over them whatever the weights."""
        return (target != ignore_index).sum().double()

    def forward(
        self,
        logits: Float[Tensor, "b k *pos"],
        target: Int64[Tensor, "b ..."],
        soft_target: Float[Tensor, "b ..."] | None = None,
        ignore_index: int = -100,
    ) -> Float[Tensor, ""]:
        gammas = {"bce": {}, "focal": {"gamma_positive": self.gamma, "gamma_negative": self.gamma}}
        asymmetric = {"gamma_negative": GAMMA_NEGATIVE, "margin": MARGIN}
        shape: dict[str, Any] = gammas.get(self.name, asymmetric)
        return multi_label_loss(logits, target, soft_target, ignore_index, **self.collect_settings(logits), **shape)


LOSS_NAMES = tuple(dict.fromkeys((*LabelLoss.NAMES, *MultiLabelLoss.NAMES)))


def _check_weights(weights: Sequence[int | float] | Tensor) -> tuple[float, ...]:
    """Raises `ValueError` for class weights that are no numbers from 0 on, or all 0."""
    try:
        values = tuple(map(float, weights))
    except (TypeError, ValueError):
        values = ()
    if not all(0 <= value < math.inf for value in values) or not any(values):
        raise ValueError(f"class_weights={weights!r} must be numbers from 0 on, one for each class, and not all 0")
    return values


def weigh_classes(
    labels: Sequence[int] | Tensor,
    rule: Literal["auto", "effective"] = "auto",
    *,
    images: Sequence[int] | Tensor | None = None,
    beta: float = 0.999,
) -> list[float]:
    """Class weights from how often each class occurs, so that their mean over all labels is 1.

    Args:
        labels: How many labels each class has: images, or labeled pixels of masks.
        rule: "auto": n / (k n_c), scikit-learn's "balanced". "effective": proportional to
            (1 - beta) / (1 - beta^m_c), the inverse effective number.
        images: m_c, how many images show each class; None: as `labels`.
        beta: Of "effective", in [0, 1); at 0 all classes weigh alike, towards 1 they weigh 1 / m_c.

    Returns:
        A weight for each class; 1 for a class without labels, which is left out of the count k.

    Source: Cui et al., 2019, eq. 2, https://arxiv.org/abs/1901.05555

    >>> weigh_classes([50, 1]), weigh_classes([3, 0, 1])
    ([0.51, 25.5], [0.6666666666666666, 1.0, 2.0])
    """
    counts = torch.as_tensor(labels, dtype=torch.float64)
    shown = counts if images is None else torch.as_tensor(images, dtype=torch.float64)
    present = counts > 0
    effective = (1 - beta**shown) / (1 - beta)
    weights = 1 / (counts if rule == "auto" else effective).where(present, 1)
    weights = weights * counts.sum() / (weights * counts).sum()
    return weights.where(present, 1).tolist()


def weigh_positives(
    shown: Sequence[int] | Tensor,
    images: int | Tensor,
    rule: Literal["auto", "effective"] = "auto",
    *,
    beta: float = 0.999,
) -> list[float]:
    """How much the images that show a class weigh, so that they count as much as those that do not.

    Args:
        shown: How many of so many `images` show each class; `images` may differ by class, (k,).
        rule: "auto": (images - shown) / shown. "effective": the same of the effective numbers, see `weigh_classes`.
        beta: Of "effective".

    Returns:
        A weight for each class; 1 for a class that all images show, or none.

    >>> weigh_positives([10, 50, 0], 100)
    [9.0, 1.0, 1.0]
    """
    positive = torch.as_tensor(shown, dtype=torch.float64)
    negative = images - positive
    known = (positive > 0) & (negative > 0)
    if rule == "effective":
        positive, negative = 1 - beta**positive, 1 - beta**negative
    return (negative / positive.where(known, 1)).where(known, 1).tolist()
