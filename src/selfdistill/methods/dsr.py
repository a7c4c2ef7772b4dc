"""Lightweight Self-Knowledge Distillation with Multi-source Information Fusion: shape-wise regularization (DSR).

Wang, Han, Guo. Preprint 2023. https://arxiv.org/abs/2305.09183
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .. import distributed, losses
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class DSR(Method):
    """The previous batch teaches the current one the shape of its scores: how they fall off from best to worst.

    Scores are sorted within each row, so that classes are forgotten and row i, whatever it shows, can be compared with
    row i of the batch before, a constant.

    Departs from the paper: the soft-label loss carries the factor T^2, as in the authors' script, which otherwise
    cannot run as it stands. Rows without a predecessor (all of the first batch, and some after a smaller one) are
    compared with themselves, which costs nothing; the first batch of an epoch follows the last of the one before.
    """

    cost = "none; state: the scores of one batch"

    weight: Weight = hparam(1.0, "weighs the loss of shape, beta in the authors' script")
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="weight")

    def setup(self) -> None:
        # Its rows vary from step to step, which a saved buffer's may not.
        self.register_buffer("previous", torch.empty(0, self.task.num_classes), persistent=False)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        ranked = logits.sort(dim=1).values
        shape = losses.kd(ranked, self.predecessors(ranked), self.temperature)
        self.previous = distributed.gather_rows(ranked)
        task = self.task.loss(logits, batch.target, batch.soft_target)
        return Step({"task": task, "shape": self.weight * shape}, logits)

    def predecessors(self, ranked: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """For each row, that of the previous batch; the row itself where that batch has none."""
        before = distributed.local_rows(self.previous)[: len(ranked)]
        return torch.cat([before, ranked[len(before) :]])

    def get_extra_state(self) -> Tensor:
        return self.previous

    def set_extra_state(self, state: Tensor) -> None:
        self.previous = state.to(self.previous.device)
