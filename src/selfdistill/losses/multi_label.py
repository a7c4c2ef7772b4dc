"""Losses of labels that say of each class whether an image shows it: one sigmoid, a yes or no, for each class."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .labels import ClassWeights, mean
from .precision import in_float32

MARGIN = 0.05  # of the asymmetric loss: probability below which a class that is not shown costs nothing
GAMMA_NEGATIVE = 4.0  # of the asymmetric loss


def refuse_other_shape(logits: Tensor, target: Tensor) -> None:
    """Raises `ValueError` for labels that do not have the shape of the scores."""
    if target.shape != logits.shape:
        raise ValueError(
            f"labels {tuple(target.shape)} must have the shape of the scores, {tuple(logits.shape)}: 0 or 1 for each "
            f"class of each image"
        )


@in_float32
def multi_label_loss(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b k *pos"],
    soft_target: Float[Tensor, "b k *pos"] | None = None,
    ignore_index: int = -100,
    *,
    class_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
    gamma_positive: float = 0.0,
    gamma_negative: float = 0.0,
    margin: float = 0.0,
) -> Float[Tensor, ""]:
    """The asymmetric loss, which without its settings is binary cross-entropy: in nats, a sum over classes.

    The mean is over images. So a class weighs as much as in a softmax, however many classes there are. Where labels are
    not known it is the mean over those that are, times the number of classes; 0 if none is.

    Of the class c with the label y and the probability p = sigmoid(z), it is

        - w_c y (1 - p)^gamma_positive log(p) - (1 - y) q^gamma_negative log(1 - q),   q = max(p - margin, 0).

    `target` is 1 where an image shows a class, 0 where it does not, and `ignore_index` where that is not known. If
    `soft_target` is given, its probabilities are y instead, where the label is known.
    `class_weights` w weigh what a class is shown in (`pos_weight` in torch). `label_smoothing` s makes y of y (1 - s) +
    s / 2. Equal gammas and no margin make it the focal loss without alpha.
    Raises `ValueError` for labels of another shape than the scores.
    Source: Ridnik et al., 2021, eq. 1 to 7, https://arxiv.org/abs/2009.14119
    """
    labels = target if soft_target is None else soft_target
    for given in (target, labels):
        refuse_other_shape(logits, given)
    y = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    positive, negative = F.softplus(-logits), F.softplus(logits)  # -log p and -log (1 - p)
    if margin:
        negative = -torch.log1p(-(logits.sigmoid() - margin).clamp(min=0))
    smallest = torch.finfo(logits.dtype).eps  # a power below 1 has an infinite slope at 0
    if gamma_positive:
        positive = positive * (-logits).sigmoid().clamp(min=smallest) ** gamma_positive
    if gamma_negative:
        negative = negative * (logits.sigmoid() - margin).clamp(min=smallest) ** gamma_negative
    if class_weights is not None:
        positive = positive * class_weights.to(logits.dtype).view(-1, *[1] * (logits.ndim - 2))
    return sum_over_classes(y * positive + (1 - y) * negative, target != ignore_index)


def sum_over_classes(costs: Float[Tensor, "b k *pos"], known: Bool[Tensor, "b k *pos"]) -> Float[Tensor, ""]:
    """The sum over classes, mean over images, of known answers; where some are not known, as if they cost the mean.

    >>> costs = torch.tensor([[1.0, 3.0], [2.0, 9.0]])
    >>> sum_over_classes(costs, torch.tensor([[True, True], [True, False]])).item()
    4.0
    """
    share = known.sum().clamp(min=1).to(costs.dtype) / known.numel()
    return costs.where(known, 0).sum(dim=1).mean() / share


@in_float32
def binary_kd(
    logits: Float[Tensor, "b k *pos"],
    teacher_logits: Float[Tensor, "b k *pos"],
    temperature: float = 4.0,
    mask: Bool[Tensor, "b ..."] | None = None,
) -> Float[Tensor, ""]:
    """`kd` for classes that do not exclude each other: the divergence of two Bernoulli distributions for each class.

    T^2 * KL(teacher || student) of sigmoid(z / T), in nats, summed over classes, mean over batch and positions. The
    teacher is detached here. `mask` as in `kd`, or of the shape of the scores: which answers count, see
    `multi_label_loss`.
    Source: Yang et al., 2023, its one-versus-all part, https://arxiv.org/abs/2308.06453

    >>> x = torch.tensor([[2.0, 0.0, -1.0]])
    >>> binary_kd(x, x).item()
    0.0
    """
    scaled, teacher = logits / temperature, teacher_logits.detach() / temperature
    p = teacher.sigmoid()
    shown = p * (F.logsigmoid(teacher) - F.logsigmoid(scaled))
    hidden = (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-scaled))
    if mask is not None and mask.shape == logits.shape:
        return temperature**2 * sum_over_classes(shown + hidden, mask)
    return temperature**2 * mean((shown + hidden).sum(dim=1), mask)
