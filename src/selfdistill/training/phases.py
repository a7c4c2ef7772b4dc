"""The phases of a run: which optimizer steps lie in which phase of the method."""

import bisect
from collections.abc import Mapping

from ..method import Method


def compute_progress(step: int, schedule_steps: int) -> float:
    """The share of training done after so many steps; methods go on as they ended where a schedule is added."""
    return min(step / schedule_steps, 1.0)


def plan_phases(method: Method, schedule_steps: int, last_step: int) -> Mapping[str, range]:
    """The optimizer steps of each phase up to the last step; phases without a step are left out."""
    steps = range(last_step)
    starts = [
        bisect.bisect_left(steps, begin, key=lambda step: compute_progress(step, schedule_steps))
        for begin in method.phases.values()
    ]
    planned = {
        name: range(start, end)
        for name, start, end in zip(method.phases, starts, [*starts[1:], last_step], strict=True)
    }
    return {name: steps for name, steps in planned.items() if steps}
