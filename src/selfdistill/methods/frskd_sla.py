"""FRSKD together with self-supervised label augmentation (FRSKD + SLA).

Ji et al. CVPR 2021, section 4.4, https://arxiv.org/abs/2103.08273, with
Lee, Hwang, Shin. ICML 2020. Self-supervised Label Augmentation via Input Transformations. https://arxiv.org/abs/1910.05872
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import losses, mixing
from ..features.pooling import global_average
from ..hyperparameters import Positive, Weight, hparam
from ..task import Batch, Step
from .frskd import FRSKD


class FRSKDSLA(FRSKD):
    """FRSKD on the four rotations of each image, with heads that predict class and rotation jointly.

    The joint scores of the four rotations are aggregated and teach the plain scores, in the student and in the
    self-teacher. FRSKD's two losses compare both plain and aggregated scores, and the maps of all rows.

    Departs from the paper: the upright images are taken from the four rotations, so that nothing is computed twice.
    With `reuse_upright` false they have a forward pass of their own, as in the authors' code: 5 b rows, two updates of
    the running statistics in each step, and batch statistics of upright images alone for the plain scores. With
    `feature_loss` overhaul the authors read the student's maps after their ReLU here, unlike in FRSKD alone.
    """

    outputs = ("image",)
    targets, soft_label_terms = ("class",), ()
    soft_targets = False
    square_images = True
    weighted_terms = ("joint", "teacher_joint")
    cost = "4x the rows (5x without reuse_upright), the self-teacher, two linear heads"

    start = 0.0
    settle = 0.0
    teacher_average = 0.0
    start_from_classifier = False
    temperature: Positive = hparam(4.0, "softens both distributions", used_with=("alpha", "gamma"))
    gamma: Weight = hparam(1.0, "weighs what the aggregated scores teach the plain ones")
    reuse_upright: bool = hparam(True, "one forward pass of 4 b rows; False: another one of the b upright rows")

    def setup(self) -> None:
        super().setup()
        joint = mixing.ROTATIONS * self.task.num_classes
        self.joint = nn.Linear(self.taps.channels[-1], joint)
        self.teacher_joint = nn.Linear(self.self_teacher.channels[-1], joint)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features, teacher_logits, refined, joint, teacher_joint = self.plain_and_joint(batch.images)
        votes, teacher_votes = mixing.aggregate(joint), mixing.aggregate(teacher_joint)
        ramp = losses.ramp_up(progress, self.timetable.imitation, self.ramp)
        joint_target, weights = mixing.joint_labels(batch.target), mixing.joint_weights(self.task.class_weights)
        terms = {
            "task": self.task.loss(logits, batch.target),
            "teacher": self.task.loss(teacher_logits, batch.target),
            "joint": losses.cross_entropy(joint, joint_target, class_weights=weights),
            "teacher_joint": losses.cross_entropy(teacher_joint, joint_target, class_weights=weights),
        }
        if self.gamma:
            terms["votes"] = self.gamma * losses.kd(logits, votes, self.temperature)
            terms["teacher_votes"] = self.gamma * losses.kd(teacher_logits, teacher_votes, self.temperature)
        if self.alpha:
            scores, teacher_scores = torch.cat([logits, votes]), torch.cat([teacher_logits, teacher_votes])
            terms["kd"] = self.alpha * losses.kd(scores, teacher_scores, self.temperature) * ramp
        distances = self.feature_distances(features, refined) if self.beta else {}
        if self.beta:
            terms["feature"] = self.beta * sum(distances.values()) * ramp
        return Step(terms, logits, teacher_logits.detach(), {name: d.detach() for name, d in distances.items()} or None)

    def plain_and_joint(self, images: Tensor) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor], Tensor, Tensor]:
        """What `both` returns for images and rotations, and the joint scores (4 b, 4 k) of both networks.

        Plain scores have b rows, those of the upright images. Maps have 4 b rows, those of the rotations, which contain
        the upright images. Without `reuse_upright` they have 5 b rows, first those of another upright pass.
        """
        if self.reuse_upright:
            rotated = self.both(mixing.rotations(images))
            logits, teacher_logits = (each[:: mixing.ROTATIONS] for each in (rotated.logits, rotated.teacher_logits))
            features, refined = rotated.compared, rotated.refined
        else:
            upright, rotated = self.both(images), self.both(mixing.rotations(images))
            logits, teacher_logits = upright.logits, upright.teacher_logits
            features = [torch.cat(pair) for pair in zip(upright.compared, rotated.compared, strict=True)]
            refined = [torch.cat(pair) for pair in zip(upright.refined, rotated.refined, strict=True)]
        joint = self.joint(global_average(rotated.features[-1]))
        teacher_joint = self.teacher_joint(global_average(F.relu(rotated.refined[-1])))
        return logits, features, teacher_logits, refined, joint, teacher_joint
