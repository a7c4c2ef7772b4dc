"""Fixtures that tests of several folders share."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def pytest_collection_modifyitems(items):
    """Tests that share a fixture of their module run in one process, so that it is made once."""
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs.values()
        shared = sorted(fixtures[-1].argname for fixtures in definitions if fixtures and fixtures[-1].scope == "module")
        if shared:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{shared[0]}"))


@pytest.fixture(autouse=True)
def own_seed():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def load(monkeypatch):
    """Imports a script of the benchmarks by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:  # `pages` and the like are nobody else's names
        if (BENCHMARKS / f"{name}.py").exists():
            del sys.modules[name]
