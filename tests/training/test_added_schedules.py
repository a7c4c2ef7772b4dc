"""A finished run goes on with a new schedule of rates."""

import shutil

import pytest
import torch
from torch import nn

from helpers.runs import QUICK, StopAt, recipe, train, untimed
from selfdistill.commands.train import resume_run
from selfdistill.config.read import parse
from selfdistill.config.recipe import OptimPart
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord
from selfdistill.runs.student import is_own_card, load_student, read_card
from selfdistill.training.loop import fit
from selfdistill.training.optim import Schedule, create_optimizer
from selfdistill.training.signals import Interrupted

OPTIM = {"lr": 0.05, "ema": 0.9, "warmup": 0.2}


def weights_of(path):
    return load_student(path).state_dict()


def assert_same_end(one, other):
    assert all(torch.equal(value, weights_of(other)[name]) for name, value in weights_of(one).items())
    assert read_card(one).scores == read_card(other).scores


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(recipe(folder / "run", optim=OPTIM, patience=9, method="frskd", task={"class_weights": "auto"}))
    return folder / "run"


@pytest.fixture(scope="module")
def longer(finished):
    """The same run after two more epochs, from half of its rate."""
    shutil.copytree(finished, finished.parent / "longer")
    resume_run(finished.parent / "longer", ["epochs=4", "restart=0.5"])
    return finished.parent / "longer"


def test_it_ends_later_and_says_where_its_schedule_began(finished, longer, capsys):
    run, records = Run.open(longer), Run.open(longer).records()
    assert run.recipe().epochs == 4 and run.recipe().optim.restarts == [(10, 10, 0.5)]
    assert run.is_own and is_own_card(longer) and not run.is_recipe_edited()
    assert isinstance(records[-1], EndRecord) and (records[-1].epoch, records[-1].step) == (4, 20)
    assert [record.step for record in records if record.kind == "end"] == [20]
    (begin,) = (record for record in records if record.kind == "schedule")
    assert begin.sentence() == "epoch 2  step 10  goes on with a new schedule, up to step 20"
    rates = [record.lr for record in records if record.kind == "train"]
    assert len(rates) == 4 and rates[1] < rates[0] and rates[2] > rates[3] and rates[0] == pytest.approx(2 * rates[2])
    first = records.index(begin)
    assert untimed(run)[:first] == untimed(Run.open(finished))[:first]
    assert resume_run(longer).result is None and "is finished: epoch 4" in capsys.readouterr().err


@pytest.mark.slow
def test_its_recipe_trains_the_same_weights_from_the_beginning(longer, tmp_path):
    train(parse({**Run.open(longer).recipe().model_dump(), "out": str(tmp_path / "anew")}))
    assert_same_end(tmp_path / "anew", longer)


@pytest.mark.slow
@pytest.mark.parametrize("step", [11, 17])
def test_killed_inside_the_new_schedule_it_goes_on_bit_for_bit(finished, longer, tmp_path, monkeypatch, step):
    shutil.copytree(finished, tmp_path / "run")
    with monkeypatch.context() as patched:
        stop = StopAt(step)
        patched.setattr("selfdistill.commands.train.fit", lambda *args, callbacks, **options: fit(
            *args, callbacks=[*callbacks, stop], **options
        ))  # fmt: skip
        with pytest.raises(SystemExit):
            resume_run(tmp_path / "run", ["epochs=4", "restart=0.5"])
    resume_run(tmp_path / "run")
    assert_same_end(tmp_path / "run", longer)
    assert untimed(Run.open(tmp_path / "run")) == untimed(Run.open(longer))


def test_a_third_schedule_can_follow(longer, tmp_path):
    shutil.copytree(longer, tmp_path / "run")
    resume_run(tmp_path / "run", ["epochs=5"])
    run = Run.open(tmp_path / "run")
    assert run.recipe().optim.restarts == [(10, 10, 0.5), (20, 20, 1.0)]
    assert run.records()[-1].step == 25


def test_patience_counts_anew(tmp_path):
    fixed = {"name": "cifar:resnet8", "freeze": ["all", "-fc"]}
    changes = {"epochs": 9, "patience": 1, "optim": {"lr": 1e-9}, "method": "baseline", "student": fixed}
    _, run, result = train(recipe(tmp_path / "run", **changes))
    assert result.epoch < 9
    resume_run(run.path, ["epochs=12"])
    assert Run.open(run.path).records()[-1].epoch > result.epoch
    assert Run.open(run.path).recipe().optim.restarts == [(result.step, 45, 1.0)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epochs=2"], "epochs=2 leaves nothing to train: .* has 10 steps, 2 epochs; give more"),
        (["restart=0.5"], "restart=0.5 is of an added schedule; say how long: --resume .* epochs=N"),
        (["epochs=4", "restart=0"], "restart=0 is not a share of the rates, such as 0.5"),
        (["optim.lr=0.5"], "optim.lr=0.5 cannot change when a run goes on"),
    ],
)
def test_what_adds_nothing_is_refused(finished, words, message):
    before = (finished / "recipe.yaml").read_bytes()
    with pytest.raises(ValueError, match=message):
        resume_run(finished, words)
    assert (finished / "recipe.yaml").read_bytes() == before


def test_a_run_that_has_not_ended_is_trained_to_its_end_first(tmp_path):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(3))
    with pytest.raises(ValueError, match="has not ended, .* first go on with it as it is"):
        resume_run(tmp_path / "run", ["epochs=4"])


def test_steps_that_no_run_wrote_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"optim.restarts=.* is not of steps that rise; a run writes it"):
        train(recipe(tmp_path / "steps", optim={"restarts": [(9, 5, 1.0)]}))


def test_a_run_of_steps_is_lengthened_by_steps(tmp_path):
    train(parse({**QUICK, "epochs": None, "max_steps": 3, "out": str(tmp_path / "run"), "method": "baseline"}))
    resume_run(tmp_path / "run", ["max_steps=5"])
    run = Run.open(tmp_path / "run")
    assert run.records()[-1].step == 5 and run.recipe().optim.restarts == [(3, 3, 1.0)]


@pytest.mark.parametrize("schedule", ["cosine", "step", "linear", "constant"])
def test_an_added_schedule_has_the_shape_of_the_first(schedule):
    optim = OptimPart(lr=1.0, schedule=schedule, warmup=0.1, restarts=[(60, 100, 0.5)])
    optimizer = create_optimizer(nn.Linear(2, 2), optim)
    rates, added = [], Schedule(optimizer, optim, 160)
    for step in range(160):
        added.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[60:] == pytest.approx([rate / 2 for rate in first_rates(optim, 100)])
    assert rates[:60] == pytest.approx(first_rates(optim, 100)[:60])


def first_rates(optim, steps):
    optimizer = create_optimizer(nn.Linear(2, 2), optim)
    schedule, rates = Schedule(optimizer, optim.model_copy(update={"restarts": []}), steps), []
    for step in range(steps):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates
