"""How each loss term pulls at the student, and that measuring it changes nothing."""

import math

import pytest
import torch
from torch import nn

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.runs import QUICK, Heard, StopAt, recipe, train, untimed, weights
from selfdistill.build import build
from selfdistill.build.checks import check_machine
from selfdistill.methods import find_method
from selfdistill.runs.folder import Run
from selfdistill.training.compile import MIN_STEPS, choose_mode
from selfdistill.training.gradients import GradientMeter
from selfdistill.training.signals import Interrupted


def two_weights():
    student = nn.Linear(2, 1, bias=False)
    first, second = student.weight[0]
    return student, first, second


def test_shares_and_cosines_are_those_of_the_gradients():
    student, first, second = two_weights()
    other = nn.Parameter(torch.ones(()))
    meter = GradientMeter()
    losses = {"same": 2 * first, "across": 3 * second, "task": 4 * first, "against": first * -3 + second * 4}
    meter.measure({**losses, "elsewhere": 9 * other, "constant": torch.ones(())}, student)
    pulls = meter.take()
    assert pulls.shares == pytest.approx({"same": 2 / 14, "across": 3 / 14, "task": 4 / 14, "against": 5 / 14})
    assert pulls.cosines == pytest.approx({"same": 1, "across": 0, "task": 1, "against": -0.6})
    assert list(pulls.shares) == list(losses) and meter.take() is None
    assert student.weight.grad is None and other.grad is None


def test_where_no_term_reaches_the_student_nothing_is_measured():
    student, first, _ = two_weights()
    meter = GradientMeter()
    meter.measure({"task": torch.ones(())}, student)
    assert meter.take() is None
    student.requires_grad_(False)
    meter.measure({"task": first}, student)
    assert meter.take() is None


def test_a_gradient_of_zero_has_no_direction():
    student, first, second = two_weights()
    meter = GradientMeter()
    meter.measure({"task": 0 * first, "kd": second}, student)
    assert meter.take() == ({"task": 0.0, "kd": 1.0}, {})
    meter.measure({"task": 0 * first}, student)
    assert meter.take().shares == {"task": 0.0}


def test_terms_that_did_nothing_or_worked_against_the_task_are_told_of_at_the_end():
    student, first, second = two_weights()
    meter = GradientMeter()
    for weight in (0.001, 0.005):
        meter.measure({"task": first, "idle": weight * second, "foe": second - first / 2}, student)
        meter.take()
        restored = GradientMeter()
        restored.load_state_dict(meter.state_dict())
        meter = restored
    (_, idle), (_, foe) = meter.describe()
    assert "'idle' had 0.14% of the gradient norm" in idle and "'foe' pointed against" in foe and "-0.45" in foe
    assert not list(GradientMeter().describe())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frskd", "sad", "mixskd", "hsakd_online"])
def test_the_step_that_follows_has_the_same_gradients_bit_for_bit(name):
    gradients = []
    for is_measured in (False, True):
        torch.manual_seed(0)
        task = small_task("classification")
        method, batch = small_method(find_method(name), task), small_batch(find_method(name), task)
        torch.manual_seed(1)
        step = method(batch, torch.tensor(0.5))
        meter = GradientMeter()
        if is_measured:
            meter.measure(step.losses, method.student)
            pulls = meter.take()
            assert sum(pulls.shares.values()) == pytest.approx(1) and pulls.cosines["task"] == pytest.approx(1)
        step.loss.backward()
        gradients.append([p.grad for p in method.parameters() if p.grad is not None])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.slow
def test_a_diagnosed_run_has_the_same_weights_and_goes_on_with_the_same_log(tmp_path):
    changes = {"method": "frskd", "mix": "cutmix", "optim": {**QUICK["optim"], "accumulate": 2}}
    plain, plain_run, _ = train(recipe(tmp_path / "plain", **changes))
    heard = Heard()
    diagnosed, run, _ = train(recipe(tmp_path / "diagnosed", diagnose=3, **changes), heard)
    assert all(torch.equal(value, weights(diagnosed)[name]) for name, value in weights(plain).items())
    pulls = [record for record in run.records() if record.kind == "gradients"]
    assert [record.step for record in pulls] == [3, 6, 9]
    assert all({*record.shares} == {"task", "teacher", "kd", "feature"} for record in pulls)
    share = sum(record.shares["kd"] for record in pulls) / 3
    assert [f"'kd' had {share:.2%}" in sentence for sentence in heard.sentences].count(True) == (share < 0.01)
    others = [record for record in untimed(run) if record["kind"] not in ("gradients", "warning")]
    assert others == [record for record in untimed(plain_run) if record["kind"] != "warning"]
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "stopped", diagnose=3, **changes), StopAt(7))
    stopped = Run.open(tmp_path / "stopped")
    train(stopped.recipe(), resume=True)
    assert untimed(stopped) == untimed(run)


def test_compiled_steps_are_not_diagnosed(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="diagnose takes the gradient of each term, and with machine.compile=True"):
        check_machine(build(recipe(tmp_path, diagnose=3, machine={"compile": True})))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    gpu = torch.device("cuda")
    assert choose_mode("auto", gpu, MIN_STEPS) and choose_mode("auto", gpu, MIN_STEPS, diagnose=True) is None
    assert choose_mode(False, gpu, 1, diagnose=True) is None


def test_a_scaled_loss_keeps_small_gradients():
    student, first, second = two_weights()
    meter = GradientMeter()
    meter.measure({"task": first, "kd": second}, student, scale=lambda term: 1024 * term)
    assert meter.take().shares == {"task": 0.5, "kd": 0.5} and not math.isnan(student.weight.sum().item())
