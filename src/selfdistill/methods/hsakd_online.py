"""Knowledge Distillation Using Hierarchical Self-Supervision Augmented Distribution: two networks at once (HSAKD).

Yang, An, Cai, Xu. TNNLS 2022. https://arxiv.org/abs/2109.03075
"""

import copy

from torch import Tensor

from .. import losses, mixing
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..modules.branches import reinitialize
from ..task import Batch, Step
from .hsakd import branch_kd
from .hsakd_teacher import joint_branches, run_with_branches


class HSAKDOnline(Method):
    """Two networks of one architecture teach each other, scores and branches, while both learn from the labels.

    The peer is a copy of the student with new random weights. Behind each stage of both networks stands a branch, a new
    copy of the remaining stages, which predicts class and rotation jointly for the four rotations of every image. Where
    one network teaches, it is a constant. The branches' gradients reach the stages.

    Departs from the paper: the authors report the better of the two networks. Here the student ships, which is decided
    before anything is measured.
    """

    square_images = True
    whole_stages = True
    soft_targets = False
    supervised_terms = ("task", "peer_task")
    weighted_terms = ("joint", "peer_joint")
    cost = "4x the rows through two networks; a second student, and twice its branches of 2.5x to 6x its parameters"

    temperature: Positive = hparam(3.0, "softens scores and joint scores of both networks")

    def setup(self) -> None:
        self._peer_taps = copy.deepcopy(self.taps)
        self.peer = reinitialize(self._peer_taps.student)
        self.branches = joint_branches(self.taps, self.task)
        self.peer_branches = joint_branches(self._peer_taps, self.task)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        rotated, joint_target = mixing.rotations(batch.images), mixing.joint_labels(batch.target)
        logits, joint = run_with_branches(self.taps, self.branches, rotated)
        peer_logits, peer_joint = run_with_branches(self._peer_taps, self.peer_branches, rotated)
        upright, peer_upright = logits[:: mixing.ROTATIONS], peer_logits[:: mixing.ROTATIONS]
        weights = mixing.joint_weights(self.task.class_weights)
        terms = {
            "task": self.task.loss(upright, batch.target),
            "peer_task": self.task.loss(peer_upright, batch.target),
            "joint": sum(losses.cross_entropy(logits, joint_target, class_weights=weights) for logits in joint),
            "peer_joint": sum(
                losses.cross_entropy(logits, joint_target, class_weights=weights) for logits in peer_joint
            ),
            "kd": losses.kd(logits, peer_logits, self.temperature),
            "peer_kd": losses.kd(peer_logits, logits, self.temperature),
            "joint_kd": branch_kd(joint, peer_joint, self.temperature),
            "peer_joint_kd": branch_kd(peer_joint, joint, self.temperature),
        }
        return Step(terms, upright)
