"""Regularizing Neural Networks by Penalizing Confident Output Distributions (the confidence penalty).

Pereyra, Tucker, Chorowski, Kaiser, Hinton. ICLR 2017 workshop. https://arxiv.org/abs/1701.06548
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..task import Batch, Step


class MaxEntropy(Method):
    """Cross-entropy minus a share of the student's own entropy: nobody teaches, but confidence has a price.

    The entropy is that of the student's distribution over the classes, in nats, mean over the batch. Gradients flow
    through it. Label smoothing is the same with the reverse divergence from the uniform distribution.

    Departs from the paper: nothing known. The default weight is this project's choice.
    """

    cost = "none"

    weight: Positive = hparam(0.1, "beta in the paper: weighs the entropy")

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "confidence": -self.weight * entropy(logits),
        }
        return Step(terms, logits)


@losses.in_float32
def entropy(logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Entropy of softmax(logits), in nats, mean over the batch; from 0 to log k."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1).mean()
