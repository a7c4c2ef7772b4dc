"""No step of any method waits for the device; how that is seen is told in `test_no_waiting`."""

import pytest

from helpers.meta_device import one_run, train_on_meta
from selfdistill import list_methods
from selfdistill.methods import find_method
from selfdistill.tasks import list_tasks

pytestmark = pytest.mark.slow

CASES = [(name, kind) for name in list_methods() for kind in list_tasks(find_method(name).outputs)]


@pytest.fixture(autouse=True)
def on_meta(monkeypatch):
    train_on_meta(monkeypatch)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_no_step_of_a_method_waits_for_the_device(name, kind):
    one_run(find_method(name), kind)
