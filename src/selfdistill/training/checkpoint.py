"""Checkpoints: what they hold, and the callback that writes them."""

import time
from collections.abc import Mapping
from typing import Any

from ..distributed import is_first_process
from ..method import Method
from ..runs.folder import Run
from ..runs.student import StudentCard, save_student
from .callbacks import Callback
from .state import TrainState

FORMAT = 1
SAVE_SECONDS = 30  # an epoch that ends sooner after the last save is not saved, the first, best and last ones aside


def save_state(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds: everything that the rest of the run depends on."""
    return {
        "format": FORMAT,
        "epoch": state.epoch,
        "step": state.step,
        "step_in_epoch": state.step_in_epoch,
        "best": state.best_score,
        "method": state.method.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
        "ema": None if state.ema is None else state.ema.state_dict(),
        "meter": state.meter.state_dict(),
        **state.timer.state_dict(),
    }


def load_method(method: Method, checkpoint: Mapping[str, Any]) -> None:
    """Loads the weights of a method, training-only parts included."""
    method.load_state_dict(checkpoint["method"])


def load_state(state: TrainState, checkpoint: Mapping[str, Any]) -> None:
    """Puts a checkpoint into `state`; raises `ValueError` for one of another format."""
    if checkpoint.get("format") != FORMAT:
        raise ValueError(
            f"the checkpoint has format {checkpoint.get('format')}, and this selfdistill reads format {FORMAT}; "
            "resume the run with the version that wrote it, or start it anew"
        )
    load_method(state.method, checkpoint)
    state.optimizer.load_state_dict(checkpoint["optimizer"])
    if state.ema is not None:
        state.ema.load_state_dict(checkpoint["ema"])
    if state.scaler is not None and checkpoint["scaler"]:
        state.scaler.load_state_dict(checkpoint["scaler"])
    state.meter.load_state_dict(checkpoint["meter"], state.device, keep=is_first_process())
    state.timer.load_state_dict(checkpoint)
    state.epoch, state.step = checkpoint["epoch"], checkpoint["step"]
    state.step_in_epoch, state.best_score = checkpoint["step_in_epoch"], checkpoint["best"]


class Checkpointer(Callback):
    """Writes last.pt, best.pt and the student: after epochs, every so many minutes, and when a signal stops the run."""

    def __init__(self, run: Run, card: StudentCard, *, minutes: float) -> None:
        self.run, self.card, self.seconds = run, card, 60 * minutes
        self.saved_at = 0.0

    def on_start(self, state: TrainState) -> None:
        self.saved_at = time.monotonic()

    def on_step(self, state: TrainState) -> None:
        # The last step is saved after it was scored: a run resumed from here would have nothing left to score.
        if state.step < state.last_step and state.is_collected and time.monotonic() - self.saved_at > self.seconds:
            self.save(state)

    def on_epoch_end(self, state: TrainState) -> None:
        at_either_end = state.epochs_begun == 1 or state.step == state.last_step
        if state.is_best or at_either_end or time.monotonic() - self.saved_at > SAVE_SECONDS:
            self.save_student(state)
            self.save(state)

    def on_interrupt(self, state: TrainState) -> None:
        self.save(state)

    def save(self, state: TrainState) -> None:
        """Writes best.pt first: a run killed between the two trains the epoch again, and writes both."""
        checkpoint = {**save_state(state), "log_bytes": self.run.log_bytes()}
        if state.is_best:
            self.run.save_checkpoint(checkpoint, "best")
        self.run.save_checkpoint(checkpoint, "last")
        self.saved_at = time.monotonic()

    def save_student(self, state: TrainState) -> None:
        """Writes the network that ships, and the card that describes it."""
        progress = {
            "weights": "student" if state.ema is None else "ema",
            "epoch": state.epochs_begun,
            "step": state.step,
            "scores": None if state.scores is None else state.scores._asdict(),
        }
        save_student(self.run, state.shipped.state_dict(), self.card.model_copy(update=progress))
