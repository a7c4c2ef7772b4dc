"""Student Helping Teacher: Teacher Evolution via Self-Knowledge Distillation (TESKD).

Li, Li, Yang, Yang, Pan. Preprint 2021. https://arxiv.org/abs/2110.00329
"""

from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..features.pooling import global_average
from ..hyperparameters import Count, Positive, Weight, hparam
from ..method import Method
from ..modules.exits import shallow_levels
from ..modules.fpn import TopDown
from ..task import Batch, Step


class TESKD(Method):
    """Branches on a top-down pyramid over the student's maps learn from its deepest layers, which improve through them.

    Every branch learns from the student's scores and its pooled deepest map; both are constants. The student, which the
    paper calls the teacher, improves because the branches' gradients reach its stages.

    Departs from the paper: the feature loss is summed over channels and averaged over images. The authors' code sums it
    over the batch too, with the weight 1e-7. At their batch size of 128 that is `feature_weight` 1.28e-5 here, which
    does not depend on batch size and number of processes. Maps are resized to the next shallower map, which doubles
    them, as in the paper, wherever stages halve the size.
    """

    supervised_terms = ("task", "branches")
    targets = None
    soft_label_terms = ("kd",)
    cost = (
        "a pyramid and a classifier per shallow map: 2.3x the parameters of a ResNet-18, 16x those of a ResNet-50, "
        "for they grow with the square of `width`"
    )

    ce_weight: Weight = hparam(0.2, "weighs the cross-entropies of the student and of every branch")
    kd_weight: Weight = hparam(0.8, "weighs the branches' soft-label losses")
    feature_weight: Weight = hparam(1.28e-5, "weighs the branches' feature losses; 128 images x 1e-7")
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="kd_weight")
    width: Count | None = hparam(None, "channels of the pyramid; None: those of the deepest map")

    def setup(self) -> None:
        levels, channels = shallow_levels(self.taps), self.taps.channels
        width = self.width or channels[-1]
        if self.feature_weight and width != channels[-1]:
            raise ValueError(
                f"width={width} cannot be compared with the student's deepest map of {channels[-1]} channels; "
                f"choose width={channels[-1]}, or feature_weight=0"
            )
        sizes = [tap.size for tap in self.taps]
        self.pyramid = TopDown(channels, width)
        self.branches = nn.ModuleList(Branch(width, patch(sizes[i], sizes[-1]), self.task.num_classes) for i in levels)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        fused = self.pyramid(features)
        pairs = [branch(feature) for branch, feature in zip(self.branches, fused, strict=True)]
        branch_losses = [self.task.loss(scores, batch.target, batch.soft_target) for scores, _ in pairs]
        terms = {
            "task": self.ce_weight * self.task.loss(logits, batch.target, batch.soft_target),
            "branches": self.ce_weight * sum(branch_losses),
        }
        if self.kd_weight:
            mask = self.task.labeled_mask(batch.target)
            kd = sum(self.task.distill(scores, logits, self.temperature, mask) for scores, _ in pairs)
            terms["kd"] = self.kd_weight * kd
        if self.feature_weight:
            pooled = global_average(features[-1])
            terms["feature"] = self.feature_weight * sum(active_difference(vector, pooled) for _, vector in pairs)
        return Step(terms, logits)


class Branch(nn.Module):
    """From a map to class scores and the pooled vector (b, width) that they are computed from.

    A convolution over patches that do not overlap reduces the map to about the size of the deepest. A 1x1 follows.
    """

    def __init__(self, width: int, patch: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, patch, stride=patch, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.fc = nn.Linear(width, num_classes)

    def forward(self, feature: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b c"]]:
        pooled = global_average(self.layers(feature))
        return self.fc(pooled), pooled


def patch(size: tuple[int, int], smallest: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the patches that cut a map of `size` into about `smallest`.

    >>> patch((16, 15), (4, 3)), patch((7, 7), (7, 7))
    ((4, 5), (1, 1))
    """
    return max(size[0] // smallest[0], 1), max(size[1] // smallest[1], 1)


@losses.in_float32
def active_difference(feature: Float[Tensor, "b c"], teacher_feature: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """Squared difference where either side is positive, summed over channels, mean over images.

    The teacher is detached here.

    >>> import torch
    >>> active_difference(torch.tensor([[1.0, -1.0, 2.0]]), torch.tensor([[3.0, -5.0, -1.0]])).item()
    13.0
    """
    teacher = teacher_feature.detach()
    counts = (feature > 0) | (teacher > 0)
    return ((feature - teacher).pow(2) * counts).sum(dim=1).mean()
