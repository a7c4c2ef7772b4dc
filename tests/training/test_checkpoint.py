"""What a checkpoint holds, and that a run resumed from it writes what a whole run writes."""

import pytest
import torch

import selfdistill as sd
from helpers.runs import StopAt, recipe, train, untimed, weights
from selfdistill.runs.folder import Run
from selfdistill.training.signals import Interrupted


class Killed(BaseException):
    """A kill, as far as a test can have one."""


class KilledAtRecord(sd.Callback):
    """Ends the run right after the first record of a kind was written."""

    def __init__(self, kind):
        self.kind = kind

    def on_log(self, state, record):
        if record.kind == self.kind:
            raise Killed


@pytest.mark.slow
def test_a_record_that_was_written_after_the_last_checkpoint_stands_once(tmp_path, whole):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(5))  # the end of the first epoch, before it is scored
    run = Run.open(tmp_path / "run")
    with pytest.raises(Killed):
        train(run.recipe(), KilledAtRecord("epoch"), resume=True)
    assert [record.kind for record in run.records()] == ["train", "epoch"]
    again, _, _ = train(run.recipe(), resume=True)
    assert untimed(run) == untimed(whole[1])
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole[0]).items())


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version_resumes(tmp_path, whole):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(7))
    run = Run.open(tmp_path / "run")
    checkpoint = run.load_checkpoint()
    for name in ("log_bytes", "slow", "compiling"):  # which version 0.1.0 did not write
        del checkpoint[name]
    run.save_checkpoint(checkpoint)
    again, _, _ = train(run.recipe(), resume=True)
    assert untimed(run) == untimed(whole[1])
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole[0]).items())


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(3))
    run = Run.open(tmp_path / "run")
    run.save_checkpoint({**run.load_checkpoint(), "format": 2})
    with pytest.raises(ValueError, match="the checkpoint has format 2, and this selfdistill reads format 1; resume"):
        train(run.recipe(), resume=True)


@pytest.mark.slow
def test_a_checkpoint_is_written_every_so_many_minutes(tmp_path):
    class Steps(sd.Callback):
        def on_step(self, state):
            saved.append(run.load_checkpoint()["step"])

    saved, run = [], Run(tmp_path / "run")
    train(recipe(run.path, max_steps=4, machine={"checkpoint_minutes": 1e-9}), Steps())
    assert saved == [1, 2, 3, 3]  # the last step is saved once it is scored
    assert run.load_checkpoint()["step"] == 4
