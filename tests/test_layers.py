"""The dependency rule, read from the imports of every file: an arrow may only point down."""

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import selfdistill
from helpers.sources import import_statements

ROOT = Path(selfdistill.__file__).parent
LAYERS = [  # of folders and single files, from the top; the units of one layer may import each other
    {"cli"},
    {"commands"},
    {"build"},
    {"training", "export", "report", "adapters"},
    {"tasks"},
    {"methods", "data", "runs"},
    {"method", "models"},
    {"task", "modules", "metrics"},
    {"features", "losses", "mixing", "distributed", "config", "errors", "imports", "hyperparameters"},
]
STRANGERS = [  # (who, whom): imports that the layers alone would allow
    *((a, b) for a in LAYERS[5] for b in LAYERS[5] if a != b),
    ("training", "methods"),  # the loop names no method
]
MOST_UNITS, MOST_ARROWS = 25, 90
DEPTH = {unit: depth for depth, layer in enumerate(LAYERS) for unit in layer}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imported(source: str, file: str) -> Iterator[str]:
    """Dotted names below `selfdistill` that the source of `file` imports, wherever in it the import stands.

    Of `from a import b` it is `a.b`, whether b is a module or a name in one.
    """
    here = ["selfdistill", *Path(file).parent.parts]
    for node in import_statements(source):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            start = here[: len(here) - node.level + 1] if node.level else []
            start += node.module.split(".") if node.module else []
            names = [[*start, alias.name] for alias in node.names]
        yield from (".".join(name[1:]) for name in names if name[0] == "selfdistill")


def unit(name: str) -> str:
    """The file or folder just below the package that a dotted name or a path lies in."""
    first = name.removesuffix(".py").replace("/", ".").split(".")[0]
    return "cli" if first == "__main__" else first  # `python -m selfdistill` is the command line


def objections(source: str, file: str) -> list[str]:
    """One sentence for each import of `file` that breaks the rule."""
    own, found = unit(file), []
    for name in imported(source, file):
        other = unit(name)
        if other == own or (other.startswith("__") and other != "__main__"):  # selfdistill.__version__ and the like
            continue
        if other not in DEPTH:
            found.append(f"{file} imports selfdistill.{name}, not from the module that holds it")
        elif (own, other) in STRANGERS:
            found.append(f"{own} must not know {other}, and {file} imports {name}")
        elif DEPTH[other] < DEPTH[own]:
            found.append(f"{other} lies above {own}, and {file} imports {name}")
    return found


def test_arrows_point_down():
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in FILES if file != "__init__.py"}
    assert {file: found for file, text in texts.items() if (found := objections(text, file))} == {}


def test_every_folder_has_a_place_in_the_layers_and_every_place_a_folder():
    assert {unit(file) for file in FILES} - {"__init__"} == DEPTH.keys()


@functools.cache
def arrows() -> set[tuple[str, str]]:
    """(importing unit, imported unit), between different ones."""
    found = set()
    for file in set(FILES) - {"__init__.py"}:
        for name in imported((ROOT / file).read_text(encoding="utf-8"), file):
            if unit(name) in DEPTH and unit(name) != unit(file):
                found.add((unit(file), unit(name)))
    return found


def test_the_house_stays_small_enough_to_be_drawn():
    assert len(DEPTH) <= MOST_UNITS and len(arrows()) <= MOST_ARROWS


def test_no_two_units_import_each_other_in_a_circle():
    graph = TopologicalSorter()
    for importing, other in arrows():
        graph.add(importing, other)
    graph.prepare()  # raises CycleError


def test_one_file_imports_accelerate():
    importing = {
        file
        for file in FILES
        for node in import_statements((ROOT / file).read_text(encoding="utf-8"))
        if (isinstance(node, ast.Import) and any(unit(alias.name) == "accelerate" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and unit(node.module) == "accelerate")
    }
    assert importing == {"training/device.py"}


@pytest.mark.parametrize(
    ("line", "file", "name"),
    [
        ("import selfdistill.training.loop", "losses.py", "training.loop"),
        ("import os, selfdistill.data.datasets.base as rows", "losses.py", "data.datasets.base"),
        ("from selfdistill.training.loop import fit", "losses.py", "training.loop.fit"),
        ("from selfdistill import training", "losses.py", "training"),
        ("from . import training", "losses.py", "training"),
        ("from .training import loop", "losses.py", "training.loop"),
        ("from .. import training", "modules/bifpn.py", "training"),
        ("from ..training.loop import fit", "modules/bifpn.py", "training.loop.fit"),
        ("from ..methods.frskd import FRSKD", "modules/__init__.py", "methods.frskd.FRSKD"),
        ("def f():\n    if True:\n        from ..training import fit", "modules/bifpn.py", "training.fit"),
        ("from ..data import loader", "methods/frskd.py", "data.loader"),
        ("from ...runs import folder", "data/datasets/base.py", "runs.folder"),
        ("from ..methods import create_method", "training/loop.py", "methods.create_method"),
        ("from ..method import Method", "metrics/evaluation.py", "method.Method"),
        ("from . import build_student", "build.py", "build_student"),
    ],
)
def test_a_forbidden_import_is_seen_in_every_way_of_writing_it(line, file, name):
    assert list(imported(line, file)) == [name]
    assert len(objections(line, file)) == 1


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("import torch, timm.models", "losses.py"),
        ("from .teachers import Frozen", "modules/bifpn.py"),
        ("from ..method import Method", "methods/frskd.py"),
        ("from ..runs.folder import Run", "training/loop.py"),
        ("from .. import __version__", "runs/folder.py"),
        ("from ..build import build", "commands/train.py"),
    ],
)
def test_an_arrow_down_or_to_the_side_is_free(line, file):
    assert objections(line, file) == []
