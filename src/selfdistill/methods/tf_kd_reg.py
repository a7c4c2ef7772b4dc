"""Revisiting Knowledge Distillation via Label Smoothing Regularization: manually designed regularization (Tf-KD reg).

Yuan, Tay, Li, Wang, Feng. CVPR 2020. https://arxiv.org/abs/1909.11723
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..hyperparameters import Positive, Share, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class TfKDReg(Method):
    """A virtual teacher that is always right teaches the student: no network, only a formula.

    The teacher gives the true class the probability `correct` and shares the rest equally among the other classes. Its
    probabilities are softened. The loss is a mean over batch and classes, not a sum over classes, which is why its
    `multiplier` is large.

    Departs from the paper: this follows the authors' code, which gave the published numbers. Its temperature divides
    the teacher's probabilities before a softmax, which leaves them nearly uniform; `softens` logits divides their
    logarithms instead, as for a network. The student's scores are not softened, and there is no factor T^2.
    """

    outputs = ("image", "pixel")
    cost = "none"

    alpha: Share = hparam(0.1, "share of the virtual teacher's loss; the cross-entropy has the rest")
    temperature: Positive = hparam(20.0, "softens the virtual teacher only", used_with="multiplier")
    multiplier: Weight = hparam(100.0, "of the virtual teacher's loss, a mean over classes", used_with="alpha")
    correct: Share = hparam(0.99, "a in the paper: the teacher's probability of the true class", used_with="multiplier")
    softens: Literal["probabilities", "logits"] = hparam(
        "probabilities", "what the temperature divides", used_with="multiplier"
    )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        task = self.task.loss(logits, batch.target, batch.soft_target)
        teacher = self.virtual_teacher(batch.target, logits.dtype, batch.soft_target)
        reg = losses.kl(logits, teacher, mask=self.task.labeled_mask(batch.target)) / self.task.num_classes
        return Step({"task": (1 - self.alpha) * task, "reg": self.alpha * self.multiplier * reg}, logits)

    def virtual_teacher(
        self, target: Tensor, dtype: torch.dtype, soft_target: Tensor | None = None
    ) -> Float[Tensor, "b k *pos"]:
        """Its softened probabilities for labels as in `Task.loss`, in float32 or float64.

        A position without a label gets those of class 0.
        """
        label = soft_target
        if label is None:
            classes = target.masked_fill(target == self.task.ignore_index, 0)[:, None]
            shape = (len(target), self.task.num_classes, *target.shape[1:])
            label = classes.new_zeros(shape, dtype=dtype).scatter_(1, classes, 1)  # F.one_hot would be int64
        other = (1 - self.correct) / (self.task.num_classes - 1)
        probabilities = other + (self.correct - other) * label.to(torch.promote_types(dtype, torch.float32))
        scores = probabilities if self.softens == "probabilities" else probabilities.log()
        return torch.softmax(scores / self.temperature, dim=1)
