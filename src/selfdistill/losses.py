"""Distillation losses as pure functions.

Three rules hold for every function. Class scores (logits) lie along dim 1; further dims are spatial.
An argument named `teacher_*` is a constant: the function detaches it, so that no caller forgets to.
Half-precision arguments are computed in float32, with or without autocast: in fp16 the square of a
feature above 256 is infinite, and the guards against division by zero round to zero.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorator: half-precision arguments become float32, and autocast is off inside."""

    @functools.wraps(loss)
    def loss_in_float32(*args: Any, **kwargs: Any) -> Any:
        args = [_widen(arg) for arg in args]
        kwargs = {name: _widen(arg) for name, arg in kwargs.items()}
        device = next(arg.device.type for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*args, **kwargs)

    return loss_in_float32


def _widen(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


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
            f"target holds class numbers and this is {target.dtype}; give probabilities as soft_target, and train on a "
            f"task of your own where an image has several classes"
        )


def refuse_wrong_shapes(logits: Tensor, target: Tensor, soft_target: Tensor | None = None) -> None:
    """Raises `ValueError` for labels whose type or shape does not fit the logits."""
    refuse_float_target(target)
    spatial = tuple(target.shape[1:])
    if tuple(logits.shape[2:]) != spatial:
        given, wanted = describe_shape(logits.shape[2:]), describe_shape(spatial)
        raise ValueError(f"the network scores images as {given}, and labels {tuple(target.shape)} need {wanted}")
    if soft_target is not None and soft_target.shape != logits.shape:
        given, wanted = tuple(soft_target.shape), tuple(logits.shape)
        raise ValueError(f"soft_target {given} must have the shape of the scores, {wanted}")


@in_float32
def cross_entropy(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    soft_target: Float[Tensor, "b ..."] | None = None,
    ignore_index: int = -100,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats, mean over the labeled positions; 0 if none is labeled.

    `target` (b, *pos) holds class numbers, or `ignore_index` where a position has no label. If `soft_target`
    (b, k, *pos) is given, its class probabilities are the labels instead.
    Raises `ValueError` for labels whose type or shape does not fit the logits.
    """
    refuse_wrong_shapes(logits, target, soft_target)
    if soft_target is not None:
        return F.cross_entropy(logits, soft_target)
    total = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="sum")
    return total / (target != ignore_index).sum().clamp(min=1)


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


def mean(values: Float[Tensor, " b *pos"], mask: Bool[Tensor, " b *pos"] | None = None) -> Float[Tensor, ""]:
    """The mean where `mask` is true, or over all; 0 if it is true nowhere.

    >>> mean(torch.tensor([[1.0, 5.0]]), torch.tensor([[True, False]])).item()
    1.0
    """
    return values.mean() if mask is None else (values * mask).sum() / mask.sum().clamp(min=1)


def others(scores: Float[Tensor, "b k"], target: Int64[Tensor, " b"]) -> Float[Tensor, "b k-1"]:
    """The scores of all classes but the target, in their order.

    >>> others(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([1, 0])).tolist()
    [[1.0, 3.0], [5.0, 6.0]]
    """
    rest = torch.arange(scores.shape[1] - 1, device=scores.device)
    return scores.gather(1, rest + (rest >= target[:, None]))


@in_float32
def smoothed_cross_entropy(
    logits: Float[Tensor, "b k *pos"],
    target: Int64[Tensor, "b ..."],
    epsilon: float = 0.1,
    share: Literal["all", "others"] = "all",
    ignore_index: int = -100,
    soft_target: Float[Tensor, "b ..."] | None = None,
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
    labels = target if soft_target is None else soft_target
    labeled = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    uniform = -F.log_softmax(logits, dim=1).mean(dim=1)
    mask = target != ignore_index if soft_target is None else None
    return mean((1 - epsilon) * labeled + epsilon * uniform, mask)


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
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
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
    progress = torch.as_tensor(progress)
    started = (progress >= warmup).to(progress.dtype if progress.is_floating_point() else torch.float32)
    if ramp == 0:
        return started
    t = ((progress - warmup) / ramp).clamp(0, 1)
    return started * torch.exp(-5 * (1 - t) ** 2)
