"""Checkpoints: what they hold, and the callback that writes them."""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ..config.overrides import write_word
from ..config.recipe import Recipe
from ..distributed import is_first_process
from ..errors import flatten_message, one_line
from ..method import Method
from ..runs.folder import Run
from ..runs.student import save_student
from .callbacks import Callback
from .experiment import Experiment
from .state import TrainState

FORMAT = 1
OLDER_NAMES = {"task.criterion": "task.loss"}  # of settings, in checkpoints
FREE = ("out", "data.download", "data.root", "student.pretrained", "student.start")  # may change when a run goes on
SAVE_SECONDS = 30  # an epoch that ends sooner after the last save is not saved, the first, best and last ones aside


def save_state(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds: everything that the rest of the run depends on."""
    return {
        "format": FORMAT,
        "epoch": state.epoch,
        "step": state.step,
        "step_in_epoch": state.step_in_epoch,
        "best": state.best_score,
        "since_best": state.since_best,
        "method": state.method.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
        "ema": None if state.ema is None else state.ema.state_dict(),
        "meter": state.meter.state_dict(),
        "gradients": state.gradients.state_dict(),
        "timer": state.timer.state_dict(),
        "eval_seconds": state.eval_seconds,
    }


def leave_out(checkpoint: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """A checkpoint without the buffers `names` of its method; None if there are none."""
    if not names:
        return None
    kept = copy.copy(checkpoint["method"])  # with its versions of modules
    for name in names:
        del kept[name]
    return {**checkpoint, "method": kept, "left_out": list(names)}


def load_method(method: Method, checkpoint: Mapping[str, Any]) -> None:
    """Loads the weights of a method, training-only parts included; raises `ValueError` for those of another one.

    Tables of what it remembers take the precision that the checkpoint has; those that it leaves out begin anew.
    """
    try:
        weights = copy.copy(checkpoint["method"])
        for name in method.remembered:
            table = getattr(method, name)
            if name in checkpoint.get("left_out", ()):
                weights[name] = torch.zeros_like(table)
            elif weights[name].dtype in (torch.float16, torch.float32):
                setattr(method, name, table.to(weights[name].dtype))
        method.load_state_dict(weights)
    except (RuntimeError, KeyError, AttributeError) as error:
        problem = flatten_message(error).removeprefix("Error(s) in loading state_dict for ")[:200]
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
        if "gradients" in checkpoint:
            state.gradients.load_state_dict(checkpoint["gradients"])
        if "timer" in checkpoint:
            state.timer.load_state_dict(checkpoint["timer"])
        else:
            state.timer.load_older_state(checkpoint)
        state.eval_seconds = checkpoint.get("eval_seconds", math.nan)
        state.epoch, state.step = checkpoint["epoch"], checkpoint["step"]
        state.step_in_epoch, state.best_score = checkpoint["step_in_epoch"], checkpoint["best"]
        state.since_best = checkpoint.get("since_best", 0)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the checkpoint does not fit this run's optimizer or average ({one_line(error)}); start the run anew"
        ) from error


def describe_origin(experiment: Experiment) -> dict[str, Any]:
    """What must not change when a run goes on: the settings, as plain data by name, and the images."""
    return {"recipe": experiment.recipe.flatten(), "images": dict(experiment.fingerprint)}


def lock_run(run: Run | None) -> AbstractContextManager[None]:
    """A block in which other trainings do not write the run folder, if there is one; its first process locks it."""
    return run.lock() if run is not None and is_first_process() else nullcontext()


def refuse_edited_recipe(run: Run) -> None:
    """Raises `ValueError` where recipe.yaml was edited or cut under its checkpoint; builds nothing."""
    if run.has_checkpoint:
        checkpoint, _ = run.load_whole_checkpoint()
        recipe = run.recipe(trust=True)
        stored = checkpoint.get("recipe", {})
        written = {name: value for name, value in recipe.flatten().items() if name in stored}
        _refuse_changes(recipe, {**stored, **written}, checkpoint, run, free={"data.source", "data.val"})


def refuse_other_recipe(experiment: Experiment, checkpoint: Mapping[str, Any], run: Run) -> None:
    """Raises `ValueError` where a checkpoint was made under another recipe."""
    has_same_images = checkpoint.get("images") == dict(experiment.fingerprint)
    free = {"data.source", "data.val"} if has_same_images else set()  # the images may have moved
    _refuse_changes(experiment.recipe, experiment.recipe.flatten(), checkpoint, run, free=free)


def _refuse_changes(
    recipe: Recipe, settings: Mapping[str, Any], checkpoint: Mapping[str, Any], run: Run, *, free: set[str]
) -> None:
    free = {*FREE, *free, *({"max_steps"} if recipe.epochs is not None else ())}  # where it only stops early
    if adds_schedule(recipe, checkpoint):
        free |= {"epochs", "max_steps", "optim.restarts"}
    for name, value in checkpoint.get("recipe", {}).items():  # version 0.1 wrote none
        name = OLDER_NAMES.get(name, name)
        if settings.get(name) != value and name not in free and not name.startswith("machine."):
            raise ValueError(
                f"{run.path / 'recipe.yaml'} says {write_word(name, settings.get(name))}, and the run was trained with "
                f"{write_word(name, value)}; set it back, or start a new run"
            )


def adds_schedule(recipe: Recipe, checkpoint: Mapping[str, Any]) -> bool:
    """Whether the last schedule of a recipe begins where a checkpoint ended, under the schedules before."""
    *earlier, last = [list(restart) for restart in recipe.optim.restarts] or [None]
    stored = checkpoint.get("recipe", {}).get("optim.restarts", [])
    return last is not None and last[0] == checkpoint.get("step") and [list(each) for each in stored] == earlier


class Checkpointer(Callback):
    """Writes checkpoints and the student: after epochs, every so many minutes, and when a signal stops the run."""

    def __init__(self, run: Run, experiment: Experiment) -> None:
        assert experiment.card is not None
        self.run, self.experiment, self.card = run, experiment, experiment.card
        self.seconds = 60 * experiment.recipe.machine.checkpoint_minutes
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
        can_go_on = None not in (self.experiment.recipe.epochs, self.experiment.recipe.max_steps)
        if state.step == state.last_step and not can_go_on:
            self.run.forget_checkpoint_before_last()

    def on_interrupt(self, state: TrainState) -> None:
        self.save(state)

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint."""
        origin = describe_origin(self.experiment)
        checkpoint = {**save_state(state), **origin, "log_bytes": self.run.log_bytes()}
        self.run.save_checkpoint(checkpoint, reduced=leave_out(checkpoint, state.method.large_tables))
        self.saved_at = time.monotonic()

    def save_student(self, state: TrainState) -> None:
        """Writes the network that ships, and the card that describes it; twice if it is the best so far."""
        progress = {
            "weights": "student" if state.ema is None else "ema",
            "epoch": state.epochs_begun,
            "step": state.step,
            "scores": None if state.scores is None else state.scores._asdict(),
            "thresholds": state.thresholds,
        }
        weights, card = state.shipped.state_dict(), self.card.model_copy(update=progress)
        save_student(self.run, weights, card)
        if state.is_best:
            save_student(self.run.open_best(), weights, card)
