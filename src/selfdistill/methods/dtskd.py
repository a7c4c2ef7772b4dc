"""Dual Teachers for Self-Knowledge Distillation (DTSKD).

Li, Li, Yang, Song, Yang, Pan. Pattern Recognition 2024. https://www.sciencedirect.com/science/article/pii/S0031320324001730
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .. import distributed, losses
from ..features.pooling import global_average
from ..hyperparameters import Count, Positive, Share, Weight, hparam
from ..method import Method
from ..modules.exits import shallow_levels
from ..modules.fpn import TopDown
from ..modules.remembered import compute_dtype, recall, register_table
from ..task import Batch, Step


class DTSKD(Method):
    """The student and each of its light branches learn from their own past, and the branches from the student too.

    The past: the probabilities that the same head gave the same image an epoch ago, mixed with the label. The share of
    the label falls from `label_share` to `last_label_share` along a cosine. The present: the student's scores, from
    which every branch learns. Branches read pooled maps, which are fused from deep to shallow.

    The past of large sets, from 67 million probabilities on, is kept in half precision, as in `ps_kd`.

    Departs from the paper: this follows the authors' code, which by their own account may reproduce a little less than
    they published. In it the gradient of the branches' soft-label loss reaches the student's scores too;
    `stop_gradient` makes these constants. Their code writes the history only when several processes train; here it is
    always written. The label's share changes with every step, not every epoch. The entropy of the targets, which their
    code subtracts and which has no gradient, stays in the loss. An image that was not seen yet has its label as its
    past. Mixed images have no past and are refused.
    """

    needs_index = True
    remembered = ("history",)
    soft_targets = False
    supervised_terms = ("task", "branches")
    counts_batch_labels = False
    cost = (
        "light branches on pooled maps: 0.25x the parameters of a ResNet-18; state: class probabilities of each "
        "training image, for the student and each branch (80 MB for CIFAR-100, 10 GB for ImageNet, with four heads)"
    )

    ce_weight: Weight = hparam(0.2, "weighs the cross-entropies against label and past")
    kd_weight: Weight = hparam(0.8, "weighs the branches' soft-label losses")
    backbone_weight: Weight = hparam(3.0, "weighs the student's cross-entropy among all")
    branch_weight: Weight = hparam(1.0, "weighs each branch's cross-entropy among all")
    label_share: Share = hparam(0.9, "share of the label in the targets, at the start of training")
    last_label_share: Share = hparam(0.0, "the same at the end of training")
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="kd_weight")
    stop_gradient: bool = hparam(False, "True: for the branches the student is a constant", used_with="kd_weight")
    width: Count = hparam(512, "channels of the branches")

    def setup(self) -> None:
        num_branches, num_classes = len(shallow_levels(self.taps)), self.task.num_classes
        self.top_down = TopDown(self.taps.channels, self.width, top_lateral=False)
        self.classifiers = nn.ModuleList(nn.Linear(self.width, num_classes) for _ in range(num_branches))
        register_table(self, "history", self.task.num_examples, 1 + num_branches, num_classes)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        branches = self.branch_scores(features)
        targets = self.soften_targets(batch, progress)
        self.remember(batch.index, [logits, *branches])
        pairs = zip([logits, *branches], targets, strict=True)
        cross_entropies = [self.task.loss(scores, batch.target, soft_target) for scores, soft_target in pairs]
        terms = {
            "task": self.ce_weight * self.backbone_weight * cross_entropies[0],
            "branches": self.ce_weight * self.branch_weight * sum(cross_entropies[1:]),
        }
        if self.kd_weight:
            teacher = logits.detach() if self.stop_gradient else logits
            terms["kd"] = self.kd_weight * sum(kd_both_ways(scores, teacher, self.temperature) for scores in branches)
        return Step(terms, logits)

    def branch_scores(self, features: list[Tensor]) -> list[Float[Tensor, "b k"]]:
        pooled = [global_average(feature, keepdim=True) for feature in features]
        fused = self.top_down(pooled)
        return [fc(feature.flatten(1)) for fc, feature in zip(self.classifiers, fused, strict=True)]

    def soften_targets(self, batch: Batch, progress: Tensor | float) -> list[Float[Tensor, "b k"]]:
        """The mixture of label and past of every image, for each head: the student, then the branches."""
        label = F.one_hot(batch.target, self.task.num_classes).to(compute_dtype(self.history))[:, None]
        past = recall(self.history, batch.index, otherwise=label)
        share = cosine(progress, self.label_share, self.last_label_share)
        return list((share * label + (1 - share) * past).unbind(dim=1))

    def remember(self, index: Tensor, scores: list[Tensor]) -> None:
        probabilities = torch.stack(scores, dim=1).detach().to(compute_dtype(self.history)).softmax(dim=2)
        rows = distributed.gather_rows(probabilities.to(self.history.dtype))
        self.history[distributed.gather_rows(index)] = rows


@losses.in_float32
def kd_both_ways(
    logits: Float[Tensor, "b k"], other_logits: Float[Tensor, "b k"], temperature: float = 4.0
) -> Float[Tensor, ""]:
    """T^2 * KL(other || student) of the softened distributions, in nats, mean over batch; gradients reach both.

    >>> kd_both_ways(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]])).item()
    0.0
    """
    log_student = F.log_softmax(logits / temperature, dim=1)
    log_other = F.log_softmax(other_logits / temperature, dim=1)
    return temperature**2 * (log_other.exp() * (log_other - log_student)).sum(dim=1).mean()


def cosine(progress: Tensor | float, first: float, last: float) -> Tensor:
    """From `first` at progress 0 to `last` at 1 along half a cosine.

    >>> [round(float(cosine(p, 0.9, 0.1)), 3) for p in (0.0, 0.5, 1.0)]
    [0.9, 0.5, 0.1]
    """
    return last + (first - last) * (1 + torch.cos(math.pi * torch.as_tensor(progress))) / 2
