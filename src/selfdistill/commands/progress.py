"""What a person sees while a network trains: a live display in a terminal, plain lines elsewhere."""

import itertools
import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..distributed import is_first_process
from ..errors import count_of, escape_controls
from ..report.elements import Element, element
from ..runs.records import EpochRecord, GradientRecord, Record, TrainRecord, WarningRecord
from ..training.callbacks import Callback
from ..training.profile import count_method_parameters
from ..training.state import TrainState
from .console import is_quiet, say, tell

MEASURED_STEPS = 10  # after so many steps, of each phase of the method, the time left is told
BARS, SPARKS = "▁▂▃▄▅▆▇█", 32  # of a sparkline: its bars from low to high, and how many at most
EXPENSIVE = 2.5  # times a plain student's step, from which on a cheaper setting is named


def describe_plan(state: TrainState) -> str:
    """What a run will do, before its first step."""
    steps = count_of(max(0, state.last_step - state.step), "step")  # a run may be stopped before where it is
    epochs = count_of(-(-state.last_step // state.steps_per_epoch), "epoch")
    parameters = count_method_parameters(state.method)
    student, training_only = (f"{count:,}" for count in parameters.values())
    return f"{steps} to go, up to {epochs}; parameters: {student} of the student, {training_only} for training only"


def describe_cost(state: TrainState) -> str | None:
    """How much longer a step takes than the student's alone; None where it does not, or where this is not known."""
    if state.slowdown is None or state.slowdown < 1.05:
        return None
    cheaper = [f"method.{setting}" for setting in state.method.list_cheaper_settings()]
    advice = f"; {' or '.join(cheaper)} makes it cheaper" if cheaper and state.slowdown >= EXPENSIVE else ""
    until = "" if state.phase_end == state.last_step else f" up to step {state.phase_end}"
    return f"a training step takes {state.slowdown:.1f} times as long as one of the student alone{until}{advice}"


def describe_time_left(state: TrainState, seconds_per_step: float) -> str:
    """When training will end, or this phase of it, evaluation aside."""
    left = (state.phase_end - state.step) * seconds_per_step
    amount, unit = (left / 3600, "h") if left > 5400 else (left / 60, "min") if left > 120 else (left, "s")
    pace = f"{1000 * seconds_per_step:.0f} ms/step"
    end = "of training left" if state.phase_end == state.last_step else f"to step {state.phase_end}, where steps change"
    return f"step {state.step} of {state.last_step}  {pace}  about {max(amount, 1):.0f} {unit} {end}"


def draw_sparkline(values: Sequence[float], width: int = SPARKS) -> str:
    """Bars from the lowest to the highest of the values; each is the mean of as many as fit, and a gap is not finite.

    >>> draw_sparkline([1.0, 2.0, math.nan, 8.0]), draw_sparkline([1.0, 1.0]), draw_sparkline([0.0, 2.0, 9.0], width=2)
    ('▁▂ █', '▄▄', '▁█')
    """
    size = -(-len(values) // width) or 1
    groups = [values[max(end - size, 0) : end] for end in range(len(values), 0, -size)][::-1]
    means = [sum(group) / len(group) for group in groups]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, span = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    return "".join(
        " " if not math.isfinite(mean) else BARS[round((mean - low) / span * 7)] if span else BARS[3] for mean in means
    )


class PlainProgress(Callback):
    """Prints what a run will cost, the time left, every epoch's losses and scores, and losses every few seconds."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self.every_seconds = every_seconds
        self.printed_at = 0.0
        self.waiting = ""  # the newest line of losses, if it is not printed
        self.cost_told_for, self.phase_end = 0, 0  # ends of phases
        self.times: list[float] = []  # at the ends of the first steps of a phase

    def on_start(self, state: TrainState) -> None:
        tell(describe_plan(state))

    def on_step(self, state: TrainState) -> None:
        if state.phase_end != self.phase_end:
            self.phase_end, self.times = state.phase_end, []
        if self.cost_told_for != state.phase_end and (cost := describe_cost(state)):
            tell(cost)
            self.cost_told_for = state.phase_end
        if len(self.times) < MEASURED_STEPS:
            self.times.append(time.monotonic())
            if len(self.times) == MEASURED_STEPS and state.step < state.phase_end:
                steps = [end - start for start, end in itertools.pairwise(self.times)]
                say(describe_time_left(state, statistics.median(steps)))  # some may have compiled

    def on_log(self, state: TrainState, record: Record) -> None:
        if isinstance(record, WarningRecord):
            tell(f"warning: step {record.step}: {record.text}")
            return
        if isinstance(record, GradientRecord):  # train.log has them, and the end of the run says what they mean
            return
        if isinstance(record, TrainRecord) and time.monotonic() - self.printed_at < self.every_seconds:
            self.waiting = record.sentence()
            return
        if isinstance(record, EpochRecord) and self.waiting:
            say(self.waiting)
        say(record.sentence())
        self.printed_at, self.waiting = time.monotonic(), ""


def choose_progress(title: str) -> list[Callback]:
    """What shows a run: a block in a notebook, a live display in a terminal, else plain lines; nothing where quiet."""
    if not is_first_process() or is_quiet():
        return []
    if is_in_notebook():
        return [NotebookProgress(title)]
    return [RichProgress(title) if sys.stdout.isatty() else PlainProgress()]


def is_in_notebook() -> bool:
    """Whether a Jupyter kernel runs this program, which shows HTML and replaces what it has shown."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class NotebookProgress(Callback):
    """One block below the cell: how far the run is, each loss term with its course, and the last scores."""

    def __init__(self, title: str, every_seconds: float = 0.5) -> None:
        self.title, self.every_seconds = title, every_seconds
        self.history: dict[str, list[float]] = {}  # by loss term and score
        self.notes: list[str] = []  # what is kept in sight
        self.scores, self.shown_at, self.handle = "", 0.0, None

    def on_start(self, state: TrainState) -> None:
        self.notes.append(describe_plan(state))
        display = sys.modules["IPython.display"].display  # which the kernel has imported
        self.handle = display({"text/plain": self.title}, raw=True, display_id=True)

    def on_step(self, state: TrainState) -> None:
        if time.monotonic() - self.shown_at >= self.every_seconds:
            self.show(state)

    def on_log(self, state: TrainState, record: Record) -> None:
        if isinstance(record, WarningRecord):
            self.notes.append(f"warning: step {record.step}: {record.text}")
        elif isinstance(record, TrainRecord):
            for name, value in {**record.losses, "accuracy": record.accuracy}.items():
                self.history.setdefault(name, []).append(value)
        elif getattr(record, "scores", None) is not None:
            self.scores = record.sentence()

    def on_end(self, state: TrainState) -> None:
        self.show(state)

    def show(self, state: TrainState) -> None:
        """Replaces what was shown."""
        self.shown_at = time.monotonic()
        if self.handle is not None:
            bundle = {"text/plain": self.describe(state), "text/html": str(self.draw(state))}
            self.handle.update(bundle, raw=True)

    def describe(self, state: TrainState) -> str:
        return f"{self.title}: step {state.step} of {state.last_step}"

    def draw(self, state: TrainState) -> Element:
        rows = [
            element(
                "tr", element("td", name), element("td", f"{values[-1]:.4g}"), element("td", draw_sparkline(values))
            )
            for name, values in self.history.items()
        ]
        lines = [*self.notes, *([self.scores] if self.scores else [])]
        return element(
            "div",
            element("progress", value=state.step, max=state.last_step),
            f" {self.describe(state)}",
            element("table", rows),
            [element("div", line) for line in lines],
        )


class RichProgress(Callback):
    """Draws a bar with epoch, step and time left; below it each loss term, accuracy and scores, with their course."""

    def __init__(self, title: str) -> None:
        from rich import get_console
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.title, self.cost_told_for = title, 0  # the end of a phase
        self.can_draw = get_console().encoding.startswith("utf")
        self.history: dict[str, list[float]] = {}  # by loss term and score
        self.pace, self.scores, self.best = "", "", ""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.display = Live(get_renderable=self.view, refresh_per_second=4)

    def view(self) -> Any:
        """The bar, a row for each loss term and score with its last value and its course, and the last scores."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 2))
        for name, values in self.history.items():
            course = draw_sparkline(values) if self.can_draw else ""
            rows.add_row(Text(escape_controls(name)), f"{values[-1]:.4g}", course)
        lines = [line for line in (self.pace, self.scores, self.best) if line]
        return Group(self.progress, rows, *(Text(escape_controls(line)) for line in lines))

    def on_start(self, state: TrainState) -> None:
        tell(describe_plan(state))
        self.bar = self.progress.add_task(self.title, total=state.last_step, completed=state.step)
        self.display.start()

    def on_step(self, state: TrainState) -> None:
        epoch = -(-state.step // state.steps_per_epoch)
        if self.cost_told_for != state.phase_end and (cost := describe_cost(state)):
            self.display.console.print(cost, highlight=False, markup=False)
            self.cost_told_for = state.phase_end
        self.progress.update(self.bar, completed=state.step, description=f"{self.title}  epoch {epoch}")

    def on_log(self, state: TrainState, record: Record) -> None:
        from rich.text import Text

        if isinstance(record, WarningRecord):
            warning = Text.assemble(("warning:", "yellow"), escape_controls(f" step {record.step}: {record.text}"))
            self.display.console.print(warning)
        elif isinstance(record, TrainRecord):
            self.pace = f"lr {record.lr:.3g}  {1000 * record.seconds_per_step:.0f} ms/step"
            teacher = record.self_teacher_accuracy
            own_teacher = {} if teacher is None else {"self-teacher accuracy": teacher}
            self.remember({**record.losses, "accuracy": record.accuracy, **own_teacher})
        elif getattr(record, "scores", None) is not None:
            self.scores = record.sentence()
            if isinstance(record, EpochRecord):
                self.remember_scores(record)

    def remember_scores(self, record: EpochRecord) -> None:
        """Adds an epoch's main score, and notes the best one; it is shown only: nothing is chosen by it."""
        name = f"{record.split} score"
        self.remember({name: record.scores.main})
        values = self.history[name]
        if values[-1] >= max(values):
            self.best = f"best so far {values[-1]:.4g}, after epoch {record.epoch}"

    def remember(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

    def on_end(self, state: TrainState) -> None:
        self.display.stop()
