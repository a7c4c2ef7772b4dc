"""Data-Distortion Guided Self-Distillation for Deep Neural Networks (DDGSD).

Xu, Liu. AAAI 2019. https://doi.org/10.1609/aaai.v33i01.33015565
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..distributed import mean_over_processes
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class DDGSD(Method):
    """Two distortions of an image teach each other: each is trained to the class probabilities of the other.

    Both learn from the label. The teacher of each divergence is a constant. A third term draws their mean embeddings
    together (the pooled deepest feature map, averaged over the batch and all processes); its gradient reaches both
    sides. Mixed labels are refused, because the second view is not mixed.

    Departs from the paper: no code by its authors is known. The two cross-entropies are averaged and the two
    divergences are added. The temperature is that of an independent implementation which says that it has the paper's
    settings. Both views go through the student in one pass, so batch norms see them together.
    """

    views = 1
    soft_targets = False
    targets = None
    soft_label_terms = ("kd",)
    cost = "2x the rows"

    weight: Weight = hparam(1.0, "lambda in the paper: weighs the two divergences")
    mu: Weight = hparam(5e-4, "weighs the distance of the mean embeddings, 1e-4 to 5e-4 in the paper")
    temperature: Positive = hparam(3.0, "softens both distributions", used_with="weight")

    def setup(self) -> None:
        _ = self.taps  # found before training, not in its first step

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(torch.cat([batch.images, batch.views[:, 0]]))
        first, second = logits.chunk(2)
        terms = {"task": self.task.loss(logits, torch.cat([batch.target, batch.target]))}
        if self.weight:
            pairs, mask = ((first, second), (second, first)), self.task.labeled_mask(batch.target)
            terms["kd"] = self.weight * sum(self.task.distill(*pair, self.temperature, mask) for pair in pairs)
        if self.mu:
            terms["mmd"] = self.mu * mean_discrepancy(*features[-1].chunk(2))
        return Step(terms, first)


@losses.in_float32
def mean_discrepancy(features: Float[Tensor, "b c h w"], others: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Maximum mean discrepancy with a linear kernel: the squared distance of two mean embeddings.

    The means are over batch, positions and processes. Gradients reach both sides.
    """
    return mean_over_processes((features - others).mean(dim=(0, 2, 3))).pow(2).sum()
