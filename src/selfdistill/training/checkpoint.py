"""Checkpoints: what they hold, and the callback that writes them."""

import time
from collections.abc import Mapping
from typing import Any

from ..config.recipe import Recipe
from ..distributed import is_first_process
from ..errors import one_line
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
    """Loads the weights of a method, training-only parts included; raises `ValueError` for those of another one."""
    try:
        method.load_state_dict(checkpoint["method"])
    except (RuntimeError, KeyError) as error:
        problem = " ".join(str(error).split()).removeprefix("Error(s) in loading state_dict for ")[:200]
        raise ValueError(
            f"the checkpoint is one of another network or method ({problem}); start a new run, or resume with the "
            "network that it was made with"
        ) from error


def load_state(state: TrainState, checkpoint: Mapping[str, Any]) -> None:
    """Puts a checkpoint into `state`; raises `ValueError` for one of another format or network."""
    if checkpoint.get("format") != FORMAT:
        raise ValueError(
            f"the checkpoint has format {checkpoint.get('format')}, and this selfdistill reads format {FORMAT}; "
            "resume the run with the version that wrote it, or start it anew"
        )
    load_method(state.method, checkpoint)
    try:
        state.optimizer.load_state_dict(checkpoint["optimizer"])
        if state.ema is not None:
            state.ema.load_state_dict(checkpoint["ema"])
        if state.scaler is not None and checkpoint["scaler"]:
            state.scaler.load_state_dict(checkpoint["scaler"])
        state.meter.load_state_dict(checkpoint["meter"], state.device, keep=is_first_process())
        state.timer.load_state_dict(checkpoint)
        state.epoch, state.step = checkpoint["epoch"], checkpoint["step"]
        state.step_in_epoch, state.best_score = checkpoint["step_in_epoch"], checkpoint["best"]
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the checkpoint does not fit this run's optimizer or average ({one_line(error)}); start the run anew"
        ) from error


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """The settings that must not change when a run goes on, as plain data by name."""
    stops_early = {"max_steps"} if recipe.epochs is not None else set()
    return recipe.flatten(exclude={"machine", "out", *stops_early})


def refuse_other_recipe(recipe: Recipe, checkpoint: Mapping[str, Any], run: Run) -> None:
    """Raises `ValueError` where a checkpoint was made under another recipe, as after an edit of recipe.yaml."""
    now = describe_recipe(recipe)
    for name, value in checkpoint.get("recipe", {}).items():  # checkpoints before 0.2 hold none
        if now.get(name) != value:
            raise ValueError(
                f"{run.path / 'recipe.yaml'} says {name}={now.get(name)}, and the run was trained with {name}={value}; "
                "set it back, or start a new run"
            )


class Checkpointer(Callback):
    """Writes checkpoints and the student: after epochs, every so many minutes, and when a signal stops the run."""

    def __init__(self, run: Run, card: StudentCard, recipe: Recipe) -> None:
        self.run, self.card, self.recipe = run, card, recipe
        self.seconds = 60 * recipe.machine.checkpoint_minutes
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
            self.save_student(state)  # first: a run killed between the two trains the epoch again, and writes both
            self.save(state)
        can_go_on = self.recipe.epochs is not None and self.recipe.max_steps is not None
        if state.step == state.last_step and not can_go_on:
            self.run.forget_checkpoint_before_last()

    def on_interrupt(self, state: TrainState) -> None:
        self.save(state)

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint."""
        about = {"recipe": describe_recipe(self.recipe), "log_bytes": self.run.log_bytes()}
        self.run.save_checkpoint({**save_state(state), **about})
        self.saved_at = time.monotonic()

    def save_student(self, state: TrainState) -> None:
        """Writes the network that ships, and the card that describes it; twice if it is the best so far."""
        progress = {
            "weights": "student" if state.ema is None else "ema",
            "epoch": state.epochs_begun,
            "step": state.step,
            "scores": None if state.scores is None else state.scores._asdict(),
        }
        weights, card = state.shipped.state_dict(), self.card.model_copy(update=progress)
        save_student(self.run, weights, card)
        if state.is_best:
            save_student(self.run, weights, card, name="best")
