"""Methods that compute something else in another phase of training."""

import pytest
import torch

from helpers.methods import method_and_batch
from helpers.runs import recipe, stop_and_resume, train, weights
from selfdistill.build import build
from selfdistill.training import pilot
from selfdistill.training.callbacks import Callback
from selfdistill.training.phases import compute_progress, plan_phases
from selfdistill.training.pilot import Cost

PHASES = {"name": "frskd", "start": 0.4, "settle": 0.25}  # of 10 steps: asleep up to step 4, settling up to step 7


class Seen(Callback):
    """Collects the phase of each step, and which of the parameters have moved."""

    def __init__(self):
        self.phases, self.moved = [], []

    def on_start(self, state):
        self.before = {name: value.clone() for name, value in weights(state.method).items()}

    def on_step(self, state):
        self.phases.append(state.method.phase)
        now = weights(state.method)
        self.moved.append({name.partition(".")[0] for name in now if not torch.equal(now[name], self.before[name])})


@pytest.fixture(scope="module")
def run_with_phases(tmp_path_factory):
    seen = Seen()
    momentum = {"lr": 0.05, "weight_decay": 0.01, "momentum": 0.9, "clip": 1.0, "ema": 0.9}
    method, run, _ = train(recipe(tmp_path_factory.mktemp("phases"), method=PHASES, optim=momentum), seen)
    return method, run, seen


@pytest.mark.parametrize(("steps", "last_step"), [(10, 10), (7, 7), (10, 6), (10, 14), (1, 1)])
def test_every_step_lies_in_the_phase_that_its_progress_says(steps, last_step):
    method, _ = method_and_batch("frskd")
    for method.start, method.settle in [(0.1, 0.2), (0.5, 0.0), (0.0, 0.3), (0.0, 0.0), (0.7, 0.2)]:
        planned = plan_phases(method, steps, last_step)
        told = [next(name for name, steps in planned.items() if step in steps) for step in range(last_step)]
        assert told == [method.find_phase(compute_progress(step, steps)) for step in range(last_step)]
        assert all(planned.values())


def test_the_self_teacher_neither_learns_nor_decays_while_it_sleeps(run_with_phases):
    method, _, seen = run_with_phases
    assert seen.phases == ["asleep"] * 4 + ["settling"] * 3 + ["teaching"] * 3
    assert seen.moved == [{"student"}] * 4 + [{"student", "self_teacher"}] * 6
    assert method.phase == "asleep"  # a finished run leaves it to `progress`


def test_no_line_of_the_log_holds_steps_of_two_phases(run_with_phases):
    _, run, _ = run_with_phases
    lines = [(record.step, {*record.losses}) for record in run.records() if record.kind == "train"]
    all_terms = {"task", "teacher", "kd", "feature"}
    assert lines == [(4, {"task"}), (5, {"task", "teacher"}), (7, {"task", "teacher"}), (10, all_terms)]
    assert [record.self_teacher_accuracy is None for record in run.records() if record.kind == "train"][:2] == [1, 0]


def test_while_the_self_teacher_sleeps_or_settles_the_student_is_that_of_plain_training(tmp_path):
    """Its own loss alone reaches the student then, so the weights are equal bit for bit."""
    students = [
        train(recipe(tmp_path / name, method=method, epochs=None, max_steps=steps))[0].student.state_dict()
        for name, method, steps in [("plain", "baseline", 4), ("phases", {**PHASES, "settle": 0.5}, 4)]
    ]
    assert all(torch.equal(value, students[1][name]) for name, value in students[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_run_that_stops_in_any_phase_goes_on_bit_for_bit(tmp_path, step):
    levers = {"width": 1, "start_from_classifier": True, "teacher_average": 0.9}
    stop_and_resume(tmp_path, {"method": {**PHASES, **levers}}, step)


def test_a_loop_of_ones_own_has_phases_by_the_progress_it_gives():
    method, batch = method_and_batch("frskd", start=0.5, settle=0.2)
    terms = [{*method(batch, progress).losses} for progress in (0.0, torch.tensor(0.4), 0.5, torch.tensor(0.75))]
    assert terms == [{"task"}, {"task"}, {"task", "teacher"}, {"task", "teacher", "kd", "feature"}]
    method.begin_step(0.2)
    assert {*method(batch, 0.9).losses} == {"task"}  # what was said on the host holds
    method.begin_step(None)
    assert {*method(batch, 0.9).losses} == {"task", "teacher", "kd", "feature"}


def test_a_pilot_weighs_the_phases_by_their_steps(tmp_path, monkeypatch):
    walker = pilot.Walker(build(recipe(tmp_path, method=PHASES)))
    costs = {"asleep": Cost(1.0, 10.0), "settling": Cost(2.0, 20.0), "teaching": Cost(3.0, 30.0)}
    method = walker.trainer.state.method
    monkeypatch.setattr(walker, "_take_steps", lambda late: costs[method.find_phase(late / 10)])
    assert walker.take_turn() == pytest.approx(((4 * 1 + 3 * 2 + 3 * 3) / 10, (4 * 10 + 3 * 20 + 3 * 30) / 10))
    walker.trainer.close()
