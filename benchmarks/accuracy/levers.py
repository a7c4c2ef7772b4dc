"""Forms of FRSKD that families.py tries and the package does not have."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from selfdistill import losses
from selfdistill.hyperparameters import Count, Positive, hparam
from selfdistill.methods.frskd import FRSKD
from selfdistill.task import Batch, Step


class EveryKth(FRSKD):
    """FRSKD in every k-th step, and plain training in the others.

    Departs from the paper: there `every` is 1. A resumed run counts its steps anew.
    """

    every: Count = hparam(2, "steps from one with the self-teacher to the next")
    steps = 0

    def begin_step(self, progress: float | None) -> None:
        super().begin_step(progress)
        self.steps += 1
        if self.steps % self.every:
            self.phase = "asleep"


class Shares(FRSKD):
    """FRSKD whose imitations pull at the student with stated shares of what its own cross-entropy does.

    Departs from the paper: there `alpha` and `beta` are constants; here each term is weighed in each step such that its
    gradient's norm, over all the student's parameters, is `share` times that of the cross-entropy, times the ramp. That
    takes a backward pass more for each of the three terms.
    """

    share: Positive = hparam(1.0, "norm of each imitation's gradient, as a share of the task's")

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        step = super().forward(batch, progress)
        imitations = {"kd", "feature"} & {*step.losses}
        if not imitations or not torch.is_grad_enabled():
            return step
        ramp = losses.ramp_up(progress, self.timetable.imitation, self.ramp)
        pull = self.share * ramp * self.measure_pull(step.losses["task"])
        scales = {name: pull / self.measure_pull(step.losses[name]).clamp(min=1e-12) for name in imitations}
        return step._replace(losses={name: term * scales.get(name, 1.0) for name, term in step.losses.items()})

    def measure_pull(self, term: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The norm of a term's gradient over the student's parameters."""
        parameters = [each for each in self.student.parameters() if each.requires_grad]
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        return measure_norm(gradient for gradient in gradients if gradient is not None)


def measure_norm(gradients: Iterable[Tensor]) -> Float[Tensor, ""]:
    return torch.stack([gradient.norm() for gradient in gradients]).norm()
