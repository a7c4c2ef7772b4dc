"""Hierarchical Self-supervised Augmented Knowledge Distillation (HSAKD).

Yang, An, Cai, Xu. IJCAI 2021. https://arxiv.org/abs/2107.13715
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses, mixing
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..modules.teachers import teaching_levels
from ..task import Batch, Step
from .hsakd_teacher import joint_branches, run_with_branches


class HSAKD(Method):
    """A frozen teacher's branches teach the student's, stage by stage, what class and rotation each image shows.

    The teacher is a run of `hsakd_teacher`. The student gets branches of the same kind, which learn from the teacher
    alone and not from labels. Their gradients reach the student's stages. The student's own scores learn from the
    labels of the upright images and from the teacher's scores of all four rotations; its batch norms see all rotations
    too. If the two networks have different numbers of branches, the deepest teaches the deepest and so on upwards, and
    the teacher's shallowest branch teaches all that are left. Mixed labels are allowed: only the task's cross-entropy
    uses them.

    Departs from the paper: it has no pairs of different depth, so their mapping is ours. The authors report the epoch
    with the highest test accuracy; here the last epoch counts. Branches start as those of `hsakd_teacher` do.
    """

    square_images = True
    whole_stages = True
    needs_teacher = True
    teacher_method = "hsakd_teacher"
    cost = "4x the rows, through the teacher and its branches too; branches of 2.5x to 6x the student's parameters"

    temperature: Positive = hparam(3.0, "softens scores and joint scores of both networks")

    def setup(self) -> None:
        self.refuse_other_classes()
        self.branches = joint_branches(self.taps, self.task)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        rotated = mixing.rotations(batch.images)
        teacher_logits, teacher_joint_logits = self.ask_branches(rotated)
        logits, joint_logits = run_with_branches(self.taps, self.branches, rotated)
        upright = logits[:: mixing.ROTATIONS]
        terms = {
            "task": self.task.loss(upright, batch.target, batch.soft_target),
            "kd": losses.kd(logits, teacher_logits, self.temperature),
            "joint": branch_kd(joint_logits, teacher_joint_logits, self.temperature),
        }
        return Step(terms, upright)

    @torch.no_grad()
    def ask_branches(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, list[Tensor]]:
        """The teacher's scores, and for each of the student's branches the joint scores that teach it."""
        logits, joint_logits = self.teacher.net.scores(images)
        return logits, [joint_logits[level] for level in teaching_levels(len(self.branches), len(joint_logits))]


def branch_kd(joint_logits: list[Tensor], teacher_joint_logits: list[Tensor], temperature: float) -> Float[Tensor, ""]:
    """The sum over branches of `losses.kd`; the teacher's branches are detached."""
    pairs = zip(joint_logits, teacher_joint_logits, strict=True)
    return sum(losses.kd(logits, teacher_logits, temperature) for logits, teacher_logits in pairs)
