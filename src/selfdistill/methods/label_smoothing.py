"""Rethinking the Inception Architecture for Computer Vision, section 7: label smoothing.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. CVPR 2016. https://arxiv.org/abs/1512.00567
"""

from typing import Literal

from torch import Tensor

from .. import losses
from ..hyperparameters import Share, hparam
from ..method import Method
from ..task import Batch, Step


class LabelSmoothing(Method):
    """Cross-entropy against labels that give a little of their mass away: the simplest rival of self-distillation.

    Two definitions are in use, and published differences depend on them: see `share`. Where an image shows any number
    of classes, yes and no are the two answers of each class, so that yes becomes 1 - epsilon / 2, or 1 - epsilon.
    """

    outputs = ("image", "pixel")
    targets = ("class", "multi_label")
    supervised_terms, weighted_terms = (), ("task",)
    cost = "none"

    epsilon: Share = hparam(0.1, "mass that the label gives away")
    share: Literal["all", "others"] = hparam(
        "all", "who receives it: all K classes (paper, PyTorch) or the K - 1 others"
    )

    @property
    def of_two_answers(self) -> float:
        """The mass that yes and no of one class share alike."""
        return self.epsilon if self.share == "all" else 2 * self.epsilon

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        if self.task.target == "multi_label":
            task = losses.multi_label_loss(
                logits,
                batch.target,
                batch.soft_target,
                self.task.ignore_index,
                class_weights=self.task.class_weights,
                label_smoothing=self.of_two_answers,
            )
            return Step({"task": task}, logits)
        task = losses.smoothed_cross_entropy(
            logits,
            batch.target,
            self.epsilon,
            self.share,
            self.task.ignore_index,
            batch.soft_target,
            class_weights=self.task.class_weights,
        )
        return Step({"task": task}, logits)
