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

    Two definitions are in use, and published differences depend on them: see `share`.
    """

    outputs = ("image", "pixel")
    supervised_terms, weighted_terms = (), ("task",)
    cost = "none"

    epsilon: Share = hparam(0.1, "mass that the label gives away")
    share: Literal["all", "others"] = hparam(
        "all", "who receives it: all K classes (paper, PyTorch) or the K - 1 others"
    )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
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
