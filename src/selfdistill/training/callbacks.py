"""Callbacks: `fit` calls them while a network trains. The logs are written by callbacks too."""

from ..runs.folder import Run
from ..runs.records import Record
from .state import TrainState


class Callback:
    """What `fit` calls while it trains; override the methods that you need.

    `state` is to be read: `state.step`, `state.method`, `state.scores` and so on. Callbacks are called in order, first
    those that write the run folder. Every process calls them, so a callback that writes must do so in one process only.

    An exception ends the training at once. The run folder stays whole and can be resumed, as after a kill.
    """

    def on_start(self, state: TrainState) -> None:
        """Before the first step, after a checkpoint was loaded."""

    def on_step(self, state: TrainState) -> None:
        """After each optimizer step."""

    def on_log(self, state: TrainState, record: Record) -> None:
        """For each record of metrics.jsonl: losses at least every 50 steps, scores, warnings, the end."""

    def on_epoch_end(self, state: TrainState) -> None:
        """At the end of an epoch, or of the run in the middle of one, after the student was scored if that was due."""

    def on_interrupt(self, state: TrainState) -> None:
        """When a signal stops the run; `Interrupted` is raised next."""

    def on_end(self, state: TrainState) -> None:
        """When `fit` ends, even by an error; close files and displays here."""


class MetricsWriter(Callback):
    """Writes metrics.jsonl."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_log(self, state: TrainState, record: Record) -> None:
        self.run.append(record)


class TrainLogWriter(Callback):
    """Writes every record as a line of train.log, and below a segmenter's scores the IoU of each class."""

    def __init__(self, run: Run, classes: tuple[str, ...]) -> None:
        self.run, self.classes = run, classes

    def on_log(self, state: TrainState, record: Record) -> None:
        self.run.log(record.sentence())
        class_ious = getattr(getattr(record, "scores", None), "iou", None)
        if class_ious is not None:
            named = zip(self.classes, class_ious, strict=True)
            self.run.log("IoU: " + "  ".join(f"{name} {'-' if iou != iou else f'{iou:.1%}'}" for name, iou in named))
