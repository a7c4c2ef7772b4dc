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
    """The previous batch teaches the current one the shape of its scores: how they fall from best to worst.

    Scores are sorted within each row, which removes the classes. Row i can then be compared with row i of the previous
    batch, a constant, whatever the two show.

    Departs from the paper: the soft-label loss has the factor T^2, as in the authors' script, which does not run as
    released. Rows without a predecessor (all of the first batch, and some after a smaller batch) are compared with
    themselves and add 0. The first batch of an epoch follows the last batch of the epoch before.
    """

    cost = "none; state: the scores of one batch"

    weight: Weight = hparam(1.0, "beta in the authors' script: weighs the shape loss")
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="weight")

    def setup(self) -> None:
        # Not persistent: the number of rows varies, and a buffer in a state dict has a fixed shape.
        self.register_buffer("previous", torch.empty(0, self.task.num_classes), persistent=False)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        ranked = logits.sort(dim=1).values
        shape = losses.kd(ranked, self.predecessors(ranked), self.temperature)
        self.previous = distributed.gather_rows(ranked)
        task = self.task.loss(logits, batch.target, batch.soft_target)
        return Step({"task": task, "shape": self.weight * shape}, logits)

    def predecessors(self, ranked: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """The same rows of the previous batch; a row that it lacks stays as it is."""
        before = distributed.local_rows(self.previous)[: len(ranked)]
        return torch.cat([before, ranked[len(before) :]])

    def get_extra_state(self) -> Tensor:
        return self.previous

    def set_extra_state(self, state: Tensor) -> None:
        self.previous = state.to(self.previous.device)
