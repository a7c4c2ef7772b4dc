"""Self-Regulated Feature Learning via Teacher-free Feature Distillation (Tf-FD).

Li. ECCV 2022. https://www.ecva.net/papers/eccv_2022/papers_ECCV/papers/136860337.pdf
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .. import distributed, losses
from ..hyperparameters import Share, Weight, hparam
from ..method import Method
from ..task import Batch, Step
from .tfd import map_difference, refuse_single_level, refuse_smoothing, supervised_loss


class TfFD(Method):
    """Shallow maps learn from deeper maps, and the salient and redundant channels of each map become more alike.

    Inter-layer: as in TFD, a map learns from each deeper map, which is a constant. Intra-layer: the channels are ranked
    by saliency, the mean over batch and positions of the map scaled to unit norm. The first half is compared with the
    last half, rank by rank; of an odd number of channels the middle one is left out. The ranking covers the rows of all
    processes. Both terms are means of squares, averaged over pairs and over maps. They grow linearly over the first
    `warmup` of training. The method was made for rectified maps. On others, such as a ViT's, saliency is a mean of
    signed values.

    Departs from the paper: it says that salient channels teach redundant ones. In the authors' code, which this
    follows, neither half is a constant (`detach_salient` detaches the salient half). The weights are those of the
    command in the authors' README; their argument parser has 0.005 and 0.0004. The authors' weight in epoch e of 240,
    counted from 1, is min(1, e / 20). Here it is min(1, progress / warmup), which has the same value at the end of that
    epoch and is 0 at the first step.
    """

    outputs = ("image", "pixel")
    targets = None  # `epsilon` needs class numbers, see refuse_smoothing
    weighted_terms = ("task",)
    unlabeled_terms = ("inter", "intra")
    cost = "none beside plain training: no further rows, parameters or state"

    lambda_inter: Weight = hparam(0.0005, "weighs the distance to deeper maps")
    lambda_intra: Weight = hparam(0.0008, "weighs the distance between salient and redundant channels")
    warmup: Share = hparam(
        20 / 240,
        "share of training over which both weights grow from 0; 0: constant",
        used_with=("lambda_inter", "lambda_intra"),
    )
    detach_salient: bool = hparam(False, "True: the salient channels are constants", used_with="lambda_intra")
    epsilon: Share = hparam(0.0, "label smoothing, over all classes; the paper has none")

    def setup(self) -> None:
        refuse_single_level(self)
        refuse_smoothing(self)
        for tap in self.taps:
            if tap.channels < 2 and self.lambda_intra:
                raise ValueError(
                    f"{type(self).__name__} compares two halves of the channels, and {tap.name!r} has 1; set "
                    f"lambda_intra=0 or name other submodules in taps=[...]"
                )

    @property
    def uses_task_loss(self) -> bool:
        return not self.epsilon

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        pairs = list(itertools.combinations(features, 2))
        growth = self.growth(progress)
        task = supervised_loss(self, logits, batch)
        terms = {"task": task}
        if self.lambda_inter:
            inter = sum(map_difference(shallow, deep) for shallow, deep in pairs) / len(pairs)
            terms["inter"] = self.lambda_inter * inter * growth
        if self.lambda_intra:
            intra = sum(contrast(feature, self.detach_salient) for feature in features) / len(features)
            terms["intra"] = self.lambda_intra * intra * growth
        return Step(terms, logits)

    def growth(self, progress: Tensor | float) -> Tensor | float:
        """The share of its full weight that each term has: min(1, progress / warmup)."""
        return (torch.as_tensor(progress) / self.warmup).clamp(max=1) if self.warmup else 1.0


@losses.in_float32
def contrast(feature: Float[Tensor, "b c h w"], detach_salient: bool) -> Float[Tensor, ""]:
    """Mean squared difference between the salient and the redundant half of the channels, rank by rank."""
    half = feature.shape[1] // 2
    order = saliency(feature).argsort(descending=True, stable=True)
    salient, redundant = feature[:, order[:half]], feature[:, order[-half:]]
    return F.mse_loss(redundant, salient.detach() if detach_salient else salient)


def saliency(feature: Float[Tensor, "b c h w"]) -> Float[Tensor, " c"]:
    """Saliency of each channel: the mean of its map, scaled to unit l2 norm, over positions and all processes' rows."""
    rows = F.normalize(feature.detach().flatten(2), dim=2).mean(dim=2)
    return distributed.gather_rows(rows).mean(dim=0)
