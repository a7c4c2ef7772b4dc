"""Knowledge Distillation by On-the-Fly Native Ensemble (ONE).

Lan, Zhu, Gong. NeurIPS 2018. https://arxiv.org/abs/1806.04606
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..features.pooling import global_average
from ..hyperparameters import Count, Positive, Share, Weight, hparam
from ..method import Method
from ..modules.branches import remaining_stages
from ..modules.exits import shallow_levels
from ..task import Batch, Step


class ONE(Method):
    """A gated ensemble of branches, the student's last stage and copies of it, teaches each branch.

    Branches and ensemble learn from the labels too. The gate reads the map that all branches start from, and learns
    from the ensemble's cross-entropy alone. The first branch is the student, which ships.

    Departs from the paper: nothing known but two details of its code that hardly change a number: it adds 1e-7 to every
    probability of the teacher, and its gate has a bias in the linear layer, which the batch norm behind it cancels.
    """

    whole_stages = True
    supervised_terms = ("task", "branches", "ensemble")
    targets = None
    soft_label_terms = ("kd",)
    cost = (
        "copies of the last stage and the classifier: for a ResNet-18 and 2 copies, 1.5x its parameters and 0.5x its "
        "multiply-adds"
    )

    weight: Weight = hparam(1.0, "weighs the soft-label losses")
    temperature: Positive = hparam(3.0, "softens both distributions", used_with="weight")
    ramp: Share = hparam(
        80 / 300, "share of training over which their weight grows from 0; 0: constant", used_with="weight"
    )
    copies: Count = hparam(2, "branches beside the student's own")

    def list_cheaper_settings(self) -> list[str]:
        return [f"copies={self.copies - 1}"] if self.copies > 1 else []

    def setup(self) -> None:
        level = shallow_levels(self.taps)[-1]
        self.branches = nn.ModuleList(
            remaining_stages(self.taps, level, self.task.num_classes) for _ in range(self.copies)
        )
        self.gate = Gate(self.taps.channels[level], 1 + self.copies)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        copies = [branch(features[-2]) for branch in self.branches]
        ensemble = torch.einsum("bm,mbk->bk", self.gate(features[-2]), torch.stack([logits, *copies]))
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "branches": sum(self.task.loss(scores, batch.target, batch.soft_target) for scores in copies),
            "ensemble": self.task.loss(ensemble, batch.target, batch.soft_target),
        }
        if self.weight:
            mask = self.task.labeled_mask(batch.target)
            kd = sum(self.task.distill(scores, ensemble, self.temperature, mask) for scores in [logits, *copies])
            terms["kd"] = losses.ramp_up(progress, 0.0, self.ramp) * self.weight * kd
        return Step(terms, logits, ensemble.detach())


class Gate(nn.Module):
    """The weight of each branch for each image; they sum to 1: a linear layer, batch norm, ReLU and softmax."""

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, branches, bias=False), nn.BatchNorm1d(branches), nn.ReLU(), nn.Softmax(dim=1)
        )

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m"]:
        return self.layers(global_average(feature))
