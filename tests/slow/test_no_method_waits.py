"""No step of any method waits for the device; how that is seen is told in `test_no_waiting`."""

import pytest

from helpers.contract import FEWER_CASES
from helpers.meta_device import one_run, train_on_meta
from selfdistill.methods import find_method

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def on_meta(monkeypatch):
    train_on_meta(monkeypatch)


@pytest.mark.parametrize(("name", "kind"), FEWER_CASES)
def test_no_step_of_a_method_waits_for_the_device(name, kind):
    one_run(find_method(name), kind)
