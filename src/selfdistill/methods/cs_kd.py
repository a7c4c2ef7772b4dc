"""Regularizing Class-wise Predictions via Self-knowledge Distillation (CS-KD).

Yun, Park, Lee, Shin. CVPR 2020. https://arxiv.org/abs/2003.13964
"""

import torch
from torch import Tensor

from .. import losses
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class CSKD(Method):
    """Images of the same class teach each other: the student's scores of one are the soft label of another.

    Each image comes with another image of its class, its positive. The scores of the positive are constants. Only the
    image is trained on the label. Mixed labels are refused, because they have no single class.

    Departs from the paper: the authors may draw the image itself as its positive; here that happens only where the
    image is alone in its class. As in their code, the positives' pass is in training mode without gradients, so batch
    norms see images and positives apart and move their running statistics twice in each step.
    """

    positives = 1
    soft_targets = False
    cost = "a second forward, of another image of the class for each image, without gradients"

    weight: Weight = hparam(1.0, "lambda in the paper: weighs the soft-label loss; 3 for fine-grained data")
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="weight")

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        terms = {"task": self.task.loss(logits, batch.target)}
        if self.weight:
            with torch.no_grad():
                teacher_logits = self.student(batch.positives[:, 0])
            terms["kd"] = self.weight * losses.kd(logits, teacher_logits, self.temperature)
        return Step(terms, logits)
