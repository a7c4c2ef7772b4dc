"""What environment.json says of the machine and the code."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from selfdistill.config.recipe import Recipe
from selfdistill.runs.environment import Commit, describe_environment
from selfdistill.runs.folder import Run


def test_the_environment_says_where_a_number_comes_from(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Recipe())
    environment = describe_environment(data={"train": "d1f"}, processes=2, precision="bf16")
    run.write_environment(environment)
    kept = run.environment()
    assert kept == environment and (kept.data, kept.processes, kept.precision) == ({"train": "d1f"}, 2, "bf16")
    assert kept.versions["torch"] == version("torch") and kept.versions["selfdistill"] == version("selfdistill")
    assert kept.cores >= 1 and kept.memory_mib > 100 and kept.cpu
    assert kept.started.endswith("+00:00") and Path(sys.argv[0]).name in kept.command


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_environment_knows_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_environment().git is None

    def git(*words: str) -> str:
        who = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b.c",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "core.hooksPath=/dev/null",
        ]
        return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    Path("code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    assert describe_environment().git == Commit(commit=git("rev-parse", "HEAD"), dirty=False)
    Path("code.py").write_text("2")
    assert describe_environment().git.dirty is True


def test_a_machine_without_git_or_proc_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr("selfdistill.runs.environment.subprocess.run", missing)
    monkeypatch.setattr(Path, "read_text", missing)
    environment = describe_environment()
    assert environment.git is None and environment.cpu
