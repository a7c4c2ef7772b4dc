"""A teacher's soft labels together with Teacher-free Feature Distillation (KD + Tf-FD).

Li. ECCV 2022. https://www.ecva.net/papers/eccv_2022/papers_ECCV/papers/136860337.pdf with
Hinton, Vinyals, Dean. 2015. Distilling the Knowledge in a Neural Network. https://arxiv.org/abs/1503.02531
"""

from torch import Tensor

from ..hyperparameters import Positive, Share, Weight, hparam
from ..task import Batch, Step
from .tf_fd import TfFD


class KDTfFD(TfFD):
    """A frozen teacher's soft labels teach the student, whose deeper maps and salient channels teach it too.

    The objective is that of KD, its weighted cross-entropy and soft-label loss, plus the two terms of Tf-FD. The
    soft-label loss grows over `warmup` too.

    Departs from the paper: it reports this combination without its formula. This is the one in the authors' code, whose
    command line refuses it. The departures of `tf_fd` apply here too.
    """

    needs_teacher = True
    targets = None
    soft_label_terms = ("kd",)
    cost = "one forward of the teacher per step, without gradients"

    alpha: Weight = hparam(1.0, "weighs the cross-entropy")
    beta: Positive = hparam(1.0, "weighs the soft-label loss")
    temperature: Positive = hparam(4.0, "softens both distributions")
    warmup: Share = hparam(20 / 240, "share of training over which all weights but alpha grow from 0; 0: constant")

    def setup(self) -> None:
        super().setup()
        self.refuse_other_classes()

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        teacher_logits, step = self.teacher(batch.images), super().forward(batch, progress)
        mask = self.task.labeled_mask(batch.target)
        kd = self.growth(progress) * self.task.distill(step.logits, teacher_logits, self.temperature, mask)
        weighted = {"task": self.alpha * step.losses["task"], "kd": self.beta * kd}
        return Step(step.losses | weighted, step.logits)
