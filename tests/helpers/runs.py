"""Short runs on the built-in digits."""

import os
import signal

import pytest
import torch

from helpers.batches import small_task
from helpers.methods import small_method
from selfdistill.build import build
from selfdistill.config.read import parse
from selfdistill.methods import find_method
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student
from selfdistill.training.callbacks import Callback
from selfdistill.training.loop import fit
from selfdistill.training.signals import Interrupted
from selfdistill.training.state import TrainState

QUICK = {
    "data": {"source": "digits", "limit": 80},
    "student": "cifar:resnet8",
    "epochs": 2,
    "batch_size": 16,
    "precision": "fp32",
    "optim": {"lr": 0.05},
}


def recipe(tmp_path, **changes):
    return parse({**QUICK, "out": str(tmp_path), **changes})


def train(recipe, *callbacks, resume=False):
    experiment = build(recipe)
    run = Run.open(recipe.out) if resume else Run.create(recipe.out, experiment.recipe)
    result = fit(experiment, run, resume=resume, callbacks=callbacks)
    return experiment.method, run, result


class StopAt(Callback):
    """Sends this process SIGTERM after one step."""

    def __init__(self, step):
        self.at = step

    def on_step(self, state):
        if state.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(method):
    return {name: value for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}


def untimed(run):
    timing = {
        "seconds_per_step",
        "peak_memory_mib",
        "compile_seconds",
        "train_seconds",
        "eval_seconds",
        "processor_seconds",
        "cost_per_step",
    }
    return [record.model_dump(exclude=timing) for record in run.records()]


def stop_and_resume(tmp_path, changes, step):
    """Compares a whole run with one that was stopped after a step and resumed."""
    whole, whole_run, _ = train(recipe(tmp_path / "whole", **changes))
    with pytest.raises(Interrupted, match="SIGTERM"):
        train(recipe(tmp_path / "stopped", **changes), StopAt(step))
    stopped = Run.open(tmp_path / "stopped")
    assert stopped.load_checkpoint()["step"] == step
    again, again_run, _ = train(stopped.recipe(), resume=True)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    assert untimed(whole_run) == untimed(again_run)
    kept = [load_student(run.path).state_dict() for run in (whole_run, again_run)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


class Heard(Callback):
    """Collects the warnings."""

    def __init__(self):
        self.sentences = []

    def on_log(self, state, record):
        if record.kind == "warning":
            self.sentences.append(record.text)


def small_state(*, last_step=10, steps_per_epoch=5):
    """A `TrainState` for callbacks that are called by hand."""
    method = small_method(find_method("baseline"), small_task("classification"))
    return TrainState(
        method=method,
        optimizer=torch.optim.SGD(method.parameters()),
        ema=None,
        scaler=None,
        device=torch.device("cpu"),
        steps_per_epoch=steps_per_epoch,
        last_step=last_step,
    )
