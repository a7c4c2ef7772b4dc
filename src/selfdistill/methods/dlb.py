"""Self-Distillation from the Last Mini-Batch for Consistency Regularization (DLB).

Shen, Xu, Yang, Li, Guo. CVPR 2022. https://arxiv.org/abs/2203.16172
"""

from typing import Any

import torch
from torch import Tensor

from ..distributed import gather_rows, local_rows
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class DLB(Method):
    """The student of one step ago teaches the student: each image comes twice and should get the same scores.

    A second view of each image is kept for the next step, with its label and the student's scores of the first view.
    In that step it is trained on its label, like the new images, and on those scores, which are constants. The first
    step of training has no previous batch. Mixed labels are refused, because the kept views are not mixed.

    Departs from the paper: it has one batch of old and new halves. Here, as in the authors' code, the two halves are
    separate passes, the new images first. Batch norms therefore see them apart and update their statistics twice. Our
    batch size counts new images only, so an epoch trains on every image twice.
    """

    views = 1
    soft_targets = False
    counts_batch_labels = False
    targets = None
    soft_label_terms = ("kd",)
    cost = (
        "2x the rows, in two passes; state: the last mini-batch (images, labels, scores), "
        "which several processes exchange at every step"
    )

    weight: Weight = hparam(1.0, "alpha in the paper: weighs the scores of the previous step")
    temperature: Positive = hparam(3.0, "softens both distributions", used_with="weight")

    def setup(self) -> None:
        self.last: tuple[Tensor, Tensor, Tensor] | None = None  # views, labels and scores of all processes' rows

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        terms = {}
        if self.last is None:
            terms["task"] = self.task.loss(logits, batch.target)
        else:
            images, target, teacher_logits = [local_rows(tensor).to(logits.device) for tensor in self.last]
            again = self.student(images)
            terms["task"] = self.task.loss(torch.cat([again, logits]), torch.cat([target, batch.target]))
            if self.weight:
                mask = self.task.labeled_mask(target)
                terms["kd"] = self.weight * self.task.distill(again, teacher_logits, self.temperature, mask)
        self.last = gather_rows(batch.views[:, 0]), gather_rows(batch.target), gather_rows(logits)
        return Step(terms, logits)

    def get_extra_state(self) -> Any:
        return self.last

    def set_extra_state(self, state: Any) -> None:
        self.last = state
