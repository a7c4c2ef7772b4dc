"""The examples in docstrings are true."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import selfdistill

SKIPPED = {"selfdistill.__main__", "selfdistill.cli"}  # start the command line, or its machinery
ALL = [m.name for m in pkgutil.walk_packages(selfdistill.__path__, "selfdistill.") if m.name not in SKIPPED]
MODULES = [name for name in ["selfdistill", *ALL] if ">>> " in Path(importlib.util.find_spec(name).origin).read_text()]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings_hold(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_there_are_examples():
    assert len(MODULES) > 10
