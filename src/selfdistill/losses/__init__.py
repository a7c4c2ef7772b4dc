"""Distillation losses as pure functions.

Three rules hold for every function. Class scores (logits) lie along dim 1; further dims are spatial.
An argument named `teacher_*` is a constant: the function detaches it, so that no caller forgets to.
Half-precision arguments are computed in float32, with or without autocast: in fp16 the square of a
feature above 256 is infinite, and the guards against division by zero round to zero.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .labels import (
    are_probabilities,
    binary_cross_entropy,
    count_labels,
    cross_entropy,
    describe_shape,
    dice,
    focal_loss,
    mean,
    refuse_float_target,
    refuse_wrong_shapes,
    smoothed_cross_entropy,
)
from .multi_label import binary_kd, multi_label_loss
from .precision import in_float32

__all__ = [
    "are_probabilities",
    "attention",
    "attention_transfer",
    "binary_cross_entropy",
    "binary_kd",
    "count_labels",
    "cross_entropy",
    "describe_shape",
    "dice",
    "focal_loss",
    "hint",
    "in_float32",
    "kd",
    "kl",
    "mean",
    "multi_label_loss",
    "negative_margin",
    "others",
    "overhaul",
    "ramp_up",
    "refuse_float_target",
    "refuse_wrong_shapes",
    "smoothed_cross_entropy",
]


@in_float32
def kd(
    logits: Float[Tensor, "b k *pos"],
    teacher_logits: Float[Tensor, "b k *pos"],
    temperature: float = 4.0,
    mask: Bool[Tensor, " b *pos"] | None = None,
) -> Float[Tensor, ""]:
    """Temperature-scaled KL divergence from teacher to student, in nats.

    T^2 * KL(teacher || student) of the softened distributions, mean over batch and positions. The teacher is detached
    here. `temperature` > 0; 1 leaves both as they are. `mask` says which positions count; None: all.
    Source: Hinton, Vinyals, Dean, 2015, section 2, https://arxiv.org/abs/1503.02531

    >>> x = torch.tensor([[2.0, 0.0, -1.0]])
    >>> kd(x, x).item()
    0.0
    >>> round(kd(x, x.flip(1), temperature=1.0).item(), 4)
    2.4054
    """
    log_student = F.log_softmax(logits / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * mean(kl, mask)


@in_float32
def kl(
    logits: Float[Tensor, "b k *pos"],
    teacher_probabilities: Float[Tensor, "b k *pos"],
    temperature: float = 1.0,
    mask: Bool[Tensor, " b *pos"] | None = None,
) -> Float[Tensor, ""]:
    """`kd` for a teacher that is given as probabilities.

    T^2 * KL(q || p) in nats, mean over batch and positions, with p = softmax(logits / T). The teacher q is detached and
    not softened here. A class of probability 0 adds nothing. `mask` as in `kd`. Source: as `kd`.

    >>> round(kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item(), 4)
    0.6931
    """
    teacher = teacher_probabilities.detach()
    log_student = F.log_softmax(logits / temperature, dim=1)
    kl = (torch.xlogy(teacher, teacher) - teacher * log_student).sum(dim=1)
    return temperature**2 * mean(kl, mask)


def others(scores: Float[Tensor, "b k"], target: Int64[Tensor, " b"]) -> Float[Tensor, "b k-1"]:
    """The scores of all classes but the target, in their order.

    >>> others(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([1, 0])).tolist()
    [[1.0, 3.0], [5.0, 6.0]]
    """
    rest = torch.arange(scores.shape[1] - 1, device=scores.device)
    return scores.gather(1, rest + (rest >= target[:, None]))


def attention_transfer(
    feature: Float[Tensor, "b c h w"],
    teacher_feature: Float[Tensor, "b d h w"],
) -> Float[Tensor, ""]:
    """Mean squared difference of two spatial attention maps, over batch and positions.

    Both maps have unit norm, so the value is their squared distance divided by h * w: large maps weigh little.
    The teacher is detached here. Channels may differ; height and width may not.
    Source: Zagoruyko, Komodakis, 2017, eq. 2 with p = 2, https://arxiv.org/abs/1612.03928

    >>> x = torch.rand(2, 3, 4, 4)
    >>> attention_transfer(x, 2 * x[:, [2, 0, 1]]).item() < 1e-12  # scale and channel order do not matter
    True
    """
    return (attention(feature) - attention(teacher_feature.detach())).pow(2).mean()


def attention(feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h*w"]:
    """Spatial attention: the channel mean of squares, scaled to unit l2 norm per image."""
    with torch.autocast(feature.device.type, enabled=False):
        return F.normalize(Energy.apply(feature).flatten(1), dim=1, eps=1e-12)


class Energy(torch.autograd.Function):
    """Channel mean of squares, (b, c, h, w) -> (b, h, w), summed in float32 or wider.

    It has its own backward pass because autograd would make float32 copies of a half-precision map. They took more time
    than the rest of `attention_transfer`, and twice the memory of the map.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor) -> Tensor:
        ctx.save_for_backward(feature)
        wide = torch.promote_types(feature.dtype, torch.float32)
        return torch.linalg.vector_norm(feature, dim=1, dtype=wide).square() / feature.shape[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (feature,) = ctx.saved_tensors
        scale = (gradient * (2 / feature.shape[1])).unsqueeze(1)
        if feature.dtype is not torch.float16:  # in float16 such small numbers would become 0
            scale = scale.to(feature.dtype)
        return (feature * scale).to(feature.dtype)


@in_float32
def hint(
    feature: Float[Tensor, "b c h w"],
    teacher_feature: Float[Tensor, "b c h w"],
) -> Float[Tensor, ""]:
    """Mean squared difference of two feature maps, over all elements.

    `feature` is the student's map behind a regressor to the teacher's channels. The teacher is detached here.
    Source: Romero et al., 2015, eq. 3 (as a mean), https://arxiv.org/abs/1412.6550
    """
    return F.mse_loss(feature, teacher_feature.detach())


@in_float32
def overhaul(
    feature: Float[Tensor, "b c h w"],
    teacher_feature: Float[Tensor, "b c h w"],
    margin: Float[Tensor, " c"],
) -> Float[Tensor, ""]:
    """Partial squared distance to the teacher's margin-ReLU map: a sum, divided by the batch size.

    Both maps are taken before their ReLU. The target is t = max(teacher_feature, margin) with margin < 0 per channel.
    An element counts where the student exceeds t or t > 0. A student below a negative target may stay there.
    Source: Heo et al., 2019, section 3, https://arxiv.org/abs/1904.01866 (without its factor 1 / 1000)
    """
    teacher = torch.maximum(teacher_feature.detach(), margin.detach().view(1, -1, 1, 1))
    counts = (feature > teacher) | (teacher > 0)
    return ((feature - teacher).pow(2) * counts).sum() / len(feature)


def negative_margin(scale: Float[Tensor, " c"], shift: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
    """Mean of a batch norm's negative outputs, per channel: E[x | x < 0] for x ~ N(shift, scale^2).

    `scale` and `shift` are the batch norm's weight and bias. Where fewer than one output in a thousand is negative, it
    is -3 * |scale|. Source: Heo et al., 2019, eq. 4, https://arxiv.org/abs/1904.01866

    >>> round(negative_margin(torch.ones(1), torch.zeros(1)).item(), 6)
    -0.797885
    """
    scale, shift = scale.detach().abs(), shift.detach()
    z = -shift / scale
    below = torch.special.ndtr(z)
    density = torch.exp(-0.5 * z**2) / (2 * torch.pi) ** 0.5
    return torch.where(below > 1e-3, shift - scale * density / below, -3 * scale)


def ramp_up(progress: Tensor | float, warmup: float, ramp: float) -> Tensor | float:
    """Loss weight that grows with training: 0 before `warmup`, then exp(-5 (1 - t)^2).

    t goes from 0 to 1 over a share `ramp` of training; `ramp` 0 gives the constant 1 after `warmup`. `progress` is the
    share of training done, in [0, 1).
    Source: the segmentation setting of FRSKD; Laine, Aila, 2017, section 3, https://arxiv.org/abs/1610.02242

    >>> [round(float(ramp_up(p, 0.5, 0.5)), 3) for p in (0.4, 0.5, 0.75, 1.0)]
    [0.0, 0.007, 0.287, 1.0]
    """
    if warmup == 0 and ramp == 0:
        return 1.0
    warmup = float(warmup)  # torch 2.10 does not compile a comparison with what a NamedTuple computes
    progress = torch.as_tensor(progress)
    started = (progress >= warmup).to(progress.dtype if progress.is_floating_point() else torch.float32)
    if ramp == 0:
        return started
    t = ((progress - warmup) / ramp).clamp(0, 1)
    return started * torch.exp(-5 * (1 - t) ** 2)
