"""Focal Loss for Dense Object Detection (focal loss).

Lin, Goyal, Girshick, He, Dollar. ICCV 2017. https://arxiv.org/abs/1708.02002
"""

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

    supervised_terms, weighted_terms = (), ("task",)
    cost = "none"

    gamma: Weight = hparam(2.0, "how fast the weight falls with the probability; 0 is cross-entropy")

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        task = losses.focal_loss(
            logits,
            batch.target,
            self.gamma,
            self.task.ignore_index,
            batch.soft_target,
            class_weights=self.task.class_weights,
        )
        return Step({"task": task}, logits)
