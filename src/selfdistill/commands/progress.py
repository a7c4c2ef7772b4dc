"""What a person sees while a network trains: a live display in a terminal, plain lines elsewhere."""

import time
from typing import Any

from ..errors import escape_controls
from ..runs.records import EpochRecord, Record, TrainRecord, WarningRecord
from ..training.callbacks import Callback
from ..training.state import TrainState
from .console import say, tell


class PlainProgress(Callback):
    """Prints lines: every epoch's losses and scores, and between them the losses every few seconds."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self.every_seconds = every_seconds
        self.printed_at = 0.0
        self.waiting = ""  # the newest line of losses, if it is not printed

    def on_log(self, state: TrainState, record: Record) -> None:
        if isinstance(record, WarningRecord):
            tell(f"warning: step {record.step}: {record.text}")
            return
        if isinstance(record, TrainRecord) and time.monotonic() - self.printed_at < self.every_seconds:
            self.waiting = record.sentence()
            return
        if isinstance(record, EpochRecord) and self.waiting:
            say(self.waiting)
        say(record.sentence())
        self.printed_at, self.waiting = time.monotonic(), ""


class RichProgress(Callback):
    """Draws a progress bar with epoch, step and time left, and below it the loss terms and the scores."""

    def __init__(self, title: str) -> None:
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.title, self.losses, self.scores = title, "", ""
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
        """The bar, and below it the lines that are not empty."""
        from rich.console import Group
        from rich.text import Text

        return Group(self.progress, *(Text(escape_controls(line)) for line in (self.losses, self.scores) if line))

    def on_start(self, state: TrainState) -> None:
        self.bar = self.progress.add_task(self.title, total=state.last_step, completed=state.step)
        self.display.start()

    def on_step(self, state: TrainState) -> None:
        epoch = -(-state.step // state.steps_per_epoch)
        self.progress.update(self.bar, completed=state.step, description=f"{self.title}  epoch {epoch}")

    def on_log(self, state: TrainState, record: Record) -> None:
        from rich.text import Text

        if isinstance(record, WarningRecord):
            warning = Text.assemble(("warning:", "yellow"), escape_controls(f" step {record.step}: {record.text}"))
            self.display.console.print(warning)
        elif isinstance(record, TrainRecord):
            self.losses = record.sentence()
        elif getattr(record, "scores", None) is not None:
            self.scores = record.sentence()

    def on_end(self, state: TrainState) -> None:
        self.display.stop()
