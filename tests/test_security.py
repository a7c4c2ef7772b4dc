"""SECURITY.md names tests that exist, and the lower bounds that are declared."""

import re
import tomllib
from pathlib import Path

import pytest

import selfdistill

ROOT = Path(selfdistill.__file__).parents[2]
PAGE = ROOT / "SECURITY.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the package is installed without its source tree")


def test_every_promise_names_tests_that_exist():
    promises = PAGE.read_text(encoding="utf-8").split("## What holds")[1].split("## What does not")[0].split("\n**")[1:]
    assert len(promises) > 5
    for promise in promises:
        files = re.findall(r"`(tests/[^`]+)`", promise)
        assert files and all((ROOT / file).is_file() for file in files), promise


def test_the_lower_bounds_are_those_that_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["hf"]]
    bounds = re.findall(r"^- `(\w+>=[\d.]+)`", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(bounds) > 5 and set(bounds) <= set(declared)
