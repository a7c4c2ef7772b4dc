"""From Knowledge Distillation to Self-Knowledge Distillation: normalized knowledge distillation (NKD).

Yang, Zeng, Li, Zhang, Yuan, Li. ICCV 2023. https://arxiv.org/abs/2303.13005
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from .. import losses
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class NKD(Method):
    """A frozen teacher's soft labels teach the student in two parts: the true class, and the others among themselves.

    The loss of the true class is weighed by the teacher's probability of it. The other classes of both networks are
    normalized to sum to 1 before they are compared; plain distillation compares them as they are. Mixed labels are
    refused, because an image has one true class.

    Departs from the paper: for mixed labels the authors' code takes the class with the larger share as the true one.
    Only the other classes are softened. Both parts are cross-entropies, so they are not 0 for a student that equals its
    teacher.
    """

    needs_teacher = True
    soft_targets = False
    cost = "one forward of the teacher per step, without gradients"

    gamma: Weight = hparam(1.5, "weighs the classes other than the true one")
    temperature: Positive = hparam(1.0, "softens these classes, in both networks", used_with="gamma")

    def setup(self) -> None:
        self.refuse_other_classes()

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        teacher_logits, logits = self.teacher(batch.images), self.student(batch.images)
        terms = {
            "task": self.task.loss(logits, batch.target),
            "target": true_class(logits, teacher_logits, batch.target),
        }
        if self.gamma:
            rest = other_classes(logits, teacher_logits, batch.target, temperature=self.temperature)
            terms["others"] = self.gamma * rest
        return Step(terms, logits)


@losses.in_float32
def true_class(
    logits: Float[Tensor, "b k"], teacher_logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"]
) -> Float[Tensor, ""]:
    """-t_y log s_y for the true class y, in nats, mean over the batch; the teacher's t is detached here.

    >>> round(true_class(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([2])).item(), 4)  # 1/4 log 4
    0.3466
    """
    confidence = teacher_logits.detach().softmax(dim=1).gather(1, target[:, None])[:, 0]
    return (confidence * F.cross_entropy(logits, target, reduction="none")).mean()


@losses.in_float32
def other_classes(
    logits: Float[Tensor, "b k"],
    teacher_logits: Float[Tensor, "b k"],
    target: Int64[Tensor, " b"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """-T^2 times the sum over classes i != y of N(t_i) log N(s_i), in nats, mean over the batch.

    N is the softmax at temperature T over all classes but the true class y. The teacher is detached here.

    >>> round(other_classes(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([2])).item(), 4)  # log 3
    1.0986
    """
    soft_target = torch.softmax(losses.others(teacher_logits.detach(), target) / temperature, dim=1)
    return temperature**2 * F.cross_entropy(losses.others(logits, target) / temperature, soft_target)
