"""FRSKD whose self-teacher works in every k-th step alone, a lever of families.py."""

from selfdistill.hyperparameters import Count, hparam
from selfdistill.methods.frskd import FRSKD


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
