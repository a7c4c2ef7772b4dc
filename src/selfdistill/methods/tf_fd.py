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
from .tfd import imitation, refuse_single_level


class TfFD(Method):
    """Shallow maps imitate deeper ones of the same network, and in each map salient and redundant channels draw near.

    Inter-layer: as TFD, with the deeper map a constant. Intra-layer: the channels are ranked by saliency, the mean over
    batch and positions of the map scaled to unit norm, and the first half is compared with the last, rank by rank;
    with an odd number of channels the middle one is left out. The ranking is of all processes' rows. Both terms are
    means of squares, averaged over pairs and over maps, and grow linearly over the first `warmup` of training. Made for
    rectified maps; on others, as a ViT's, saliency is a mean of signed values.

    Departs from the paper: it tells of salient channels that teach redundant ones; in the authors' code, which this
    is, neither half is a constant (`detach_salient` makes the salient one so). The weights are those of the command in
    the authors' README; the defaults of their argument parser are 0.005 and 0.0004. The authors' weight in epoch e, the
    first being 1, is min(1, e / 20) in 240 epochs; it is min(1, progress / warmup) here, which reaches the same value
    at the end of that epoch and is 0 at the first step.
    """

    outputs = ("image", "pixel")
    cost = "none beside plain training: no further rows, parameters or state"

    lambda_inter: Weight = hparam(0.0005, "weighs the imitation of deeper maps")
    lambda_intra: Weight = hparam(0.0008, "weighs the distance between salient and redundant channels")
    warmup: Share = hparam(
        20 / 240,
        "share of training over which both weights grow from 0; 0: constant",
        used_with=("lambda_inter", "lambda_intra"),
    )
    detach_salient: bool = hparam(
        False, "True: the salient channels are constants, as the paper tells it", used_with="lambda_intra"
    )
    epsilon: Share = hparam(
        0.0, "label smoothing: mass that the true class shares with all classes; 0: none, as published"
    )

    def setup(self) -> None:
        refuse_single_level(self)
        for tap in self.taps:
            if tap.channels < 2 and self.lambda_intra:
                raise ValueError(
                    f"{type(self).__name__} compares two halves of the channels, and {tap.name!r} has 1; set "
                    f"lambda_intra=0 or name other submodules in taps=[...]"
                )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        pairs = list(itertools.combinations(features, 2))
        grown = self.growth(progress)
        task = losses.smoothed_cross_entropy(
            logits, batch.target, self.epsilon, void=self.task.void, soft_target=batch.soft_target
        )
        terms = {"task": task}
        if self.lambda_inter:
            inter = sum(imitation(shallow, deep) for shallow, deep in pairs) / len(pairs)
            terms["inter"] = self.lambda_inter * inter * grown
        if self.lambda_intra:
            intra = sum(contrast(feature, self.detach_salient) for feature in features) / len(features)
            terms["intra"] = self.lambda_intra * intra * grown
        return Step(terms, logits)

    def growth(self, progress: Tensor | float) -> Tensor | float:
        """The share of their full weight that both terms have, min(1, progress / warmup)."""
        return (torch.as_tensor(progress) / self.warmup).clamp(max=1) if self.warmup else 1.0


@losses.in_float32
def contrast(feature: Float[Tensor, "b c h w"], detach_salient: bool) -> Float[Tensor, ""]:
    """Mean squared difference between the more salient half of the channels and the less salient, rank by rank."""
    half = feature.shape[1] // 2
    order = saliency(feature).argsort(descending=True, stable=True)
    salient, redundant = feature[:, order[:half]], feature[:, order[-half:]]
    return F.mse_loss(redundant, salient.detach() if detach_salient else salient)


def saliency(feature: Float[Tensor, "b c h w"]) -> Float[Tensor, " c"]:
    """Each channel's mean, over the rows of all processes and positions, of its map scaled to unit l2 norm."""
    rows = F.normalize(feature.detach().flatten(2), dim=2).mean(dim=2)
    return distributed.gather_rows(rows).mean(dim=0)
