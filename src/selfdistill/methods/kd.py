"""Distilling the Knowledge in a Neural Network (KD).

Hinton, Vinyals, Dean. 2015. https://arxiv.org/abs/1503.02531
"""

from torch import Tensor

from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class KD(Method):
    """A frozen teacher's softened class probabilities teach the student, beside the labels.

    Departs from the paper: it leaves the weights and the temperature open. The defaults are those that comparisons of
    distillation methods on CIFAR-100 commonly use.
    """

    outputs = ("image", "pixel")
    needs_teacher = True
    targets = None
    soft_label_terms = ("kd",)
    cost = "one forward of the teacher per step, without gradients"

    alpha: Weight = hparam(0.1, "weighs the cross-entropy")
    beta: Positive = hparam(0.9, "weighs the soft-label loss")
    temperature: Positive = hparam(4.0, "softens both distributions")

    def setup(self) -> None:
        self.refuse_other_classes()

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        teacher_logits, logits = self.teacher(batch.images), self.student(batch.images)
        task, mask = self.task.loss(logits, batch.target, batch.soft_target), self.task.labeled_mask(batch.target)
        kd = self.task.distill(logits, teacher_logits, self.temperature, mask)
        return Step({"task": self.alpha * task, "kd": self.beta * kd}, logits)
