"""Focal Loss for Dense Object Detection (focal loss).

Lin, Goyal, Girshick, He, Dollar. ICCV 2017. https://arxiv.org/abs/1708.02002
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from .. import losses
from ..hyperparameters import Weight, hparam
from ..method import Method
from ..task import Batch, Step


class Focal(Method):
    """Cross-entropy that attends to what the student does not know yet: nobody teaches, confident rows weigh little.

    A row whose class has the probability p weighs (1 - p)^gamma. The weight is differentiated too. For mixed labels the
    sum over classes is weighed by the label: sum_k y_k (1 - p_k)^gamma (-log p_k).

    Departs from the paper: there, for detection, every class has its own sigmoid and a balancing weight alpha. This is
    the form that is common in classification: one softmax, no alpha, the mean over the batch.
    """

    cost = "none"

    gamma: Weight = hparam(2.0, "how fast the weight falls with the probability; 0 is cross-entropy")

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        return Step(
            {"task": focal_loss(logits, batch.target, self.gamma, self.task.ignore_index, batch.soft_target)}, logits
        )


@losses.in_float32
def focal_loss(
    logits: Float[Tensor, "b k"],
    target: Int64[Tensor, " b"],
    gamma: float,
    ignore_index: int = -100,
    soft_target: Float[Tensor, "b k"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over the batch of (1 - p)^gamma (-log p), in nats; labels as in `losses.cross_entropy`."""
    log_p = F.log_softmax(logits, dim=1)
    # 1 - p may round to 0, where a power below 1 has an infinite slope.
    uncertainty = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
    weighted = uncertainty**gamma * log_p
    if soft_target is not None:
        return -(soft_target * weighted).sum(dim=1).mean()
    return F.nll_loss(weighted, target, ignore_index=ignore_index)
