"""Revisiting Knowledge Distillation via Label Smoothing Regularization: self-training (Tf-KD self).

Yuan, Tay, Li, Wang, Feng. CVPR 2020. https://arxiv.org/abs/1909.11723
"""

from torch import Tensor

from ..hyperparameters import Positive, Share, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class TfKDSelf(Method):
    """The same network, trained before without a teacher and now frozen, teaches the student its soft labels.

    The soft-label loss is a mean over batch and classes, not a sum over classes, which is why its `multiplier` is
    large. Divided by 100 classes, 50 is 0.5; with fewer classes the same multiplier weighs more. Multiplier, share and
    temperature are those of the authors' ResNet-18; other networks have others.

    Departs from the paper: the mean over classes and the multiplier are those of the authors' code, which gave the
    published numbers. Any network trained on the task may teach; in the paper it has the student's architecture.
    """

    outputs = ("image", "pixel")
    needs_teacher = True
    targets = None
    soft_label_terms = ("kd",)
    cost = "one forward of the teacher per step, without gradients"

    alpha: Share = hparam(0.95, "share of the soft-label loss; the cross-entropy has the rest")
    temperature: Positive = hparam(6.0, "softens both distributions", used_with="multiplier")
    multiplier: Weight = hparam(
        50.0, "of the soft-label loss, a mean over classes; 1 to 50 in the authors' code", used_with="alpha"
    )

    def setup(self) -> None:
        self.refuse_other_classes()

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        teacher_logits, logits = self.teacher(batch.images), self.student(batch.images)
        task, mask = self.task.loss(logits, batch.target, batch.soft_target), self.task.labeled_mask(batch.target)
        kd = self.task.distill(logits, teacher_logits, self.temperature, mask) / self.task.num_classes
        return Step({"task": (1 - self.alpha) * task, "kd": self.alpha * self.multiplier * kd}, logits)
