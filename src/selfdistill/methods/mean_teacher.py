"""Mean teachers are better role models (mean teacher): weight-averaged consistency targets.

Tarvainen, Valpola. NeurIPS 2017. https://arxiv.org/abs/1703.01780
"""

from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..hyperparameters import Share, Weight, hparam
from ..method import Method
from ..modules.teachers import Trailing
from ..task import Batch, Step


class MeanTeacher(Method):
    """The moving average of the student's own weights teaches the student, which sees another view of each image.

    The student learns the labels and, ever more over a `ramp`, the teacher's class probabilities. After step n the
    teacher keeps a share min(1 - 1 / (n + 1), `decay`) of itself, so at first it is the plain mean of what the student
    has been. Mixed labels are refused: the teacher's view is unmixed.

    Departs from the paper: its semi-supervised part is left out, as every image has a label here. The teacher is in
    eval mode, with the student's running statistics; the authors' is in training mode, with noise of its own. The
    student ships, while the paper evaluates the teacher: `optim.ema` in a recipe ships an average of the student. With
    all labels of CIFAR-10 the authors weigh the consistency with 100, over 150,000 steps; the default is 10, as 100
    ties the student to its beginnings on short schedules.
    """

    views = 1
    soft_targets = False
    cost = "a forward of the teacher for each image; the teacher: as many parameters as the student, untrained"

    weight: Weight = hparam(10.0, "of the consistency, which is a mean over classes")
    decay: Annotated[float, Interval(ge=0, lt=1)] = hparam(
        0.999, "share that the teacher keeps of itself at each step", used_with="weight"
    )
    ramp: Share = hparam(
        0.27, "share of training over which the weight grows, 40,000 of 150,000 steps; 0: constant", used_with="weight"
    )

    def setup(self) -> None:
        self.trailing = Trailing(self.student)
        self.steps = 0

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        terms = {"task": self.task.loss(logits, batch.target)}
        if self.weight:
            ramp = losses.ramp_up(progress, 0.0, self.ramp)
            terms["consistency"] = ramp * self.weight * inconsistency(logits, self.trailing(batch.views[:, 0]))
        return Step(terms, logits)

    def after_step(self) -> None:
        self.steps += 1
        self.trailing.follow(self.student, min(1 - 1 / (self.steps + 1), self.decay))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)  # a buffer would be on the device, and each step would wait to read it

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)


@losses.in_float32
def inconsistency(logits: Float[Tensor, "b k"], teacher_logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean squared difference of the class probabilities, over classes and batch; the teacher is detached here."""
    return (logits.softmax(dim=1) - teacher_logits.detach().softmax(dim=1)).pow(2).mean()
