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
    """A virtual teacher that is always right and knows no similarities teaches the student: no network, only a formula.

    It gives the true class the probability `correct`, shares the rest among the others, and is softened. The loss is
    a mean over batch and classes, not a sum over classes: that is why its `multiplier` is large.

    Departs from the paper: this is the authors' code, which gave the published numbers. Its temperature divides the
    virtual teacher's probabilities, and a softmax follows, which leaves them nearly uniform; `softens` logits is what a
    temperature does to a network's scores. The student's scores are not softened, nor is there a factor T^2.
    """

    outputs = ("image", "pixel")
    cost = "none"

    alpha: Share = hparam(0.1, "of the virtual teacher's loss; the cross-entropy has the rest")
    temperature: Positive = hparam(20.0, "softens the virtual teacher alone", used_with="multiplier")
    multiplier: Weight = hparam(100.0, "of the virtual teacher's loss, for its mean over classes", used_with="alpha")
    correct: Share = hparam(
        0.99, "the virtual teacher's probability of the true class, a in the paper", used_with="multiplier"
    )
    softens: Literal["probabilities", "logits"] = hparam(
        "probabilities", "what the temperature divides", used_with="multiplier"
    )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        task = self.task.loss(logits, batch.target, batch.soft_target)
        teacher = self.virtual_teacher(batch.target, logits.dtype, batch.soft_target)
        reg = losses.kl(logits, teacher, counted=self.task.labelled(batch.target)) / self.task.num_classes
        return Step({"task": (1 - self.alpha) * task, "reg": self.alpha * self.multiplier * reg}, logits)

    def virtual_teacher(
        self, target: Tensor, dtype: torch.dtype, soft_target: Tensor | None = None
    ) -> Float[Tensor, "b k *pos"]:
        """Its softened probabilities for labels as in `Task.loss`, in float32 at least.

        A position without a label gets those of some class.
        """
        label = soft_target
        if label is None:
            named = target.masked_fill(target == self.task.void, 0)[:, None]
            shape = (len(target), self.task.num_classes, *target.shape[1:])
            label = named.new_zeros(shape, dtype=dtype).scatter_(1, named, 1)  # one_hot has eight bytes a number
        other = (1 - self.correct) / (self.task.num_classes - 1)
        probabilities = other + (self.correct - other) * label.to(torch.promote_types(dtype, torch.float32))
        scores = probabilities if self.softens == "probabilities" else probabilities.log()
        return torch.softmax(scores / self.temperature, dim=1)
