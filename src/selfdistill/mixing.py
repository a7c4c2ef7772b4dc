"""Batch-level transforms that run on the training device: mixup, CutMix, rotations and joint labels.

Randomness comes from torch's global generators, which the training loop seeds for every step.
"""

from types import EllipsisType

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

ROTATIONS = 4


def mixup(
    images: Float[Tensor, "b c h w"],
    target: Int64[Tensor, " b"],
    num_classes: int,
    alpha: float,
    soft_target: Float[Tensor, "b k"] | None = None,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """Mixed images and their soft target: convex combinations of the batch with a shuffle of itself.

    One weight ~ Beta(alpha, alpha) per batch. `soft_target` are class probabilities of images that are mixed already.
    Source: Zhang et al., 2018, eq. 1, https://arxiv.org/abs/1710.09412
    """
    weight = _draw_beta(alpha)
    order = torch.randperm(len(images), device=images.device)
    mixed = weight * images + (1 - weight) * images[order]
    return mixed, _mix_labels(target, order, weight, num_classes, soft_target)


def cutmix(
    images: Float[Tensor, "b c h w"],
    target: Int64[Tensor, " b"],
    num_classes: int,
    alpha: float,
    soft_target: Float[Tensor, "b k"] | None = None,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """Mixed images and their soft target: pastes one random box of a shuffle of the batch into it.

    Labels mix by the area that the clipped box covers. One box per batch, its area 1 - Beta(alpha, alpha) before
    clipping; `images` is left as it was, and `soft_target` is as in `mixup`.
    Source: Yun et al., 2019, eq. 1 and 2, https://arxiv.org/abs/1905.04899
    """
    box = _draw_box(images, alpha)
    order = torch.randperm(len(images), device=images.device)
    weight = 1 - images[0, 0][box[1:]].numel() / images[0, 0].numel()
    return _paste(images, order, box), _mix_labels(target, order, weight, num_classes, soft_target)


def cutmix_masks(
    images: Float[Tensor, "b c h w"], target: Int64[Tensor, "b h w"], alpha: float
) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b h w"]]:
    """CutMix for labels of pixels: each label moves with its pixel and stays a class number.

    There is one box per batch, drawn as in `cutmix`. `images` and `target` are left as they were.
    Source: French et al., 2020, https://arxiv.org/abs/1906.01916, who mix images and the masks predicted for them.
    """
    box = _draw_box(images, alpha)
    order = torch.randperm(len(images), device=images.device)
    return _paste(images, order, box), _paste(target, order, box)


def mixing_weight(alpha: float, device: torch.device) -> Float[Tensor, ""]:
    """One draw from Beta(alpha, alpha) on the device, for methods that mix in `forward`: the host does not wait."""
    first, second = torch.full((2,), alpha, device=device)
    return torch.distributions.Beta(first, second, validate_args=False).sample()


def _draw_beta(alpha: float) -> float:
    return torch.distributions.Beta(alpha, alpha).sample().item()


def _draw_box(images: Float[Tensor, "b c h w"], alpha: float) -> tuple[EllipsisType, slice, slice]:
    """A random box in the image's proportions, as an index of its rows and columns in any tensor (..., h, w)."""
    side = (1 - _draw_beta(alpha)) ** 0.5
    return (..., slice(*_draw_interval(images.shape[2], side)), slice(*_draw_interval(images.shape[3], side)))


def _paste(
    tensor: Shaped[Tensor, "b *c h w"], order: Int64[Tensor, " b"], box: tuple[EllipsisType, slice, slice]
) -> Shaped[Tensor, "b *c h w"]:
    """A copy of the tensor in which row i has the box of row `order[i]`."""
    mixed = tensor.clone()
    mixed[box] = tensor[box][order]
    return mixed


def _draw_interval(length: int, side: float) -> tuple[int, int]:
    """A random interval of `side * length` pixels around a uniform center, clipped to the image."""
    center, half = int(torch.randint(length, ())), int(length * side) // 2
    return max(center - half, 0), min(center + half, length)


def _mix_labels(target: Tensor, order: Tensor, weight: float, num_classes: int, soft_target: Tensor | None) -> Tensor:
    soft = F.one_hot(target, num_classes).float() if soft_target is None else soft_target
    return weight * soft + (1 - weight) * soft[order]


def rotations(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "4*b c h w"]:
    """Row `4 * b + k` is image `b`, rotated counter-clockwise by 90 * k degrees; images must be square.

    >>> rotations(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]))[1, 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    rotated = [torch.rot90(images, k, dims=(2, 3)) for k in range(ROTATIONS)]
    return torch.stack(rotated, dim=1).flatten(0, 1)


def joint_labels(target: Int64[Tensor, " b"]) -> Int64[Tensor, " 4*b"]:
    """The label of row `4 * b + k` of `rotations` in the joint space of class and rotation: 4 * y + k.

    Source: Lee, Hwang, Shin, 2020, section 2.2, https://arxiv.org/abs/1910.05872

    >>> joint_labels(torch.tensor([2, 0])).tolist()
    [8, 9, 10, 11, 0, 1, 2, 3]
    """
    return (ROTATIONS * target[:, None] + torch.arange(ROTATIONS, device=target.device)).flatten()


def joint_weights(class_weights: Float[Tensor, " k"] | None) -> Float[Tensor, " 4*k"] | None:
    """The weight of each joint label: that of its class.

    >>> joint_weights(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    """
    return None if class_weights is None else class_weights.repeat_interleave(ROTATIONS)


def aggregate(joint_logits: Float[Tensor, "rows joint"]) -> Float[Tensor, "b k"]:
    """Class scores from joint ones, (4 b, 4 k) -> (b, k): the mean over rotations j of row 4 b + j, column 4 c + j.

    Source: Lee, Hwang, Shin, 2020, eq. 3, https://arxiv.org/abs/1910.05872
    """
    rows, joint = joint_logits.shape
    cube = joint_logits.view(rows // ROTATIONS, ROTATIONS, joint // ROTATIONS, ROTATIONS)
    return cube.diagonal(dim1=1, dim2=3).mean(dim=-1)
