"""What a run says of its own pace."""

import pytest

from selfdistill.training.profile import Pace


def paced(*steps, pace=None):
    """A pace that has seen steps of so many seconds; those above 1 compiled."""
    pace = pace or Pace()
    for seconds in steps:
        pace.add(seconds, compiles=seconds > 1)
    return pace


def test_seconds_per_step_leave_out_what_compiles_and_the_first_step():
    pace = paced(0.9, 60.0, 0.2, 0.4)
    assert pace.flush() == pytest.approx(0.3)
    assert paced(0.5, pace=pace).flush() == 0.5 and pace.usual == pytest.approx(0.4)
    assert pace.compile_seconds == pytest.approx(59.6)


def test_where_every_step_compiles_their_mean_is_told():
    assert paced(60.0, 40.0).flush() == 50


def test_a_pace_goes_on_where_it_was_stopped():
    state = paced(0.9, 60.0, 0.2).state()
    again = Pace()
    again.load(state)
    assert paced(0.7, 0.4, pace=again).flush() == pytest.approx(0.3)  # 0.7: the first step of another process
    assert again.compile_seconds == pytest.approx(59.7)


def test_checkpoints_that_know_nothing_of_compiling_are_read():
    pace = Pace()
    pace.load({"window": [0.2], "paces": [0.1, 0.3]})
    assert paced(0.9, 0.4, pace=pace).flush() == pytest.approx(0.3) and pace.compile_seconds == 0
