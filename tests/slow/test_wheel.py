"""What `pip install` puts on a machine holds the recipes, the digits, and the style of the report."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from helpers.recipes import FILES, ROOT, name_of

pytestmark = pytest.mark.slow
FILES_BESIDE = ("build/evidence.json", "report/page.css", "report/page.js", "data/datasets/digits.npz", "py.typed")
BUILD = "from setuptools import build_meta; build_meta.build_sdist('dist'); build_meta.build_wheel('dist')"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a wheel and a source distribution of this tree."""
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path_factory.mktemp("tree")
    for name in ("src", "recipes"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    subprocess.run([sys.executable, "-c", BUILD], cwd=tree, check=True, capture_output=True)
    return tree / "dist"


def test_the_wheel_holds_every_recipe_and_finds_it_by_name(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    held = (tmp_path / "site/selfdistill/recipes").rglob("*.yaml")
    assert {f"{path.parent.name}/{path.stem}" for path in held} == {name_of(path) for path in FILES}
    assert not list((tmp_path / "site/selfdistill/recipes").rglob("*.py"))
    assert all((tmp_path / "site/selfdistill" / name).is_file() for name in FILES_BESIDE)
    command = [sys.executable, "-m", "selfdistill", "recipes", "quick/digits_at"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    told = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "method:\n  name: at\n" in told.stdout and "base:" not in told.stdout


def test_the_source_distribution_holds_every_recipe_where_it_lies(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in FILES} | {"setup.py", "recipes/README.md"} <= names
    assert {f"src/selfdistill/{name}" for name in FILES_BESIDE} <= names
