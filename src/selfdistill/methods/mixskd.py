"""MixSKD: Self-Knowledge Distillation from Mixup for Image Recognition.

Yang, An, Zhou, Cai, Zhi, Wu, Xu, Zhang. ECCV 2022. https://arxiv.org/abs/2208.05768
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses, mixing
from ..features.pooling import global_average
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..modules.branches import remaining_stages
from ..modules.exits import shallow_levels
from ..task import Batch, Step

HIDDEN = 128  # units of a discriminator


class MixSKD(Method):
    """The interpolated scores of two images and the scores of their mixture teach each other.

    Branches behind the shallow maps, copies of the remaining stages, do the same. The student's own scores learn from a
    self-teacher that reads the deepest maps of all branches, either interpolated or of the mixture. The targets of
    these soft-label losses are constants. The feature loss compares interpolated maps and maps of mixtures; its
    gradient reaches both sides.

    Departs from the paper: the authors' CIFAR code has no cross-entropies of mixtures, so its self-teacher keeps its
    initial weights; the published numbers come from that code (`mixed_task` false). Their ImageNet code has them, and
    so has the default here. In their code the optimizer does not see the discriminators, which therefore never learn;
    here they do. As in that code, the maps help the discriminators tell the two kinds of maps apart; `adversarial`
    reverses that gradient. Batch norms see images and mixtures together.
    """

    whole_stages = True
    supervised_terms = ("task", "branches", "mixed_task")
    targets = None
    soft_label_terms = ("kd",)
    unlabeled_terms = ("kd",)  # it compares mixtures, whose labels need not be known
    cost = (
        "2x the rows, and a copy of the remaining stages behind every shallow map: for a ResNet-18, 2.8x its "
        "parameters and together 4.9x its multiply-adds"
    )

    alpha: Positive = hparam(0.4, "the mixing weight is drawn from Beta(alpha, alpha); 0.2 on ImageNet")
    temperature: Positive = hparam(3.0, "softens both distributions")
    mixed_task: bool = hparam(True, "cross-entropies of mixtures; False: the authors' CIFAR code")
    adversarial: bool = hparam(False, "True: the maps learn to deceive the discriminators")

    def setup(self) -> None:
        num_classes, channels = self.task.num_classes, self.taps.channels[-1]
        self.branches = nn.ModuleList(
            remaining_stages(self.taps, level, num_classes) for level in shallow_levels(self.taps)
        )
        # The paper has a 1x1 convolution over all maps, pooling and a linear layer. Pooling first gives the same.
        joined = nn.Linear(len(self.taps) * channels, channels, bias=False)
        self.self_teacher = nn.Sequential(joined, nn.Linear(channels, num_classes)).requires_grad_(self.mixed_task)
        self.discriminators = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)) for _ in self.taps
        )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        images, rows = batch.images, len(batch.images)
        share = mixing.mixing_weight(self.alpha, images.device)
        order = torch.randperm(rows, device=images.device)

        def mix(values: Tensor) -> Tensor:
            return share * values + (1 - share) * values[order]

        scores, maps = self.run_branches(torch.cat([images, mix(images)]))
        clean, mixed = [logits[:rows] for logits in scores], [logits[rows:] for logits in scores]
        between = [mix(logits) for logits in clean]
        maps_between, maps_mixed = [mix(map_[:rows]) for map_ in maps], [map_[rows:] for map_ in maps]
        teacher_between, teacher_mixed = self.teacher_scores(maps_between), self.teacher_scores(maps_mixed)

        learners, teachers = mixed + between, [*between[:-1], teacher_between, *mixed[:-1], teacher_mixed]
        terms = {
            "task": self.task.loss(clean[-1], batch.target, batch.soft_target),
            "branches": sum(self.task.loss(logits, batch.target, batch.soft_target) for logits in clean[:-1]),
            "kd": sum(
                self.task.distill(logits, teacher, self.temperature)
                for logits, teacher in zip(learners, teachers, strict=True)
            ),
            "feature": sum(map(mean_square, maps_between, maps_mixed)),
            "discriminators": sum(map(self.discriminator_loss, self.discriminators, maps_between, maps_mixed)),
        }
        if self.mixed_task:
            task, other_task = (
                sum(self.task.loss(logits, *labels) for logits in [*mixed, teacher_between, teacher_mixed])
                for labels in ((batch.target, batch.soft_target), batch.permute_labels(order))
            )
            terms["mixed_task"] = share * task + (1 - share) * other_task
        with torch.no_grad():
            teacher_logits = self.teacher_scores([map_[:rows] for map_ in maps])
        return Step(terms, clean[-1], teacher_logits)

    def run_branches(self, images: Float[Tensor, "b c h w"]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and deepest maps: of the branches, shallow to deep, and then of the student itself."""
        logits, features = self.taps(images)
        pairs = [branch.with_map(feature) for branch, feature in zip(self.branches, features[:-1], strict=True)]
        return [*(scores for scores, _ in pairs), logits], [*(deepest for _, deepest in pairs), features[-1]]

    def teacher_scores(self, maps: list[Tensor]) -> Float[Tensor, "b k"]:
        """The self-teacher's scores for the deepest maps of all branches."""
        return self.self_teacher(torch.cat([global_average(feature) for feature in maps], dim=1))

    def discriminator_loss(self, discriminator: nn.Module, first: Tensor, second: Tensor) -> Float[Tensor, ""]:
        """The discriminator's binary cross-entropy between two kinds of maps."""
        pooled = global_average(torch.cat([first, second]))
        if self.adversarial:
            pooled = 2 * pooled.detach() - pooled  # the same value, the opposite gradient
        kinds = torch.eye(2, device=pooled.device).repeat_interleave(len(first), dim=0)
        return binary_cross_entropy(discriminator(pooled), kinds)


@losses.in_float32
def mean_square(first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Mean squared difference of two maps; gradients reach both."""
    return F.mse_loss(first, second)


@losses.in_float32
def binary_cross_entropy(logits: Float[Tensor, "b 2"], target: Float[Tensor, "b 2"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of two outputs, mean over both and over rows."""
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
