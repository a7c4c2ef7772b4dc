"""A teacher's soft labels together with Teacher-free Feature Distillation (KD + Tf-FD).

Li. ECCV 2022. https://www.ecva.net/papers/eccv_2022/papers_ECCV/papers/136860337.pdf with
Hinton, Vinyals, Dean. 2015. Distilling the Knowledge in a Neural Network. https://arxiv.org/abs/1503.02531
"""

from torch import Tensor

from .. import losses
from ..hyperparameters import Positive, Weight, hparam
from ..task import Batch, Step
from .tf_fd import TfFD


class KDTfFD(TfFD):
    """A frozen teacher's soft labels teach the student, whose deeper maps and salient channels teach it too.

    The objective is that of KD, its weighted cross-entropy and soft-label loss, plus the two terms of Tf-FD.

    Departs from the paper: it reports this combination without its weights, and the authors' code does not support it.
    The weights here are those of `kd` and `tf_fd`. The departures of `tf_fd` apply here too.
    """

    needs_teacher = True
    cost = "one forward of the teacher per step, without gradients"

    alpha: Weight = hparam(0.1, "weighs the cross-entropy")
    beta: Positive = hparam(0.9, "weighs the soft-label loss")
    temperature: Positive = hparam(4.0, "softens both distributions")

    def setup(self) -> None:
        super().setup()
        self.refuse_other_classes()

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        terms, logits = super().forward(batch, progress)
        mask = self.task.labeled_mask(batch.target)
        kd = losses.kd(logits, self.teacher(batch.images), self.temperature, mask)
        return Step(terms | {"task": self.alpha * terms["task"], "kd": self.beta * kd}, logits)
