"""Self-supervised Label Augmentation via Input Transformations (SLA).

Lee, Hwang, Shin. ICML 2020. https://arxiv.org/abs/1910.05872
"""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from .. import losses, mixing
from ..features.pooling import global_average
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..task import Batch, Step


class SLA(Method):
    """The student learns class and rotation jointly: nobody teaches, the labels themselves are augmented.

    All four rotations of each image go through the student in one forward pass. A linear head on its pooled deepest map
    predicts which of 4 K pairs of class and rotation a row shows. The student's own classifier learns from the upright
    rows.

    Departs from the paper: there the joint classifier ships, and the scores of a test image are aggregated over its
    four rotations. Here the plain student ships, so the joint head is dropped and the student's own cross-entropy is
    added. This is SLA-SD without its distillation, the control that shows what distillation adds.
    """

    soft_targets = False
    square_images = True
    weighted_terms = ("joint",)
    cost = "4x the rows, a linear head"

    weight: Positive = hparam(1.0, "weighs the joint loss; the authors take 4 for large data sets")

    def setup(self) -> None:
        self.joint = nn.Linear(self.taps.channels[-1], mixing.ROTATIONS * self.task.num_classes)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, joint = self.plain_and_joint(batch.images)
        terms = {
            "task": self.task.loss(logits, batch.target),
            "joint": self.weight * self.joint_loss(joint, batch.target),
        }
        return Step(terms, logits)

    def joint_loss(self, joint: Float[Tensor, "rows j"], target: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
        """Cross-entropy over the pairs of class and rotation; a pair weighs as its class does."""
        weights = mixing.joint_weights(self.task.class_weights)
        return losses.cross_entropy(joint, mixing.joint_labels(target), class_weights=weights)

    def plain_and_joint(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "4*b j"]]:
        """The student's scores of the upright images, and the joint scores of all their rotations."""
        logits, features = self.taps(mixing.rotations(images))
        return logits[:: mixing.ROTATIONS], self.joint(global_average(features[-1]))
