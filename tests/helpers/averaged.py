"""A user's method, for tests of what must follow an optimizer step."""

from torch import Tensor

from selfdistill import Batch, Method, Step
from selfdistill.losses import kd
from selfdistill.modules.teachers import MovingAverage


class Averaged(Method):
    """Learns from an average of the student."""

    def setup(self) -> None:
        self.average = MovingAverage(self.student)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        task = self.task.loss(logits, batch.target, batch.soft_target)
        return Step({"task": task, "kd": progress * kd(logits, self.average(batch.images))}, logits)

    def after_step(self) -> None:
        super().after_step()
        self.average.update(self.student, 0.5)
