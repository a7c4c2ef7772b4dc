"""Mean teachers are better role models (mean teacher): weight-averaged consistency targets.

Tarvainen, Valpola. NeurIPS 2017. https://arxiv.org/abs/1703.01780
"""

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..hyperparameters import Share, Weight, hparam
from ..method import Method
from ..modules.teachers import MovingAverage
from ..task import Batch, Step


class MeanTeacher(Method):
    """The moving average of the student's own weights teaches the student, which sees another view of each image.

    The student learns from the labels and from the teacher's class probabilities, whose weight grows over `ramp`. After
    step n the teacher keeps a share min(1 - 1 / (n + 1), `decay`) of itself, so at first it is the plain mean of the
    student's past weights. Mixed labels are refused, because the teacher's view is not mixed.

    Where an image shows any number of classes, yes and no are the two classes of the paper's consistency, which is
    summed over classes, as the task's loss is; it needs no labels, so it also teaches where one is not known.

    Departs from the paper: several labels for an image are no case of it. Of its semi-supervised part only labels that
    are not known among several are left; every image has a label here. The teacher is in
    eval mode, with the student's running statistics; the authors' teacher is in training mode, with its own noise. The
    student ships, while the paper evaluates the teacher: `optim.ema` in a recipe ships an average of the student. With
    all labels of CIFAR-10 the authors take the weight 100 over 150,000 steps. The default is 10, because on short
    schedules 100 ties the student to its first weights.
    """

    views = 1
    targets = ("class", "multi_label")
    soft_targets = False
    cost = "a forward of the teacher for each image; the teacher: as many parameters as the student, untrained"

    weight: Weight = hparam(10.0, "weighs the consistency, which is a mean over classes")
    decay: Annotated[float, Interval(ge=0, lt=1)] = hparam(
        0.999, "share of itself that the teacher keeps in each step", used_with="weight"
    )
    ramp: Share = hparam(0.27, "share of training over which the weight grows from 0; 0: constant", used_with="weight")

    def setup(self) -> None:
        self.trailing = MovingAverage(self.student)
        self.steps = 0

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        terms, teacher_logits = {"task": self.task.loss(logits, batch.target)}, None
        if self.weight:
            ramp = losses.ramp_up(progress, 0.0, self.ramp)
            teacher_logits = self.trailing(batch.views[:, 0])
            terms["consistency"] = ramp * self.weight * self.consistency(logits, teacher_logits)
        return Step(terms, logits, teacher_logits)

    @property
    def consistency(self) -> Callable[[Tensor, Tensor], Tensor]:
        return consistency_of_answers if self.task.target == "multi_label" else consistency

    def after_step(self) -> None:
        super().after_step()
        self.steps += 1
        self.trailing.update(self.student, min(1 - 1 / (self.steps + 1), self.decay))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)  # not a buffer: reading it from the device would make each step wait

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)


@losses.in_float32
def consistency(logits: Float[Tensor, "b k"], teacher_logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean squared difference of class probabilities, over classes and batch; the teacher is detached here."""
    return (logits.softmax(dim=1) - teacher_logits.detach().softmax(dim=1)).pow(2).mean()


@losses.in_float32
def consistency_of_answers(logits: Float[Tensor, "b k"], teacher_logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """`consistency` of yes and no for each class, summed over classes; the teacher is detached here."""
    return (logits.sigmoid() - teacher_logits.detach().sigmoid()).pow(2).sum(dim=1).mean()
