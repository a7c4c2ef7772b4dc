"""Efficient One Pass Self-distillation with Zipf's Label Smoothing (Zipf's LS).

Liang, Li, Bing, Zhao, Tang, Lin, Fan. ECCV 2022. https://arxiv.org/abs/2207.12980
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .. import losses
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..modules.heads import find_classifier, score_positions
from ..task import Batch, Step


class ZipfLS(Method):
    """The positions of the student's last feature map vote for classes, and the ranks in the vote are its soft labels.

    The student's own classifier scores every position of the map, enlarged twice by bilinear interpolation. The soft
    labels of all classes but the true one are proportional to 1 / rank. Classes with equally many votes share the best
    rank among them, so all classes without a vote are equal. The true class learns from the plain cross-entropy. Mixed
    labels are refused, because an image has one true class.

    With `voter` "head" a dense head votes, at the positions of the map itself, and for networks whose classifier is no
    linear layer on the mean of the last map this is the only voter. It learns from the cross-entropy of its mean over
    positions, which reaches the student's stages too.

    Departs from the paper: "classifier" is what the command in the authors' code for CIFAR does. The dense head is a
    1x1 convolution that only training has; the paper's settings for large data sets give its cross-entropy no weight
    and are therefore not available. `ranked` decides whether the true class takes part in the ranking: with "all", the
    runner-up of a vote that the true class wins has rank 2 and the soft label 1 / 2, before the soft labels are scaled
    to sum to 1.
    """

    soft_targets = False
    supervised_terms = ("task", "heads")
    cost = "none; with voter=head a linear head on the last map, at every position, or one on each of the last two"

    weight: Weight = hparam(0.1, "lambda in the paper: weighs the soft labels; 1 for Tiny ImageNet")
    voter: Literal["classifier", "head"] = hparam("classifier", "the student's own classifier, or a dense head")
    head_weight: Positive = hparam(0.1, "weighs the dense head's cross-entropy; 0.5 for Tiny ImageNet")
    ranked: Literal["all", "others"] = hparam("all", "rank all classes, or all but the true one", used_with="weight")
    previous_stage: bool = hparam(False, "voter=head: the map before the last votes too, upsampled twice")

    def setup(self) -> None:
        self.refuse_unused(["head_weight", "previous_stage"], self.voter != "head", f"voter={self.voter}")
        if self.voter == "classifier":
            self.classifier = find_classifier(self.taps)
            if self.classifier is None:
                raise ValueError(
                    f"the classifier of {type(self.student).__name__} is no linear layer on the mean of its last map, "
                    f"so it cannot vote at every position; set voter=head, or end taps=[...] with the map it does read"
                )
            return
        self.voting = 1 + self.previous_stage  # how many of the deepest maps vote
        if self.voting > len(self.taps):
            raise ValueError(
                "previous_stage=True needs two feature maps, and this student has one; name two in taps=[...]"
            )
        channels = self.taps.channels[-self.voting :]
        self.heads = nn.ModuleList(nn.Conv2d(c, self.task.num_classes, 1) for c in channels)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        terms = {"task": self.task.loss(logits, batch.target)}
        if self.voter == "classifier":
            with torch.no_grad():
                classifier = self.student.get_submodule(self.classifier)
                counts = votes(upsample_twice(score_positions(classifier, features[-1])))
        else:
            dense = [head(feature) for head, feature in zip(self.heads, features[-self.voting :], strict=True)]
            counts = votes(dense[-1]) + (votes(upsample_twice(dense[0])) if self.previous_stage else 0)
            pooled = [scores.mean(dim=(2, 3)) for scores in dense]
            terms["heads"] = self.head_weight * sum(self.task.loss(scores, batch.target) for scores in pooled)
        if self.weight:
            soft_labels = zipf_labels(counts, batch.target, self.ranked)
            terms["zipf"] = self.weight * losses.kl(losses.others(logits, batch.target), soft_labels)
        return Step(terms, logits)


def upsample_twice(scores: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k 2*h 2*w"]:
    """Bilinear interpolation; for the scores of a linear head it equals interpolating the map."""
    return F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)


def votes(scores: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k"]:
    """At how many positions each class has the largest score; in float32 or float64, where counts are exact.

    >>> votes(torch.tensor([[[[3.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]]])).tolist()
    [[2.0, 1.0]]
    """
    chosen = scores.argmax(dim=1).flatten(1)
    wide = {"dtype": torch.promote_types(scores.dtype, torch.float32), "device": scores.device}
    return torch.zeros(scores.shape[:2], **wide).scatter_add(1, chosen, torch.ones(chosen.shape, **wide))


def zipf_labels(
    counts: Float[Tensor, "b k"], target: Int64[Tensor, " b"], among: Literal["all", "others"]
) -> Float[Tensor, "b k-1"]:
    """Soft labels of all classes but the true one, in their order: proportional to 1 / rank, summing to 1.

    The rank of a class is 1 plus the number of classes with more votes, `among` all classes or all but the true one.

    >>> zipf_labels(torch.tensor([[9.0, 2.0, 0.0, 0.0]]), torch.tensor([0]), "others").tolist()
    [[0.5, 0.25, 0.25]]
    """
    ranked = losses.others(rank(counts), target) if among == "all" else rank(losses.others(counts, target))
    return F.normalize(1 / ranked, p=1, dim=1)


def rank(counts: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """The rank of each value in its row, 1 for the largest; equal values share the best rank among them.

    >>> rank(torch.tensor([[3.0, 5.0, 3.0, 1.0]])).tolist()
    [[2.0, 1.0, 2.0, 4.0]]
    """
    not_more = torch.searchsorted(counts.sort(dim=1).values, counts, right=True)
    return (1 + counts.shape[1] - not_more).to(counts.dtype)
