"""When a self-teacher sleeps, learns and teaches, in shares of training."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Timetable(NamedTuple):
    """The phases of FRSKD, by its hyper-parameters of these names.

    asleep: only the plain student trains. settling: the self-teacher learns from detached maps, and does not teach.
    detached: it teaches, and its cross-entropy does not reach the student. teaching: it does.
    """

    start: float = 0.0
    settle: float = 0.0
    warmup: float = 0.0
    stop_gradient_before: float = 0.0
    stop_gradient_after: float = 1.0

    @property
    def awake(self) -> float:
        """The share of training after which the self-teacher may teach."""
        return self.start + self.settle

    @property
    def imitation(self) -> float:
        """The share of training after which the student imitates it."""
        return max(self.warmup, self.awake)

    @property
    def phases(self) -> dict[str, float]:
        """Where each phase begins; of those that begin together the last counts."""
        reached = max(self.awake, self.stop_gradient_before)
        phases = {"asleep": 0.0, "settling": self.start, "detached": self.awake, "teaching": reached}
        return phases if self.stop_gradient_after == 1 else phases | {"detached again": self.stop_gradient_after}

    def refuse_contradictions(self) -> None:
        """Raises `ValueError` for shares that leave one of the others nothing."""
        if self.warmup == 1:
            raise ValueError("warmup=1.0 leaves both losses no share of training; alpha=0 beta=0 turns them off")
        if self.awake >= 1:
            raise ValueError(
                f"start={self.start} and settle={self.settle} leave the self-teacher no share of training to teach in; "
                f"let them add up to less than 1"
            )
        if self.stop_gradient_after <= max(self.awake, self.stop_gradient_before):
            raise ValueError(
                f"with stop_gradient_before={self.stop_gradient_before}, "
                f"stop_gradient_after={self.stop_gradient_after} and start + settle={self.awake:g} the self-teacher's "
                f"cross-entropy never reaches the student; stop_gradient=true says so"
            )


def read_timetable(settings: Mapping[str, Any]) -> Timetable:
    """The timetable in a method's settings; what they lack is off."""
    return Timetable(**{name: settings[name] for name in Timetable._fields if name in settings})
