"""Every package that the source imports is declared, so that it is there after `pip install selfdistill`."""

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import selfdistill
from helpers.sources import import_statements

PACKAGE = Path(selfdistill.__file__).parent
ROOT = PACKAGE.parents[1]
PYPROJECT = ROOT / "pyproject.toml"
FOLDERS = {
    PACKAGE: ("hf", "onnx", "transfer", "transformers"),
    ROOT / "benchmarks": ("hf", "onnx", "dev"),
}  # and the extras that each may use


@functools.cache
def imported_modules(folder: Path) -> dict[str, str]:
    """The top-level modules that files of a folder import, wherever the import stands, with one file of each."""
    modules = {}
    for path in folder.rglob("*.py"):
        for node in import_statements(path.read_text(encoding="utf-8")):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif not node.level and node.module:
                names = [node.module]
            else:
                continue
            modules |= {name.partition(".")[0]: path.name for name in names}
    return modules


find_distributions = functools.cache(packages_distributions)


def normalize(name: str) -> str:
    """A distribution's name as the index knows it: without version, extras and differences of writing."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", name, maxsplit=1)[0]).lower()


pytestmark = pytest.mark.skipif(not PYPROJECT.exists(), reason="the package is installed without its source tree")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_imported_package_is_declared(folder):
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = [name for extra in FOLDERS[folder] for name in project["optional-dependencies"][extra]]
    declared = {normalize(name) for name in (*project["dependencies"], *extras)}
    own = {"selfdistill", *(path.stem for path in folder.rglob("*.py") if folder != PACKAGE)}  # scripts' siblings
    distributions = find_distributions()
    for module, file in imported_modules(folder).items():
        if module not in sys.stdlib_module_names and module not in own:
            names = {normalize(name) for name in distributions.get(module, [module])}
            assert names & declared, f"{file} imports {module}, and pyproject.toml declares none of {', '.join(names)}"


def test_every_declared_package_is_imported():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    distributions = find_distributions()
    used = {normalize(name) for module in imported_modules(PACKAGE) for name in distributions.get(module, [module])}
    assert {normalize(name) for name in project["dependencies"]} <= used


def list_requirements() -> list[Requirement]:
    """Those of the package and of all its extras, without the package itself."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    requirements = map(Requirement, lines)
    return [requirement for requirement in requirements if requirement.name != project["name"]]


def read_pins(name: str) -> dict[str, str]:
    lines = (ROOT / ".ci" / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_oldest_libraries_that_are_tried_are_the_declared_bounds():
    pins = {normalize(name): Version(version) for name, version in read_pins("oldest.txt").items()}
    bounds = {normalize(r.name): Version(next(iter(r.specifier)).version) for r in list_requirements()}
    assert {name: bounds.get(name) for name in pins} == pins
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    assert {normalize(line) for line in project["dependencies"]} <= set(pins)


def test_the_locked_libraries_are_all_that_development_needs():
    pins = {normalize(name): version for name, version in read_pins("lock.txt").items()}
    for requirement in list_requirements():
        if requirement.name != "tensorboard":  # an extra that development does without
            assert pins[normalize(requirement.name)] in requirement.specifier, requirement


def test_the_workflow_runs_what_ci_runs_on_every_declared_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1]["run"] == "bash .ci/run"
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    versions = [text.rpartition(" ")[2] for text in project["classifiers"] if ":: 3." in text]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
