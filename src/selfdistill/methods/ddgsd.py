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

    Both are trained on the label, and where one teaches it is a constant. Their mean embeddings (the pooled deepest
    feature map, averaged over the batch and all processes) are drawn together, with gradients on both sides. Mixed
    labels are refused: the second view is unmixed.

    Departs from the paper: no code of its authors is known. The two cross-entropies are averaged and the two
    divergences added; the temperature is that of an independent implementation which says it has the paper's settings.
    Both views are one pass, so batch norms see them together.
    """

    views = 1
    soft_targets = False
    cost = "2x the rows"

    weight: Weight = hparam(1.0, "lambda in the paper: weighs the two divergences")
    mu: Weight = hparam(5e-4, "weighs the distance of the mean embeddings, 1e-4 to 5e-4 in the paper")
    temperature: Positive = hparam(3.0, "softens both distributions", used_with="weight")

    def setup(self) -> None:
        _ = self.taps  # found here, not amid training

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        every, features = self.taps(torch.cat([batch.images, batch.views[:, 0]]))
        first, second = every.chunk(2)
        terms = {"task": self.task.loss(every, torch.cat([batch.target, batch.target]))}
        if self.weight:
            divergences = losses.kd(first, second, self.temperature) + losses.kd(second, first, self.temperature)
            terms["kd"] = self.weight * divergences
        if self.mu:
            terms["mmd"] = self.mu * discrepancy(*features[-1].chunk(2))
        return Step(terms, first)


@losses.in_float32
def discrepancy(features: Float[Tensor, "b c h w"], others: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Squared distance of the two mean embeddings, over batch, positions and processes; both sides have gradients.

    It is the maximum mean discrepancy (MMD) with a linear kernel.
    """
    return mean_over_processes((features - others).mean(dim=(0, 2, 3))).pow(2).sum()
