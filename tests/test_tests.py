"""What the tests themselves keep."""

import ast
from pathlib import Path

import jaxtyping
import pytest
import torch

import planted_faults
from helpers.sources import import_statements
from selfdistill.losses import kd

HERE = Path(__file__).parent
FILES = sorted(HERE.rglob("*.py"))


def imported_modules(file: Path) -> set[str]:
    nodes = import_statements(file.read_text(encoding="utf-8"))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_no_test_imports_another_or_a_conftest():
    names = {(file.name, name.rpartition(".")[2]) for file in FILES for name in imported_modules(file)}
    assert not {(file, name) for file, name in names if name == "conftest" or name.startswith("test_")}


def test_planted_faults_follow_the_code():
    faults = planted_faults.read_faults()
    stale = [(fault.name, fault.file) for fault in faults if planted_faults.count_old(fault) != 1]
    lost = [word for fault in faults for word in fault.tests if word.endswith(".py") and not (HERE / word).exists()]
    assert len({fault.name for fault in faults}) == len(faults) >= 100 and not stale and not lost


def test_every_file_of_the_slow_folder_is_marked_slow():
    """The fast set does not read this folder."""
    files = [file for file in (HERE / "slow").glob("test_*.py")]
    fast = [file.name for file in files if "pytest.mark.slow" not in file.read_text().partition("\ndef ")[0]]
    assert len(files) > 20 and not fast


def test_shapes_are_checked_where_they_are_named():
    with pytest.raises(jaxtyping.TypeCheckError):
        kd(torch.zeros(2, 3), torch.zeros(2, 4))
