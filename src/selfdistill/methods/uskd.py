"""From Knowledge Distillation to Self-Knowledge Distillation: universal self-knowledge distillation (USKD).

Yang, Zeng, Li, Zhang, Yuan, Li. ICCV 2023. https://arxiv.org/abs/2303.13005
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .. import losses
from ..distributed import mean_over_processes
from ..features.pooling import global_average
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step
from .zipf_ls import rank


class USKD(Method):
    """The student makes soft labels of its own scores, and of those of a weak head on the stage before its last.

    The weight of the true class is the student's confidence in it, relative to the rest of the batch. The other classes
    learn from their ranks alone: the soft label of the class that student and weak head together rank r-th is
    proportional to 1 / r (Zipf's law). The weak head is a linear classifier on the pooled map and learns from smoothed
    labels.

    On ImageNet the paper takes alpha 1, beta 0.1 and mu 0.005 instead of the defaults, which are for CIFAR-100.

    Departs from the paper: ranks are counted among the other classes, by probabilities. The authors' code ranks all
    classes and adds log-probabilities of the student to probabilities of the weak head. Mixed labels, which the paper's
    label values would allow, are refused. The paper leaves some points open. Here the weak head's cross-entropy reaches
    the student's stages, its smoothed labels give 0.1 to all classes evenly, and equal scores share the better rank.
    """

    soft_targets = False
    weighted_terms = ("weak",)
    cost = "a linear head on the stage before the last"

    alpha: Weight = hparam(0.1, "weighs the true class's soft label")
    beta: Weight = hparam(0.1, "weighs the other classes' soft labels")
    mu: Positive = hparam(0.1, "weighs the weak head's cross-entropy")

    def setup(self) -> None:
        if len(self.taps) < 2:
            raise ValueError(
                "USKD reads the feature map before the last, and this student has one map; name two in taps=[...]"
            )
        self.weak = nn.Linear(self.taps.channels[-2], self.task.num_classes)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        weak = self.weak(global_average(features[-2]))
        terms = {"task": self.task.loss(logits, batch.target)}
        if self.alpha:
            terms["target"] = self.alpha * true_class(logits, batch.target)
        if self.beta:
            terms["others"] = self.beta * other_classes(logits, weak, batch.target)
        terms["weak"] = self.mu * losses.smoothed_cross_entropy(
            weak, batch.target, epsilon=0.1, class_weights=self.task.class_weights
        )
        return Step(terms, logits)


@losses.in_float32
def true_class(logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
    """-p log s_y for the true class y, in nats, mean over the batch; the soft label is p = 1 + s_y^2 - mean of s_y^2.

    p is detached here. Its mean is over the rows of all processes.

    >>> round(true_class(torch.zeros(3, 4), torch.tensor([2, 0, 1])).item(), 4)  # log 4: all rows are equal, so p is 1
    1.3863
    """
    negative_log = F.cross_entropy(logits, target, reduction="none")
    squared = torch.exp(-2 * negative_log.detach())
    soft_label = 1 + squared - mean_over_processes(squared.mean())
    return (soft_label * negative_log).mean()


@losses.in_float32
def other_classes(
    logits: Float[Tensor, "b k"], weak_logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Cross-entropy of all classes but the true one against Zipf's law over their ranks, mean over the batch.

    Both networks' probabilities are normalized without the true class and added. Their ranks are constants.

    >>> scores, target = torch.tensor([[2.0, 1.0, 0.0, -1.0]]), torch.tensor([0])
    >>> soft_label = torch.tensor([[6.0, 3.0, 2.0]]) / 11
    >>> torch.allclose(other_classes(scores, scores, target), F.cross_entropy(scores[:, 1:], soft_label))
    True
    """
    rest, weak_rest = losses.others(logits, target), losses.others(weak_logits, target)
    probabilities = rest.detach().softmax(dim=1) + weak_rest.detach().softmax(dim=1)
    return F.cross_entropy(rest, F.normalize(1 / rank(probabilities), p=1, dim=1))
