"""Seconds and costs of training steps."""

import math
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from selfdistill.training.timer import StepTimer, StepWatch, read_children_seconds


def timed(*steps, timer=None):
    """A timer after steps of so many seconds, which cost ten times as many; those above 1 compiled."""
    timer = timer or StepTimer("processor")
    for seconds in steps:
        timer.add(seconds, 10 * seconds, compiled=seconds > 1)
    return timer


def test_seconds_per_step_leave_out_what_compiles_and_the_first_step():
    timer = timed(0.9, 60.0, 0.2, 0.4)
    assert timer.flush() == pytest.approx(0.3)
    assert timed(0.5, timer=timer).flush() == 0.5 and timer.seconds_per_step == pytest.approx(0.4)
    assert timer.compile_seconds == pytest.approx(59.6)


def test_where_every_step_compiles_their_mean_is_told():
    assert timed(60.0, 40.0).flush() == 50


def test_a_timer_goes_on_where_it_was_stopped():
    state = timed(0.9, 60.0, 0.2).state_dict()
    again = StepTimer("processor")
    again.load_state_dict(state)
    assert timed(0.7, 0.4, timer=again).flush() == pytest.approx(0.3)  # 0.7: the first step of another process
    assert again.compile_seconds == pytest.approx(59.7)
    assert again.cost_per_step == pytest.approx(3.0)
    assert again.describe()["train_seconds"] == pytest.approx(62.2)
    assert again.describe()["processor_seconds"] == pytest.approx(622)


def test_what_earlier_versions_did_not_measure_is_unknown():
    for state in ({"window": [0.2], "paces": [0.1, 0.3]}, {"window": [0.9, 0.2], "slow": [0.9], "paces": [0.1, 0.3]}):
        timer = StepTimer("processor")
        timer.load_older_state(state)
        assert timed(0.9, 0.4, timer=timer).flush() == pytest.approx(0.3) and timer.compile_seconds == 0
        assert timed(0.6, 0.6, timer=timer).flush() == pytest.approx(0.6) and timer.cost_per_step == pytest.approx(5.0)
        told = timer.describe()
        assert told["train_seconds"] is told["processor_seconds"] is None


def test_lines_of_an_earlier_version_are_read():
    state = timed(0.9, 0.2, 0.4).state_dict()
    del state["lines"]
    timer = StepTimer("processor")
    timer.load_state_dict({**state, "paces": [0.1, 0.3, 0.5], "costs": [1.0, 2.0]})
    assert timer.seconds_per_step == pytest.approx(0.3) and timer.cost_per_step == pytest.approx(1.5)


def test_phases_weigh_by_their_steps():
    timer = StepTimer("processor")
    for phase, seconds in [
        ("asleep", [9.0, 0.1, 0.1]),
        ("asleep", [0.3]),
        ("asleep", [0.2, 0.2]),
        ("teaching", [2.0] * 2),
    ]:
        timed(*seconds, timer=timer).flush(phase)
    assert timer.seconds_per_step == pytest.approx(6 / 8 * 0.2 + 2 / 8 * 2.0)


def test_costs_of_two_kinds_of_device_are_not_added_up():
    timer = StepTimer("device")
    timer.load_state_dict(timed(0.9, 0.2, 0.2).state_dict())
    timed(0.5, timer=timer).flush()
    told = timer.describe()
    assert told["device_seconds"] is told["processor_seconds"] is told["cost_per_step"] is None
    assert told["train_seconds"] == pytest.approx(1.8)


def test_a_run_that_took_no_step_has_no_cost():
    assert StepTimer("processor").describe()["cost_per_step"] is None


def test_a_step_on_a_cpu_costs_processor_time_whatever_the_wall_clock_says(monkeypatch):
    clocks = {"perf_counter": iter([10.0, 17.0]), "process_time": iter([2.0, 2.5])}
    for name, times in clocks.items():
        monkeypatch.setattr(time, name, times.__next__)
    watch = StepWatch(torch.device("cpu"))
    watch.start()
    assert watch.stop() == (7.0, 0.5)


def test_elsewhere_the_cost_is_unknown():
    watch = StepWatch(torch.device("meta"))
    watch.start()
    assert watch.kind is None and math.isnan(watch.stop()[1])


def work(seconds):
    started = time.process_time()
    while time.process_time() < started + seconds:
        pass


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_loader_workers_count_after_they_ended():
    before = read_children_seconds()
    worker = multiprocessing.get_context("fork").Process(target=work, args=(0.2,))
    worker.start()
    worker.join()
    assert read_children_seconds() - before >= 0.15  # the system counts in hundredths


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no Linux")
def test_loader_workers_count_while_they_run(monkeypatch):
    monkeypatch.setattr(multiprocessing, "active_children", list)
    before = read_children_seconds()
    running = SimpleNamespace(pid=os.getpid())  # as if this process were a child
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [running])
    first, low = read_children_seconds() - before, time.process_time()
    work(0.1)
    second, high = read_children_seconds() - before, time.process_time()
    assert abs(first - low) < 0.1 and 0.05 < second - first < high - low + 0.1
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [SimpleNamespace(pid=2**30)])  # it has just ended
    assert read_children_seconds() == before


class FakeEvent:
    """An event of a GPU whose clock is a counter; it has happened once it was waited for."""

    clock = 0.0

    def __init__(self, enable_timing):
        assert enable_timing
        self.at, self.has_happened = None, False

    def record(self, stream):
        FakeEvent.clock += 250.0
        self.at = FakeEvent.clock

    def synchronize(self):
        self.has_happened = True

    def elapsed_time(self, end):
        assert end.has_happened
        return end.at - self.at


def test_steps_on_a_gpu_cost_what_its_events_tell_and_wait_at_the_lines_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    watch, timer = StepWatch(torch.device("cuda")), StepTimer("device")
    for _ in range(3):
        watch.start()
        timer.add(*watch.stop(), compiled=False)
    assert not any(step.cost.end.has_happened for step in timer.steps)
    again = StepTimer("device")
    again.load_state_dict(timer.state_dict())
    for seconds in (timer, again):
        seconds.flush()
        assert seconds.cost_per_step == 0.25 and seconds.describe()["device_seconds"] == 0.75
        assert seconds.describe()["processor_seconds"] is None
