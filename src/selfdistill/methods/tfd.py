"""Teacher-free Distillation via Regularizing Intermediate Representation (TFD).

Li, Liang, Yang, Jin. IJCNN 2022. https://doi.org/10.1109/IJCNN55064.2022.9892575
"""

import itertools

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..hyperparameters import Share, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class TFD(Method):
    """Every feature map learns from every deeper map of the same network, which is a constant.

    The larger of two maps is average-pooled to the size of the smaller. If one has more channels, only its first
    channels are compared. The distance is averaged over all pairs of maps. The paper's TFD-dagger adds label smoothing,
    `epsilon`; we take 0.1 for it.

    Departs from the paper: nothing known. The paper writes a squared l2 distance and does not say whether it is a sum
    or a mean. Here it is a mean over all elements, as in the published code of Tf-FD, the successor of this method,
    which has the same default of 0.005. The paper draws a width-wise term with the weight 0.0004 that is not part of
    its published objective. It is left out here; `tf_fd` has one.
    """

    outputs = ("image", "pixel")
    targets = None  # `epsilon` needs class numbers, see refuse_smoothing
    weighted_terms = ("task",)
    unlabeled_terms = ("inter",)
    cost = "none beside plain training: no further rows, parameters or state"

    alpha: Weight = hparam(0.005, "weighs the distance to deeper maps")
    epsilon: Share = hparam(0.0, "label smoothing, over all classes; above 0 it is TFD-dagger")

    def setup(self) -> None:
        refuse_single_level(self)
        refuse_smoothing(self)

    @property
    def uses_task_loss(self) -> bool:
        return not self.epsilon

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        pairs = list(itertools.combinations(features, 2))
        inter = sum(map_difference(shallow, deep) for shallow, deep in pairs) / len(pairs)
        task = supervised_loss(self, logits, batch)
        return Step({"task": task, "inter": self.alpha * inter}, logits)


def supervised_loss(method: Method, logits: Float[Tensor, "b k *pos"], batch: Batch) -> Float[Tensor, ""]:
    """The task's loss, or cross-entropy with the label smoothing `method.epsilon` where that is set."""
    if method.uses_task_loss:
        return method.task.loss(logits, batch.target, batch.soft_target)
    return losses.smoothed_cross_entropy(
        logits,
        batch.target,
        method.epsilon,
        ignore_index=method.task.ignore_index,
        soft_target=batch.soft_target,
        class_weights=method.task.class_weights,
    )


@losses.in_float32
def map_difference(
    feature: Float[Tensor, "b c h w"],
    teacher_feature: Float[Tensor, "b d y x"],
) -> Float[Tensor, ""]:
    """Mean squared difference of two maps, at the smaller size and over the channels that both have.

    The teacher is detached here.
    """
    channels = min(feature.shape[1], teacher_feature.shape[1])
    return F.mse_loss(*pool_to_smaller(feature[:, :channels], teacher_feature.detach()[:, :channels]))


def pool_to_smaller(
    one: Float[Tensor, "b c h w"], other: Float[Tensor, "b d y x"]
) -> tuple[Float[Tensor, "b c p q"], Float[Tensor, "b d p q"]]:
    """Both maps, average-pooled to the smaller height and the smaller width."""
    size = [min(sides) for sides in zip(one.shape[2:], other.shape[2:], strict=True)]
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)


def refuse_smoothing(method: Method) -> None:
    """Raises `ValueError` for `epsilon` with labels that are no class numbers."""
    if not method.uses_task_loss and method.task.target != "class":
        raise ValueError(
            f"epsilon={method.epsilon} smooths class numbers, and the labels of {method.task.kind} are "
            f"{method.task.target}; set epsilon=0, and task.label_smoothing instead"
        )


def refuse_single_level(method: Method) -> None:
    """Raises `ValueError` for a student that has only one feature map."""
    if len(method.taps) < 2:
        raise ValueError(
            f"{type(method).__name__} lets maps learn from deeper ones and needs at least 2 of them, and the student "
            f"has 1 ({method.taps.channels[0]} channels); name more submodules in taps=[...]"
        )
