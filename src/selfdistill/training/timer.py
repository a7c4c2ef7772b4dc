"""How long training steps take: by the wall clock, and in processor or device seconds, which other programs do not
lengthen.
"""

import math
import multiprocessing
import operator
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

STAT_TIMES = slice(11, 13)  # processor time in user and system mode, behind the name in /proc/PID/stat


class DeviceSpan(NamedTuple):
    """Two events on a GPU, before and after a step."""

    start: Any
    end: Any

    def read_seconds(self) -> float:
        """Seconds between them; waits until the second has happened."""
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1000


Cost = float | DeviceSpan


class StepWatch:
    """Measures one step after another; what happens between `stop` and the next `start` is left out.

    On a CPU the cost of a step is the processor time of all threads of this process and of its loader workers; on a GPU
    it is the time from the step's first work on the device to its last. Elsewhere it is NaN. Nothing here waits.
    """

    def __init__(self, device: torch.device, *, workers: int = 0) -> None:
        self.device, self.workers = device, workers
        self.started, self.mark = 0.0, math.nan

    @property
    def kind(self) -> str | None:
        """What the costs are."""
        return {"cpu": "processor", "cuda": "device"}.get(self.device.type)

    def start(self) -> None:
        self.started, self.mark = time.perf_counter(), self._read()

    def stop(self) -> tuple[float, Cost]:
        """Seconds since `start`, and the cost."""
        now = self._read()
        cost = DeviceSpan(self.mark, now) if self.kind == "device" else now - self.mark
        return time.perf_counter() - self.started, cost

    def _read(self) -> Any:
        if self.kind == "device":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        if self.kind == "processor":
            return time.process_time() + (read_children_seconds() if self.workers else 0.0)
        return math.nan


def read_children_seconds() -> float:
    """Processor seconds of this process's children, ended or running; of running ones on Linux only."""
    ended = os.times()
    return ended.children_user + ended.children_system + sum(map(_read_child, multiprocessing.active_children()))


def _read_child(child: Any) -> float:
    try:
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended, or this is no Linux
        return 0.0
    return sum(map(int, fields[STAT_TIMES])) / os.sysconf("SC_CLK_TCK")


class Timed(NamedTuple):
    """One step."""

    seconds: float
    cost: Cost
    counts: bool  # in the pace: no step that compiles or is diagnosed, and not a process's first one


class Line(NamedTuple):
    """What a step took, on average, since the log's line before."""

    seconds: float
    cost: float  # NaN where it is not known
    steps: int = 1
    phase: str = ""  # of the method, in which all of these steps lie


class StepTimer:
    """The pace of each log line, without slow steps; and sums over the run.

    Slow are a process's first step, those that compile, and those that are slow for another reason.
    """

    def __init__(self, kind: str | None = None) -> None:
        """`kind` is `StepWatch.kind`: what the costs are."""
        self.kind = kind
        self.steps: list[Timed] = []  # since the last line
        self.compiling_steps: list[float] = []  # seconds of those of the whole run
        self.lines: list[Line] = []
        self.seconds = self.cost = 0.0  # of all steps up to the last line; NaN where an older version trained some
        self.is_first_step = True

    def add(self, seconds: float, cost: Cost = math.nan, *, compiled: bool, slow: bool = False) -> None:
        """Adds one step."""
        self.steps.append(Timed(seconds, cost, counts=not (compiled or slow or self.is_first_step)))
        if compiled:
            self.compiling_steps.append(seconds)
        self.is_first_step = False

    def flush(self, phase: str = "") -> float:
        """Seconds per step since the last line, of slow steps if there are no others; then starts over."""
        steps = self._read_steps()
        counted = [step for step in steps if step.counts] or steps
        known = [step.cost for step in counted if not math.isnan(step.cost)]
        cost = sum(known) / len(known) if known else math.nan
        self.lines.append(Line(sum(step.seconds for step in counted) / len(counted), cost, len(steps), phase))
        self.seconds += sum(step.seconds for step in steps)
        self.cost += sum(step.cost for step in steps)
        self.steps = []
        return self.lines[-1].seconds

    def _read_steps(self) -> list[Timed]:
        """The steps since the last line, with their costs in seconds; waits for a GPU."""
        costs = [step.cost.read_seconds() if isinstance(step.cost, DeviceSpan) else step.cost for step in self.steps]
        self.steps = [step._replace(cost=cost) for step, cost in zip(self.steps, costs, strict=True)]
        return self.steps

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": [list(step) for step in self._read_steps()],
            "compiling": self.compiling_steps,
            "lines": [list(line) for line in self.lines],
            "seconds": self.seconds,
            "cost": self.cost,
            "kind": self.kind,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state_dict`. Where another version or another kind of device began the run, its costs and
        seconds are unknown."""
        self.lines = [Line(*line) for line in state["lines"]] if "lines" in state else _read_paces(**state)
        self.compiling_steps, self.steps = list(state["compiling"]), [Timed(*step) for step in state["steps"]]
        self.seconds, self.cost = state["seconds"], state["cost"]
        if state["kind"] != self.kind:
            self.cost, self.lines = math.nan, [line._replace(cost=math.nan) for line in self.lines]
            self.steps = [step._replace(cost=math.nan) for step in self.steps]

    def load_older_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what versions without costs wrote; the first of them knew no slow steps."""
        slow = state.get("slow", [])
        self.steps = [Timed(seconds, math.nan, counts=seconds not in slow) for seconds in state["window"]]
        self.lines, self.compiling_steps = _read_paces(state["paces"]), list(state.get("compiling", []))
        self.seconds = self.cost = math.nan

    @property
    def seconds_per_step(self) -> float:
        """The median over the lines; NaN before the first. Of several phases the mean, by their steps."""
        return self._average("seconds")

    @property
    def cost_per_step(self) -> float:
        """The same over the lines whose cost is known."""
        return self._average("cost")

    def _average(self, field: str) -> float:
        known = [line for line in self.lines if not math.isnan(getattr(line, field))]
        total = sum(line.steps for line in known)
        phases = [
            [line for line in known if line.phase == phase] for phase in dict.fromkeys(line.phase for line in known)
        ]
        medians = [statistics.median(getattr(line, field) for line in lines) for lines in phases]
        shares = [sum(line.steps for line in lines) / total for lines in phases]
        return sum(map(operator.mul, shares, medians), start=0.0) if known else math.nan

    def describe(self) -> dict[str, float | None]:
        """What the run's record of its end says of the cost; None for what is not known."""
        return {
            "train_seconds": none_if_nan(self.seconds),
            "processor_seconds": none_if_nan(self.cost) if self.kind == "processor" else None,
            "device_seconds": none_if_nan(self.cost) if self.kind == "device" else None,
            "cost_per_step": none_if_nan(self.cost_per_step),
        }

    @property
    def compile_seconds(self) -> float:
        """How much longer the steps that compiled took than usual ones."""
        return sum((max(seconds - self.seconds_per_step, 0.0) for seconds in self.compiling_steps), start=0.0)


def _read_paces(paces: Sequence[float], costs: Sequence[float] = (), **_: Any) -> list[Line]:
    """Lines as older versions kept them: seconds of all, and costs of the last of them."""
    unknown = [math.nan] * (len(paces) - len(costs))
    return [*map(Line, paces, [*unknown, *costs])]


def none_if_nan(value: float) -> float | None:
    """The value, None for NaN."""
    return None if math.isnan(value) else value
