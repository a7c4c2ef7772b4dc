"""Deeply-supervised Knowledge Synergy (DKS).

Sun, Yao, Zhou, Zhao. CVPR 2019. https://arxiv.org/abs/1906.00675
"""

from torch import Tensor, nn

from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..modules.branches import remaining_stages
from ..modules.exits import shallow_levels
from ..task import Batch, Step


class DKS(Method):
    """Every classifier teaches every other: the student's own and one behind each of its shallow feature maps.

    An auxiliary classifier is a copy of the student's stages after that map, with weights of its own. All classifiers
    learn from the labels. Each also learns from the class probabilities of each other, which are constants.

    Departs from the paper: the authors design the auxiliary branches of each network by hand, with fewer or wider
    blocks. Here they repeat the student's own stages. Their code adds 1e-8 to every probability in the divergence; here
    it is computed from log-probabilities.
    """

    whole_stages = True
    supervised_terms = ("task", "heads")
    targets = None
    soft_label_terms = ("synergy",)
    cost = (
        "a copy of the remaining stages behind every shallow map: for a ResNet-18, 2.7x its parameters and 1.4x its "
        "multiply-adds"
    )

    weight: Weight = hparam(1.0, "weighs the divergences between classifiers")
    temperature: Positive = hparam(1.0, "softens both distributions; the loss has the factor T^2", used_with="weight")

    def setup(self) -> None:
        self.heads = nn.ModuleList(
            remaining_stages(self.taps, level, self.task.num_classes) for level in shallow_levels(self.taps)
        )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        heads = [head(feature) for head, feature in zip(self.heads, features[:-1], strict=True)]
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "heads": sum(self.task.loss(scores, batch.target, batch.soft_target) for scores in heads),
        }
        if self.weight:
            terms["synergy"] = self.weight * self.synergy([*heads, logits], self.task.labeled_mask(batch.target))
        return Step(terms, logits)

    def synergy(self, classifiers: list[Tensor], mask: Tensor | None = None) -> Tensor:
        """The sum over all ordered pairs of KL(teacher || learner), each teacher a constant."""
        return sum(
            self.task.distill(learner, teacher, self.temperature, mask)
            for i, learner in enumerate(classifiers)
            for j, teacher in enumerate(classifiers)
            if i != j
        )
