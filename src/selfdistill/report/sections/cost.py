"""What an arm's score costs."""

import math
from collections.abc import Sequence

from ..elements import Element
from ..evidence import Arm, ArmRun, Evidence
from ..figures.scatter import Spending, draw_spending
from .blocks import captioned, section

COSTS = {  # fields of the last record, and what they are; the first that all runs have is shown
    "device_seconds": "seconds of the GPUs, training steps",
    "processor_seconds": "processor seconds, training steps",
    "train_seconds": "seconds, training steps",
}


def draw_costs(evidence: Evidence) -> Element | None:
    """The main score against what training cost, a dot for each run."""
    if evidence.task is None:
        return None
    column = evidence.task.columns[0]
    finished = [run for arm in evidence.arms for run in _scored(arm, column.score)]
    field, title = _choose_cost(finished)
    arms = []
    for arm in evidence.arms:
        pairs = [
            (measure_cost(run, field), column.scale * run.scores[column.score]) for run in _scored(arm, column.score)
        ]
        known = [(cost, score) for cost, score in pairs if math.isfinite(cost) and math.isfinite(score)]
        if known:
            arms.append(Spending(arm.name, arm.number, known))
    if sum(len(arm.seeds) for arm in arms) < 2:
        return None
    baseline = next((arm for arm in arms if evidence.baseline and arm.name == evidence.baseline.name), None)
    svg = draw_spending(
        arms, f"{column.title} against cost", title, column.title, unit_cost=baseline.mean[0] if baseline else None
    )
    lead = "Large marks are means over the seeds, small ones are runs. Further up is better, further left is cheaper."
    if baseline:
        lead += " Dotted lines are multiples of the baseline's cost: compare marks on one line, not only in height."
    caption = f"Cost in {title}; scoring held-out images is not counted."
    return section(
        "cost",
        "Accuracy against cost",
        lead,
        captioned(svg, "cost", f"{column.title} against cost", caption, wide=True),
    )


def _scored(arm: Arm, score: str) -> list[ArmRun]:
    return [run for run in arm.runs if score in run.scores]


def _choose_cost(runs: Sequence[ArmRun]) -> tuple[str | None, str]:
    """The field that all runs have, and its title; None for old runs, which know the seconds of a step only."""
    for field, title in COSTS.items():
        if runs and all(getattr(run.end, field) is not None for run in runs):
            return field, title
    return None, "seconds, steps times a step's seconds"


def measure_total(run: ArmRun) -> float:
    """The seconds of all training steps of a finished run, by the clock where it was recorded."""
    assert run.end is not None, "only finished runs have a cost"
    return run.end.train_seconds if run.end.train_seconds is not None else measure_cost(run, None)


def measure_cost(run: ArmRun, field: str | None) -> float:
    """The cost of all training steps of a finished run, in seconds."""
    assert run.end is not None, "only finished runs have a cost"
    return float(getattr(run.end, field)) if field else run.end.step * run.end.seconds_per_step
