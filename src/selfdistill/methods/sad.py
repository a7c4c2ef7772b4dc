"""Learning Lightweight Lane Detection CNNs by Self Attention Distillation (SAD).

Hou, Ma, Liu, Loy. ICCV 2019. https://arxiv.org/abs/1908.00821
"""

import itertools
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..hyperparameters import Positive, Share, hparam
from ..method import Method
from ..task import Batch, Step
from .tfd import refuse_single_level


class SAD(Method):
    """Each feature map's spatial attention learns from that of the next deeper map of the same network, a constant.

    Attention is the softmax over positions of the channel sum of squares. The sum of the deeper map is first resized
    bilinearly to the size of the shallower map, so that both are distributions over the same positions. The distances
    of successive maps are added up. They count in the last part of training only, when the deep maps can teach.

    Departs from the paper: it was made for lane segmentation and is here for any task. Weight and start are those of a
    public PyTorch port for lanes (0.1, after 40,000 of 60,000 iterations). The distance is the squared l2 distance of
    the two distributions, at most 2, averaged over the batch. That port and a classification library average over
    positions too, which is `reduction` mean. For diffuse maps that value falls with the square of the number of
    positions, and a weight of 0.1 does next to nothing. The library, which also takes the channel mean before its
    softmax, takes the weight 1000 from the first step on.
    """

    outputs = ("image", "pixel")
    unlabeled_terms = ("attention",)
    targets = None
    cost = "none beside plain training: no further rows, parameters or state"

    weight: Positive = hparam(0.1, "weighs the attention loss; about 1000 for reduction=mean")
    warmup: Share = hparam(2 / 3, "share of training before it counts; 0: from the first step")
    reduction: Literal["sum", "mean"] = hparam("sum", "of the squared differences over positions")

    def setup(self) -> None:
        if self.warmup == 1:
            raise ValueError("warmup=1.0 leaves SAD's only term no share of training; method=baseline does without it")
        refuse_single_level(self)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        distance = sum(attention_distance(*pair, self.reduction) for pair in itertools.pairwise(features))
        started = losses.ramp_up(progress, self.warmup, ramp=0.0)
        task = self.task.loss(logits, batch.target, batch.soft_target)
        return Step({"task": task, "attention": self.weight * distance * started}, logits)


@losses.in_float32
def attention_distance(
    feature: Float[Tensor, "b c h w"],
    teacher_feature: Float[Tensor, "b d y x"],
    reduction: Literal["sum", "mean"],
) -> Float[Tensor, ""]:
    """Squared difference of the attention of two maps, summed over positions or their mean, mean over the batch.

    The teacher is detached here, and its energy is resized bilinearly to the size of the student's map.
    """
    teacher = F.interpolate(energy(teacher_feature.detach()), feature.shape[2:], mode="bilinear", align_corners=False)
    squares = (over_positions(energy(feature)) - over_positions(teacher)).pow(2)
    return squares.sum(dim=1).mean() if reduction == "sum" else squares.mean()


def energy(feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """The sum over channels of the squares."""
    return feature.pow(2).sum(dim=1, keepdim=True)


def over_positions(scores: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b h*w"]:
    """Softmax over positions."""
    return scores.flatten(1).softmax(dim=1)
