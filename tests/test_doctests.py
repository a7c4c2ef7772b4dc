"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import selfdistill

SKIPPED = {"selfdistill.__main__", "selfdistill.cli"}  # start the command line, or its machinery
MODULES = [m.name for m in pkgutil.walk_packages(selfdistill.__path__, "selfdistill.") if m.name not in SKIPPED]


@pytest.mark.parametrize("name", ["selfdistill", *MODULES])
def test_examples_of_the_docstrings_hold(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module)
    assert results.failed == 0


def test_there_are_examples():
    count = 0
    for name in MODULES:
        count += sum(len(test.examples) for test in doctest.DocTestFinder().find(importlib.import_module(name)))
    assert count > 20
