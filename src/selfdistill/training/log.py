"""What a run tells its callbacks: records, warnings, and what happens."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..runs.files import make_folders
from ..runs.folder import Run
from ..runs.records import Record, TrainRecord, WarningRecord
from .callbacks import Callback, MetricsWriter, TrainLogWriter
from .checkpoint import Checkpointer
from .experiment import Experiment
from .meters import Means, check_losses
from .state import TrainState
from .trackers import TRACKED, Trackers


class RunLog:
    """Passes everything on to the callbacks, in their order."""

    def __init__(self, state: TrainState, callbacks: Sequence[Callback]) -> None:
        self.state, self.callbacks = state, callbacks
        self.warned: set[str] = set()

    def notify(self, event: str, *values: Any) -> None:
        """Calls one method of every callback."""
        for callback in self.callbacks:
            getattr(callback, event)(self.state, *values)

    def add(self, record: Record) -> None:
        self.notify("on_log", record)

    def add_means(self, means: Means, *, lr: float, in_warmup: bool) -> None:
        """Logs the means since the last such record, and warns of terms that cannot be right."""
        state = self.state
        self.add(
            TrainRecord(
                epoch=state.epoch + 1,
                step=state.step,
                lr=lr,
                seconds_per_step=state.timer.flush(state.method.phase),
                **means._asdict(),
            )
        )
        for key, sentence in check_losses(means.losses, in_warmup=in_warmup):
            self.warn(key, sentence)

    def warn_at_end(self) -> None:
        """Warns of an own teacher that was no better than the student, and of terms that did not help."""
        state = self.state
        if state.method.learns_from_own_teacher:
            self.warn("teacher", state.meter.describe_teacher(), epoch=state.epochs_begun)
        for key, sentence in state.gradients.describe():
            self.warn(key, sentence, epoch=state.epochs_begun)

    def warn(self, key: str, sentence: str | None, *, epoch: int | None = None) -> None:
        """Logs a warning, if there is one, once for each key; of the epoch in progress where none is given."""
        if sentence is not None and key not in self.warned:
            self.warned.add(key)
            self.add(WarningRecord(epoch=epoch or self.state.epoch + 1, step=self.state.step, text=sentence))


def create_writers(experiment: Experiment, run: Run | None, accelerator: Any) -> Iterator[Callback]:
    """The callbacks that write the run folder, if there is one, and the trackers."""
    machine = experiment.recipe.machine
    if run is not None:
        assert experiment.card is not None
        yield MetricsWriter(run)
        yield TrainLogWriter(run, experiment.card.classes)
        yield Checkpointer(run, experiment)
    if machine.track:
        if run is not None:
            make_folders(run.path, TRACKED)
        yield Trackers(accelerator, experiment.recipe, run)
