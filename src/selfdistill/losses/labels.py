"""Supervised losses: what a label asks of the scores.

Every loss is one mean over the labeled positions: position i, whose label is the class y, counts w_y times, and the sum
is divided by the sum of these weights, as in torch.nn.functional.cross_entropy. Without class weights all w are 1.
Soft labels, class probabilities, weigh each class's part of the sum, which is divided by the number of positions, as
torch does.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from .precision import in_float32

ClassWeights = Float[Tensor, " k"] | None
DEFAULT_GAMMA = 2.0  # of the focal loss


def describe_shape(spatial: Iterable[int]) -> str:
    """The shape of logits with these spatial dims, in words.

    >>> describe_shape((4, 6)), describe_shape(())
    ('(b, k, 4, 6)', '(b, k)')
    """
    return f"({', '.join(map(str, ('b', 'k', *spatial)))})"


def are_probabilities(logits: Float[Tensor, "b k *pos"]) -> bool:
    """Whether the scores of two or more classes are never negative and sum to 1 everywhere, as after a softmax.

    >>> are_probabilities(torch.tensor([[0.25, 0.75]])), are_probabilities(torch.tensor([[1.0, 0.0], [0.5, 0.4]]))
    (True, False)
    """
    logits = logits.detach().float()
    sums = logits.sum(dim=1)
    return logits.shape[1] > 1 and bool((logits >= 0).all() & ((sums - 1).abs() < 0.01).all())


def refuse_float_target(target: Tensor) -> None:
    """Raises `ValueError` for labels that are not class numbers."""
    if target.is_floating_point():
        raise ValueError(
            f"target holds class numbers and this is {target.dtype}; give probabilities as soft_target, and where an "
            f'image has several classes train on sd.Task("multilabel", ...)'
        )


def refuse_wrong_shapes(logits: Tensor, target: Tensor, soft_target: Tensor | None = None) -> None:
    """Raises `ValueError` for labels whose type or shape does not fit the logits."""
    refuse_float_target(target)
    spatial = tuple(target.shape[1:])
    if tuple(logits.shape[2:]) != spatial:
        given, wanted = describe_shape(logits.shape[2:]), describe_shape(spatial)
        raise ValueError(f"the network scores images as {given}, and labels {tuple(target.shape)} need {wanted}")
    if soft_target is not None and soft_target.shape != logits.shape:
        shape = tuple(soft_target.shape)
        raise ValueError(f"soft_target {shape} must have the shape of the scores, {tuple(logits.shape)}")


@in_float32
def cross_entropy(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    soft_target: Float[Tensor, "b ..."] | None = None,
    ignore_index: int = -100,
    *,
    class_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats, mean over the labeled positions; 0 if none is labeled.

    `target` (b, *pos) holds class numbers, or `ignore_index` where a position has no label. If `soft_target`
    (b, k, *pos) is given, its class probabilities are the labels instead. `class_weights` and `label_smoothing` are
    `weight` and `label_smoothing` of torch.nn.functional.cross_entropy.
    Raises `ValueError` for labels whose type or shape does not fit the logits.
    """
    refuse_wrong_shapes(logits, target, soft_target)
    weight = None if class_weights is None else class_weights.to(logits.dtype)
    if soft_target is not None:
        return F.cross_entropy(logits, soft_target, weight=weight, label_smoothing=label_smoothing)
    total = F.cross_entropy(
        logits, target, weight=weight, ignore_index=ignore_index, reduction="sum", label_smoothing=label_smoothing
    )
    return total / _at_least_one(count_labels(target, ignore_index, weight))


def count_labels(
    target: Int64[Tensor, "b ..."], ignore_index: int = -100, class_weights: ClassWeights = None
) -> Shaped[Tensor, ""]:
    """How many positions are labeled; with `class_weights`, the sum of their weights.

    >>> target = torch.tensor([0, 1, -100, 1])
    >>> count_labels(target).item(), count_labels(target, class_weights=torch.tensor([3.0, 0.5])).item()
    (3, 4.0)
    """
    labeled = target != ignore_index
    if class_weights is None:
        return labeled.sum()
    return (class_weights[target.where(labeled, 0)] * labeled).sum()


def _at_least_one(count: Shaped[Tensor, ""]) -> Shaped[Tensor, ""]:
    """A divisor: the count, or 1 where there is nothing to count and the sum is 0 too."""
    return count.clamp(min=1) if not count.is_floating_point() else count.where(count > 0, 1)


def mean(values: Float[Tensor, " b *pos"], mask: Bool[Tensor, " b *pos"] | None = None) -> Float[Tensor, ""]:
    """The mean where `mask` is true, or over all; 0 if it is true nowhere.

    >>> mean(torch.tensor([[1.0, 5.0]]), torch.tensor([[True, False]])).item()
    1.0
    """
    return values.mean() if mask is None else (values * mask).sum() / mask.sum().clamp(min=1)


@in_float32
def smoothed_cross_entropy(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    epsilon: float = 0.1,
    share: Literal["all", "others"] = "all",
    ignore_index: int = -100,
    soft_target: Float[Tensor, "b ..."] | None = None,
    *,
    class_weights: ClassWeights = None,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats with label smoothing.

    `share="all"`: every class gets epsilon / K, so the true class keeps 1 - epsilon + epsilon / K (PyTorch's
    `label_smoothing`). `share="others"`: the K - 1 other classes share epsilon and the true class keeps 1 - epsilon.
    Labels as in `cross_entropy`. Source: Szegedy et al., 2016, section 7, https://arxiv.org/abs/1512.00567
    """
    refuse_wrong_shapes(logits, target, soft_target)
    num_classes = logits.shape[1]
    if share == "others":
        epsilon = epsilon * num_classes / (num_classes - 1)
    if class_weights is not None:
        return cross_entropy(
            logits, target, soft_target, ignore_index, class_weights=class_weights, label_smoothing=epsilon
        )
    labels = target if soft_target is None else soft_target
    labeled = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    uniform = -F.log_softmax(logits, dim=1).mean(dim=1)
    mask = target != ignore_index if soft_target is None else None
    return mean((1 - epsilon) * labeled + epsilon * uniform, mask)


@in_float32
def focal_loss(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    gamma: float = DEFAULT_GAMMA,
    ignore_index: int = -100,
    soft_target: Float[Tensor, "b ..."] | None = None,
    *,
    class_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean of (1 - p)^gamma (-log p) in nats, where p is the softmax probability of the label's class.

    Labels as in `cross_entropy`. With two classes it is the focal loss of one sigmoid without alpha.
    Source: Lin et al., 2017, section 3, https://arxiv.org/abs/1708.02002
    """
    refuse_wrong_shapes(logits, target, soft_target)
    log_p = F.log_softmax(logits, dim=1)
    # 1 - p may round to 0, where a power below 1 has an infinite slope.
    uncertainty = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
    values = -(uncertainty**gamma) * log_p
    return _mean_over_labels(values, target, soft_target, ignore_index, class_weights, label_smoothing)


@in_float32
def binary_cross_entropy(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    soft_target: Float[Tensor, "b ..."] | None = None,
    ignore_index: int = -100,
    *,
    class_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of one sigmoid for each class, in nats: the mean over classes and labeled positions.

    Labels as in `cross_entropy`; a position counts as often as its label's class weighs.
    Source: Wightman et al., 2021, section 3, https://arxiv.org/abs/2110.00476 (there a sum over classes)
    """
    refuse_wrong_shapes(logits, target, soft_target)
    # Of the label c: the sum over j of softplus(z_j), less z_c.
    values = (F.softplus(logits).sum(dim=1, keepdim=True) - logits) / logits.shape[1]
    return _mean_over_labels(values, target, soft_target, ignore_index, class_weights, label_smoothing)


def _mean_over_labels(
    values: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    soft_target: Float[Tensor, "b ..."] | None,
    ignore_index: int,
    class_weights: ClassWeights,
    label_smoothing: float,
) -> Float[Tensor, ""]:
    """The mean over labels of `values`, which hold for each class what a position costs if that is its label."""
    if class_weights is not None:
        class_weights = class_weights.to(values.dtype)
        values = values * class_weights.view(-1, *[1] * (values.ndim - 2))
    labeled = target != ignore_index
    if soft_target is None:
        costs = values.gather(1, target.where(labeled, 0)[:, None])[:, 0]
    else:
        costs = (soft_target * values).sum(dim=1)
    if label_smoothing:
        costs = (1 - label_smoothing) * costs + label_smoothing * values.mean(dim=1)
    if soft_target is not None:
        return costs.mean()
    return (costs * labeled).sum() / _at_least_one(count_labels(target, ignore_index, class_weights))


@in_float32
def dice(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    soft_target: Float[Tensor, "b ..."] | None = None,
    ignore_index: int = -100,
    *,
    class_weights: ClassWeights = None,
) -> Float[Tensor, ""]:
    """Soft Dice loss of the softmax probabilities, in [0, 1].

    For each image and each class that its mask shows: 1 - 2 sum(p y) / (sum(p) + sum(y)), over its labeled pixels. The
    mean is over these classes, and then over images, each of which counts as its labeled pixels do: by their number, or
    by the sum of their class weights. So a batch in pieces has the loss of the whole.
    Source: Milletari, Navab, Ahmadi, 2016, https://arxiv.org/abs/1606.04797 (without squares, as is usual)
    """
    refuse_wrong_shapes(logits, target, soft_target)
    labeled = (target != ignore_index)[:, None]
    if soft_target is None:
        share = F.one_hot(target.where(labeled[:, 0], 0), logits.shape[1]).movedim(-1, 1) * labeled
    else:
        share, labeled = soft_target, torch.ones_like(labeled)
    probabilities = logits.softmax(dim=1) * labeled
    overlap, predicted, shown = (
        values.flatten(2).sum(dim=2) for values in (probabilities * share, probabilities, share.to(logits.dtype))
    )
    present = shown > 0
    losses = (1 - 2 * overlap / (predicted + shown).where(present, 1)) * present
    pixels = shown.sum(dim=1) if class_weights is None else shown @ class_weights.to(shown.dtype)
    return (losses.sum(dim=1) / present.sum(dim=1).clamp(min=1) * pixels).sum() / _at_least_one(pixels.sum())
