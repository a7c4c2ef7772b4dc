"""Lightweight Self-Knowledge Distillation with Multi-source Information Fusion: reverse guidance (DRG).

Wang, Han, Guo. Preprint 2023. https://arxiv.org/abs/2305.09183
"""

from torch import Tensor

from ..hyperparameters import Count, Positive, Weight, hparam
from ..method import Method
from ..modules.exits import SeparableExit, count_halvings, shallow_levels
from ..task import Batch, Step


class DRG(Method):
    """A light classifier on an early feature map teaches the student, so that what that map knows is not lost later.

    The classifier reads the map through an attention gate. Its cross-entropy reaches the student's early stages. Its
    scores teach the student and are constants there.

    Departs from the paper: the released script does not run, and its classifier has the width of another network, so
    this follows the paper's description. The classifier halves the size of its map down to that of the deepest map,
    while its width grows evenly to that of the deepest.
    """

    supervised_terms = ("task", "exit")
    targets = None
    soft_label_terms = ("kd",)
    cost = "a light classifier of separable convolutions: 0.03x the parameters of a ResNet-18"

    alpha: Weight = hparam(0.2, "weighs the soft-label loss")
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="alpha")
    level: Count = hparam(2, "feature map that the classifier reads; 1 is the shallowest")

    def setup(self) -> None:
        levels = len(shallow_levels(self.taps))
        if self.level > levels:
            raise ValueError(
                f"level={self.level} is not before the student's deepest of {levels + 1} feature maps; "
                f"choose level={levels} or less"
            )
        early, deepest = list(self.taps)[self.level - 1], list(self.taps)[-1]
        self.early_exit = SeparableExit(
            early.channels,
            deepest.channels,
            count_halvings(early.size, deepest.size),
            self.task.num_classes,
            attention=True,
        )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        early_logits, _ = self.early_exit(features[self.level - 1])
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "exit": self.task.loss(early_logits, batch.target, batch.soft_target),
        }
        if self.alpha:
            mask = self.task.labeled_mask(batch.target)
            terms["kd"] = self.alpha * self.task.distill(logits, early_logits, self.temperature, mask)
        return Step(terms, logits)
