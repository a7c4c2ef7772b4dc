"""Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation (BYOT).

Zhang, Song, Gao, Chen, Bao, Ma. ICCV 2019. https://arxiv.org/abs/1905.08094
"""

from torch import Tensor

from .. import losses
from ..features.pooling import global_average
from ..hyperparameters import Positive, Share, Weight, hparam
from ..method import Method
from ..modules.blocks import bilinear
from ..modules.exits import separable_exits
from ..task import Batch, Step


class BYOT(Method):
    """Light exits on the shallow feature maps learn from the student's own final scores and pooled deepest map.

    The final scores learn from the labels alone; for the exits, they and the deepest map are constants. The student
    gains because the exits also train its stages. In segmentation an exit scores the positions of its last map, and
    its scores are resized to the image.

    Departs from the paper: exits and settings are those of the authors' code for the later journal version (TPAMI
    2021): separable convolutions behind a gate, no factor T^2 (`squared_temperature` adds it). The feature loss is the
    paper's squared difference of pooled maps, for every exit, but as a mean over channels and rows, so that it does not
    grow with the batch. The journal code takes an unsquared norm behind a linear layer and leaves one exit out. Another
    port weighs the sum of squares by 1e-6, which for 128 rows of 512 channels is a mean weighed by 0.066.
    """

    outputs = ("image", "pixel")
    unlabeled_terms = ("feature",)
    supervised_terms = ("task", "exits")
    targets = None
    soft_label_terms = ("kd",)
    cost = "one light exit per shallow map: for a ResNet-18, 0.09x its parameters and 0.05x its multiply-adds"

    alpha: Share = hparam(0.3, "share of an exit's loss that comes from the final scores, not the labels")
    feature_weight: Weight = hparam(0.05, "the paper's lambda: weighs the difference of pooled maps")
    temperature: Positive = hparam(3.0, "softens both distributions", used_with="alpha")
    squared_temperature: bool = hparam(False, "True: multiply the soft-label loss by T^2", used_with="alpha")
    attention: bool = hparam(True, "a gate before every exit, as in the journal version")

    def setup(self) -> None:
        self.exits = separable_exits(
            self.taps, self.task.num_classes, attention=self.attention, output=self.task.output
        )

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        exits = [leave(feature) for leave, feature in zip(self.exits, features[:-1], strict=True)]
        exits = [(bilinear(scores, logits), exit_map) for scores, exit_map in exits]
        terms = {"task": self.task.loss(logits, batch.target, batch.soft_target)}
        if self.alpha < 1:
            exit_losses = [self.task.loss(scores, batch.target, batch.soft_target) for scores, _ in exits]
            terms["exits"] = (1 - self.alpha) * sum(exit_losses)
        if self.alpha:
            scale = self.alpha if self.squared_temperature else self.alpha / self.temperature**2
            mask = self.task.labeled_mask(batch.target)
            terms["kd"] = scale * sum(self.task.distill(scores, logits, self.temperature, mask) for scores, _ in exits)
        if self.feature_weight:
            deepest = global_average(features[-1], keepdim=True)
            pooled = [global_average(exit_map, keepdim=True) for _, exit_map in exits]
            terms["feature"] = self.feature_weight * sum(losses.hint(vector, deepest) for vector in pooled)
        return Step(terms, logits)
