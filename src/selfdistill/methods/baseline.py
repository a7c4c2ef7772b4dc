"""Plain supervised training: the control that every other method is measured against."""

from torch import Tensor

from ..method import Method
from ..task import Batch, Step


class Baseline(Method):
    """Cross-entropy and nothing else."""

    outputs = ("image", "pixel")
    targets = None
    cost = "none"

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        return Step({"task": self.task.loss(logits, batch.target, batch.soft_target)}, logits)
