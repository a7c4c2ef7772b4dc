"""What a person sees while a network trains: a live display in a terminal, plain lines elsewhere, a log file always."""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ..runs.folder import Run
from ..runs.records import EpochRecord, Record, TrainRecord, WarningRecord
from ..training.callbacks import Watch


def console() -> Any:
    """A rich console: as wide as the terminal, or 160 columns where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


class LogFile(Watch):
    """Every record as a line of the run's train.log, and below a segmenter's scores the IoU of each class."""

    def __init__(self, run: Run, classes: Sequence[str] = ()) -> None:
        self.run, self.classes = run, classes

    def logged(self, record: Record) -> None:
        self.run.log(record.sentence())
        shares = getattr(getattr(record, "scores", None), "iou", None)
        if shares is not None:
            named = zip(self.classes, shares, strict=True)
            self.run.log("IoU: " + "  ".join(f"{name} {'-' if iou != iou else f'{iou:.1%}'}" for name, iou in named))


class Lines(Watch):
    """Plain lines: every epoch's losses and scores, and between them the losses every few seconds."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self.every, self.shown, self.waiting = every_seconds, 0.0, ""

    def logged(self, record: Record) -> None:
        if isinstance(record, WarningRecord):
            return
        if isinstance(record, TrainRecord) and time.monotonic() - self.shown < self.every:
            self.waiting = record.sentence()
            return
        if isinstance(record, EpochRecord) and self.waiting:
            print(self.waiting)
        print(record.sentence(), flush=True)
        self.shown, self.waiting = time.monotonic(), ""

    def warned(self, sentence: str) -> None:
        print(f"warning: {sentence}", file=sys.stderr, flush=True)


class Live(Watch):
    """A progress bar with epoch, step and time left; below it every loss term and the accuracies; redrawn in place."""

    def __init__(self, title: str) -> None:
        from rich.live import Live as Screen
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        self.title, self.losses, self.scores = title, "", ""
        self.steps_per_epoch = 1
        text, times = TextColumn("{task.description}"), [TimeElapsedColumn(), TextColumn("left"), Left()]
        self.progress = Progress(text, BarColumn(24), MofNCompleteColumn(), TextColumn("steps"), *times)
        self.screen = Screen(get_renderable=self.view, refresh_per_second=4)

    def view(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        return Group(self.progress, *(Text(line) for line in (self.losses, self.scores) if line))

    def started(self, *, first_step: int, last_step: int, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.bar = self.progress.add_task(self.title, total=last_step, completed=first_step)
        self.screen.start()

    def stepped(self, step: int) -> None:
        epoch = -(-step // self.steps_per_epoch)
        self.progress.update(self.bar, completed=step, description=f"{self.title}  epoch {epoch}")

    def logged(self, record: Record) -> None:
        if isinstance(record, TrainRecord):
            self.losses = record.sentence()
        elif getattr(record, "scores", None) is not None:
            self.scores = record.sentence()

    def warned(self, sentence: str) -> None:
        self.screen.console.print(f"[yellow]warning:[/] {sentence}", highlight=False)

    def ended(self) -> None:
        self.screen.stop()


class Several(Watch):
    """Tells each of several watches."""

    def __init__(self, watches: Iterable[Watch]) -> None:
        self.watches = list(watches)

    def started(self, **numbers: int) -> None:
        for watch in self.watches:
            watch.started(**numbers)

    def stepped(self, step: int) -> None:
        for watch in self.watches:
            watch.stepped(step)

    def logged(self, record: Record) -> None:
        for watch in self.watches:
            watch.logged(record)

    def warned(self, sentence: str) -> None:
        for watch in self.watches:
            watch.warned(sentence)

    def ended(self) -> None:
        for watch in self.watches:
            watch.ended()
