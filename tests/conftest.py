"""Fixtures that tests of several folders share."""

import gc
import importlib
import os
import sys
from pathlib import Path

import jaxtyping
import pytest

from helpers.programs import share_server
from helpers.shapes import check_where_shapes_are_named

# Folders of tests that train whole runs, or take long. Those of methods, modules, features, losses, metrics and data
# have the run-time checks; the same functions run in both.
UNTYPED = {"adapters", "build", "commands", "export", "report", "slow", "tasks", "training"}
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LONGEST_FIRST = ["test_compile_and_processes", "test_benchmarks_at_length", "test_every_run", "test_families"]
LONG_FOLDERS = ["slow", "training", "commands", "tasks", "cache", "methods"]

check_where_shapes_are_named()


def pytest_configure(config: pytest.Config) -> None:
    """One fork server for all processes of tests."""
    if not hasattr(config, "workerinput"):
        config.add_cleanup(share_server())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files and folders first, so that no process is left alone with one at the end."""
    files = {name: number for number, name in enumerate(LONGEST_FIRST)}
    folders = {name: number for number, name in enumerate(LONG_FOLDERS)}
    items.sort(
        key=lambda item: (folders.get(item.path.parent.name, len(folders)), files.get(item.path.stem, len(files)))
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Nothing that is imported is garbage: it need not be looked through again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Turns run-time type checks off for the tests of some folders and for their fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", not UNTYPED.isdisjoint(item.path.parts))
        return (yield)


@pytest.fixture(autouse=True, scope="session")
def own_key(tmp_path_factory):
    """The key that signs run folders lies with the temporary files, not in the configuration of whoever tests."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(autouse=True, scope="session")
def do_not_wait_for_the_disk():
    """Files survive the kills of tests without `fsync`; only a power cut would need it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def seed_no_absent_device():
    """Without a GPU, torch keeps each seed for later with the whole call stack, which takes most of a millisecond."""
    import torch  # here, because the process that only deals tests out to others reads this file too

    with pytest.MonkeyPatch.context() as patch:
        for device in (torch.cuda, torch.xpu, torch.mtia):
            if hasattr(device, "manual_seed_all") and not device.is_available():
                patch.setattr(device, "manual_seed_all", lambda seed: None)
        yield


@pytest.fixture(autouse=True)
def own_seed():
    """Every test starts from the same random state, whatever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def untyped(monkeypatch):
    """Calls without run-time type checks: as users make them and as compilers can trace them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def load(monkeypatch):
    """Imports a script of the benchmarks by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:  # `pages` and the like are nobody else's names
        if (BENCHMARKS / f"{name}.py").exists():
            del sys.modules[name]
