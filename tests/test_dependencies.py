"""Every package that the source imports is declared, so that it is there after `pip install selfdistill`."""

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import selfdistill

PACKAGE = Path(selfdistill.__file__).parent
ROOT = PACKAGE.parents[1]
PYPROJECT = ROOT / "pyproject.toml"
FOLDERS = {
    PACKAGE: ("hf", "onnx", "transformers"),
    ROOT / "benchmarks": ("hf", "onnx", "dev"),
}  # and the extras that each may use


@functools.cache
def imported_modules(folder: Path) -> dict[str, str]:
    """The top-level modules that files of a folder import, wherever the import stands, with one file of each."""
    modules = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            else:
                continue
            modules |= {name.partition(".")[0]: path.name for name in names}
    return modules


def normalize(name: str) -> str:
    """A distribution's name as the index knows it: without version, extras and differences of writing."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", name, maxsplit=1)[0]).lower()


pytestmark = pytest.mark.skipif(not PYPROJECT.exists(), reason="the package is installed without its source tree")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_imported_package_is_declared(folder):
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = [name for extra in FOLDERS[folder] for name in project["optional-dependencies"][extra]]
    declared = {normalize(name) for name in (*project["dependencies"], *extras)}
    own = {"selfdistill", *(path.stem for path in folder.glob("*.py"))}
    distributions = packages_distributions()
    for module, file in imported_modules(folder).items():
        if module not in sys.stdlib_module_names and module not in own:
            names = {normalize(name) for name in distributions.get(module, [module])}
            assert names & declared, f"{file} imports {module}, and pyproject.toml declares none of {', '.join(names)}"


def test_every_declared_package_is_imported():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    distributions = packages_distributions()
    used = {normalize(name) for module in imported_modules(PACKAGE) for name in distributions.get(module, [module])}
    assert {normalize(name) for name in project["dependencies"]} <= used
