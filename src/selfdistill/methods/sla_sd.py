"""Self-supervised Label Augmentation via Input Transformations, with self-distillation (SLA-SD).

Lee, Hwang, Shin. ICML 2020. https://arxiv.org/abs/1910.05872
"""

from torch import Tensor

from .. import losses, mixing
from ..hyperparameters import Positive, hparam
from ..task import Batch, Step
from .sla import SLA


class SLASD(SLA):
    """What the student knows of an image from all four of its rotations teaches it to know as much from one.

    The joint scores of class and rotation, aggregated over the rotations of an image, are the teacher, a constant. The
    student's plain scores of the upright image learn from them and from the labels. There is one forward pass over all
    4 b rows.

    Departs from the paper: nothing known. Objective and temperature are those of the authors' code.
    """

    temperature: Positive = hparam(1.0, "softens both distributions")

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, joint = self.plain_and_joint(batch.images)
        votes = mixing.aggregate(joint)
        terms = {
            "task": self.task.loss(logits, batch.target),
            "joint": self.weight * self.joint_loss(joint, batch.target),
            "kd": losses.kd(logits, votes, self.temperature),
        }
        return Step(terms, logits, votes.detach())
