"""The code that a run imports is known by its hash, beside whatever it imports from the same folder."""

import importlib
import sys
from pathlib import Path

import pytest

from selfdistill.runs.code import describe_changes, hash_code

FILES = {
    "mynet.py": "import torch\nfrom mylib.blocks import block\nfrom helpers_of_mine import *\n",
    "mylib/__init__.py": "",
    "mylib/blocks.py": "from . import norms\nfrom .deep.er import depth\n\n\ndef block():\n    import late\n",
    "mylib/norms.py": "",
    "mylib/deep/er.py": "depth = 3\n",  # in a folder without __init__
    "mylib/unused.py": "",
    "helpers_of_mine.py": "import mynet\n",  # in a circle
    "late.py": "",
    "train.py": "import mynet\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_counts_with_what_it_imports_beside_it(folder: Path) -> None:
    before = set(sys.modules)
    imported = {"mynet", "mylib", "mylib.blocks", "mylib.norms", "mylib.deep.er", "helpers_of_mine", "late"}
    assert hash_code(["mynet:Net", "mynet:other"]).keys() == imported
    assert hash_code(["mylib.deep.er:depth"]).keys() == {"mylib", "mylib.deep.er"}
    assert set(sys.modules) == before  # nothing was imported


@pytest.mark.parametrize("name", ["mynet.py", "mylib/norms.py", "mylib/deep/er.py", "late.py", "mylib/unused.py"])
def test_a_changed_file_is_named_if_it_is_imported(folder: Path, name: str) -> None:
    before = hash_code(["mynet:Net"])
    with open(folder / name, "a") as file:
        file.write("# changed\n")
    module = name.removesuffix(".py").replace("/", ".")
    assert describe_changes(before, hash_code(["mynet:Net"])) == ("" if "unused" in name else module)


def test_of_an_installed_package_the_named_module_counts_alone(folder: Path) -> None:
    assert hash_code(["timm.models.resnet:resnet18"]).keys() == {"timm", "timm.models", "timm.models.resnet"}
    assert hash_code(["torch.hub:load"]).keys() == {"torch", "torch.hub"}
    assert hash_code(["selfdistill.models:build_student", "not_there:a", "sys:exit"]) == {}


def test_a_loaded_module_keeps_the_hash_of_what_was_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    before = hash_code(["late:a"])
    module = importlib.import_module("late")
    assert hash_code(["late:a"]) == before
    (folder / "late.py").write_text("new = 1\n")
    assert hash_code(["late:a"]) == before  # this process runs what it loaded
    importlib.reload(module)
    assert hash_code(["late:a"]) != before


def test_a_file_that_does_not_parse_is_left_to_the_import(folder: Path) -> None:
    (folder / "late.py").write_text("def (")
    assert "late" in hash_code(["mynet:Net"])
