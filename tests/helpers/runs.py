"""Short runs on the built-in digits."""

import os
import signal

import pytest
import torch

from selfdistill.build import build
from selfdistill.config.read import parse
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student
from selfdistill.training.callbacks import Watch
from selfdistill.training.signals import Interrupted

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


def train(recipe, *, resume=False, watch=None):
    job = build(recipe)
    run = Run.open(recipe.out) if resume else Run.create(recipe.out, job.recipe)
    result = job.fit(run, resume=resume, watch=watch)
    return job.method, run, result


class StopAt(Watch):
    """Sends this process SIGTERM after one step."""

    def __init__(self, step):
        self.at = step

    def stepped(self, step):
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(method):
    return {name: value for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}


def untimed(run):
    timing = {"seconds_per_step", "peak_memory_mib", "compile_seconds"}
    return [record.model_dump(exclude=timing) for record in run.records()]


def stop_and_resume(tmp_path, changes, step):
    """Compares a whole run with one that was stopped after a step and resumed."""
    whole, whole_run, _ = train(recipe(tmp_path / "whole", **changes))
    with pytest.raises(Interrupted, match="SIGTERM"):
        train(recipe(tmp_path / "stopped", **changes), watch=StopAt(step))
    stopped = Run.open(tmp_path / "stopped")
    assert stopped.load_checkpoint()["step"] == step
    again, again_run, _ = train(stopped.recipe(), resume=True)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    assert untimed(whole_run) == untimed(again_run)
    kept = [load_student(run.path).state_dict() for run in (whole_run, again_run)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


class Heard(Watch):
    def __init__(self):
        self.sentences = []

    def warned(self, sentence):
        self.sentences.append(sentence)
