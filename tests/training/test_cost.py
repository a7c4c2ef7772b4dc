"""The time of a training step beside the plain student's."""

import pytest
import torch

from helpers.batches import small_task
from helpers.methods import small_method
from helpers.runs import recipe, small_state, train, weights
from selfdistill.methods import create_method, find_method
from selfdistill.training import cost
from selfdistill.training.callbacks import Callback
from selfdistill.training.cost import SlowdownMeter, time_student


class Slowdown(Callback):
    """Collects what callbacks are shown of the cost."""

    def __init__(self, seen, name):
        self.seen, self.name = seen, name

    def on_step(self, state):
        self.seen.setdefault(self.name, []).append(state.slowdown)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_measured"), [("baseline", False), ("frskd", True), ("ddgsd", True)])
def test_a_method_that_does_more_than_its_student_is_timed_once(tmp_path, monkeypatch, name, is_measured):
    monkeypatch.setattr(cost, "WORTH_IT", 6)
    seen = {}
    timed, _, _ = train(recipe(tmp_path / "timed", method=name, max_steps=6), Slowdown(seen, name))
    assert [value is not None for value in seen[name]] == [False] * (3 if is_measured else 6) + [True] * 3 * is_measured
    assert all(value is None or value > 0 for value in seen[name]) and len({*seen[name][3:]}) == 1
    monkeypatch.setattr(cost, "WORTH_IT", 50)
    plain, _, _ = train(recipe(tmp_path / "plain", method=name, max_steps=6), Slowdown(seen, "plain"))
    assert seen["plain"] == [None] * 6
    assert all(torch.equal(value, weights(plain)[key]) for key, value in weights(timed).items())


@pytest.mark.slow
def test_each_phase_is_timed_where_an_epoch_gives_it_enough_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "WORTH_IT", 10)
    seen, method = {}, {"name": "frskd", "start": 0.5, "width": 1}
    train(recipe(tmp_path, method=method, epochs=4), Slowdown(seen, "frskd"))
    is_known = [value is not None for value in seen["frskd"]]
    assert is_known == [*[False] * 13, *[True] * 7]  # while the self-teacher sleeps, a step is a plain one


def test_timing_a_student_leaves_it_as_it_was():
    method = small_method(find_method("frskd"), small_task("classification"))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in method.modules()]
    assert time_student(method, 4, torch.device("cpu"), torch.enable_grad) > 0
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert hooks == [len(module._forward_hooks) for module in method.modules()]


def test_a_student_that_cannot_be_run_alone_is_not_timed(monkeypatch):
    method = small_method(find_method("frskd"), small_task("classification"))
    method.student.forward = None
    assert time_student(method, 4, torch.device("cpu"), torch.enable_grad) is None


def test_a_run_of_short_epochs_is_not_timed():
    assert not SlowdownMeter(small_state(last_step=100, steps_per_epoch=3), autocast=torch.enable_grad).is_wanted


def test_settings_that_are_said_to_be_cheaper_are():
    task = small_task("classification")
    for name in ("frskd", "one"):
        method = small_method(find_method(name), task)
        for setting in method.list_cheaper_settings():
            key, _, value = setting.partition("=")
            cheaper = create_method(name, method.student, task, **{key: int(value)})
            sizes = [sum(p.numel() for p in m.parameters()) for m in (method, cheaper)]
            assert sizes[1] < sizes[0], setting
        assert method.list_cheaper_settings()
