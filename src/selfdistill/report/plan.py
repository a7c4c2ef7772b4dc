"""plan.json of a comparison: what was decided before anything was trained, and what was measured to decide it."""

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..runs.files import describe_problem, read_json, write_json
from .verdict import Rule

NAME = "plan.json"


class Pace(BaseModel):
    """What training steps of an arm cost in the pilot, and beside those of the baseline that took turns with them."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    slowdown: float  # times the baseline's step: the median over the turns
    low: float  # the quartiles
    high: float
    turns: int
    cost_per_step: float  # processor seconds on a CPU, else device seconds
    seconds_per_step: float  # wall clock
    score_seconds: float  # wall clock of one scoring of the held-out images


class Plan(BaseModel):
    """Arms, seeds and the rule of the verdicts."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    margin: float = Rule().margin
    confidence: float = Rule().confidence
    least_seeds: int = Rule().least_seeds
    rule: str = ""  # in words
    arms: list[str] = []  # the first is the baseline
    seeds: list[int] = []
    controls: list[str] = []  # arms that nobody named
    auto: str | None = None  # the arm that auto among the methods stands for
    equal_cost: dict[str, str] = {}  # for an arm, the baseline that is trained for as long a time
    pilot: dict[str, Pace] = {}  # by arm
    machine: str | None = None  # on which the pilot was measured
    test_fraction: float | None = None
    budget_seconds: float | None = None
    spent_seconds: float | None = None  # of the runs that had ended when the plan was written
    planned: list[str] = []  # the runs, most informative first
    dropped: list[str] = []  # the runs that the budget does not reach

    def get_rule(self) -> Rule:
        return Rule(self.margin, self.confidence, self.least_seeds)


def read_plan(folder: Path) -> Plan | None:
    """The plan of a comparison; None where there is none. Raises `ValueError` for a damaged one."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        plan = Plan.model_validate(read_json(path))
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: {describe_problem(error)}; delete it, and it is written anew") from None
    except ValueError as error:
        raise ValueError(f"{error}; delete it, and it is written anew") from None
    numbers = [value for pace in plan.pilot.values() for value in pace.model_dump().values()]
    if not all(math.isfinite(value) and value >= 0 for value in numbers):
        raise ValueError(f"{path} is damaged: a time in it is no number from 0 on; delete it, and it is written anew")
    return plan


def write_plan(plan: Plan, folder: Path) -> None:
    values: dict[str, Any] = plan.model_dump(mode="json")
    write_json(folder / NAME, values)
