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
    """Cross-entropy less a share of the student's own entropy: nobody teaches, but certainty has a price.

    The entropy is that of the student's distribution over the classes, in nats, mean over the batch; gradients flow
    through it. Label smoothing is the same with the divergence from the uniform distribution turned round.

    Departs from the paper: nothing known; the default weight is this project's choice.
    """

    cost = "none"

    weight: Positive = hparam(0.1, "the paper's beta: nats of loss for a nat of entropy")

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "confidence": -self.weight * entropy(logits),
        }
        return Step(terms, logits)


@losses.in_float32
def entropy(logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Of the softmax of `logits`, in nats, mean over the batch; from 0 to log k."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1).mean()
