"""What a checkpoint holds, and that a run resumed from it writes what a whole run writes."""

import pytest
import torch

import selfdistill as sd
from helpers.runs import QUICK, Heard, StopAt, recipe, train, untimed, weights
from selfdistill.config.files import dump
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student, read_card
from selfdistill.training.checkpoint import refuse_edited_recipe
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
    for name in ("log_bytes", "eval_seconds"):  # which version 0.1.0 did not write
        del checkpoint[name]
    timer = checkpoint.pop("timer")
    paces = [seconds for seconds, *_ in timer["lines"]]
    checkpoint |= {"window": [seconds for seconds, _, _ in timer["steps"]], "paces": paces}
    run.save_checkpoint(checkpoint)
    again, _, result = train(run.recipe(), resume=True)
    assert untimed(run) == untimed(whole[1])
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole[0]).items())
    assert result.train_seconds is result.eval_seconds is result.processor_seconds is None  # of the whole run
    assert result.cost_per_step > 0


@pytest.mark.slow
def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(3))
    run = Run.open(tmp_path / "run")
    run.save_checkpoint({**run.load_checkpoint(), "format": 2})
    with pytest.raises(ValueError, match="the checkpoint has format 2, and this selfdistill reads format 1; resume"):
        train(run.recipe(), resume=True)


@pytest.mark.slow
def rewrite_recipe(run, **changes):
    """What an edit of recipe.yaml does."""
    (run.path / "recipe.yaml").write_text(dump(run.recipe().model_copy(update=changes)))


@pytest.mark.slow
def test_a_recipe_that_was_edited_under_its_checkpoint_is_noticed(tmp_path):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(3))
    run = Run.open(tmp_path / "run")
    refuse_edited_recipe(run)
    optim, text = run.recipe().optim, (run.path / "recipe.yaml").read_text()
    rewrite_recipe(run, optim=optim.model_copy(update={"lr": 0.4}))
    message = "recipe.yaml says optim.lr=0.4, and the run was trained with optim.lr=0.05; set it back"
    with pytest.raises(ValueError, match=message):
        refuse_edited_recipe(run)
    with pytest.raises(ValueError, match=message):
        train(run.recipe(), resume=True)
    (run.path / "recipe.yaml").write_text(text[: text.index("optim:")])  # cut short, and still YAML
    with pytest.raises(ValueError, match="the run was trained with"):
        refuse_edited_recipe(run)
    (run.path / "recipe.yaml").write_text(text)
    machine = run.recipe().machine.model_copy(update={"workers": 1, "cache": "none"})
    rewrite_recipe(run, max_steps=4, machine=machine)
    assert train(run.recipe(), resume=True)[2].step == 4


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_one_sentence(tmp_path):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(3))
    run = Run.open(tmp_path / "run")
    checkpoint = run.load_checkpoint()
    run.save_checkpoint({**checkpoint, "method": {**checkpoint["method"], "student.fc.bias": torch.zeros(3)}})
    with pytest.raises(ValueError, match="the checkpoint is one of another network or method") as raised:
        train(run.recipe(), resume=True)
    assert "\n" not in str(raised.value)
    run.save_checkpoint({**checkpoint, "optimizer": {"state": {}, "param_groups": []}})
    with pytest.raises(ValueError, match="the checkpoint does not fit this run's optimizer"):
        train(run.recipe(), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "none"])
def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(tmp_path, whole, split):
    class Steps(sd.Callback):
        def on_step(self, state):
            if state.step == 7:
                raise Killed

    heard = Heard()
    changes = {"machine": {"checkpoint_minutes": 1e-9}}
    if split == "none":
        changes["data"] = {**QUICK["data"], "val_fraction": 0.01}
    with pytest.raises(Killed):
        train(recipe(tmp_path / "run", **changes), Steps())
    run = Run.open(tmp_path / "run")
    (run.path / "last.pt").write_bytes((run.path / "last.pt").read_bytes()[:-999])
    again, _, result = train(run.recipe(), heard, resume=True)
    assert result.step == 10 and "last.pt is truncated or damaged" in heard.sentences[0]
    assert "the run goes on from" in heard.sentences[0] and "after step 6" in heard.sentences[0]
    if split == "val":
        assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole[0]).items())
        assert [record for record in untimed(run) if "damaged" not in record.get("text", "")] == untimed(whole[1])


def test_a_finished_run_holds_two_students_and_one_checkpoint(whole):
    run = whole[1]
    assert not (run.path / "last.1.pt").exists()
    best = Run.open(run.path / "best")
    scores = [record.scores.main for record in run.records() if record.kind == "epoch"]
    assert read_card(best.path).scores["top1"] == max(scores) and load_student(best.path) is not None
    assert best.recipe() == run.recipe()


@pytest.mark.slow
def test_a_checkpoint_is_written_every_so_many_minutes(tmp_path):
    class Steps(sd.Callback):
        def on_step(self, state):
            saved.append(run.load_checkpoint()["step"])

    saved, run = [], Run(tmp_path / "run")
    train(recipe(run.path, max_steps=4, machine={"checkpoint_minutes": 1e-9}), Steps())
    assert saved == [1, 2, 3, 3]  # the last step is saved once it is scored
    assert run.load_checkpoint()["step"] == 4
