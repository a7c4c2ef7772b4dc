"""What is written in a run folder stays in it: links that a stranger put there are not followed."""

import os
from pathlib import Path

import pytest

from selfdistill.config.recipe import Recipe
from selfdistill.runs.environment import Environment
from selfdistill.runs.files import append_to, make_folders, remove_leftovers, replace_file, write_text
from selfdistill.runs.folder import Run
from selfdistill.runs.records import WarningRecord

RECORD = WarningRecord(epoch=1, step=1, text="a")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that must stay as it is."""
    file = tmp_path / "outside" / "precious"
    file.parent.mkdir()
    file.write_text("precious")
    return file


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Recipe())


def take_and_leave(run: Run) -> None:
    with run.lock():
        pass


WRITERS = {
    "train.log": lambda run: run.log("a"),
    "metrics.jsonl": lambda run: run.append(RECORD),
    "environment.json": lambda run: run.write_environment(Environment()),
    ".lock": lambda run: take_and_leave(run),
    "last.pt": lambda run: run.save_checkpoint({"step": 1}),
}


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", WRITERS)
def test_a_link_in_a_run_folder_is_replaced_or_refused(run: Run, outside: Path, name: str, link) -> None:
    link(outside, run.path / name)
    try:
        WRITERS[name](run)
    except (ValueError, OSError) as error:
        assert name in str(error)
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("name", ["train.log", "metrics.jsonl"])
def test_a_link_to_nothing_makes_no_file_and_a_pipe_is_not_waited_for(run: Run, tmp_path: Path, name: str) -> None:
    (run.path / name).symlink_to(tmp_path / "made")
    with pytest.raises(ValueError, match=f"{name} is a link or no plain file"):
        WRITERS[name](run)
    assert not (tmp_path / "made").exists()
    (run.path / name).unlink()
    os.mkfifo(run.path / name)
    with pytest.raises(ValueError, match=f"{name} is a link or no plain file"):
        WRITERS[name](run)


def test_a_temporary_file_is_new_and_cannot_be_foreseen(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with replace_file(tmp_path / "student.onnx") as temporary:
            assert temporary.parent == tmp_path and temporary.suffix == ".onnx" and not temporary.stat().st_size
            names.add(temporary.name)
    assert len(names) == 3 and os.listdir(tmp_path) == ["student.onnx"]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "a")
    (tmp_path / ".a.0123.tmp.txt").write_text("half")
    (tmp_path / ".hidden").write_text("user's")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a.txt"]


def test_folders_are_made_below_a_root_but_not_through_links(tmp_path: Path, outside: Path) -> None:
    assert make_folders(tmp_path / "run", "predictions/a").is_dir()
    (tmp_path / "run" / "predictions" / "b").symlink_to(outside.parent)
    with pytest.raises(ValueError, match=r"predictions/b is a link, and nothing is written through it"):
        make_folders(tmp_path / "run", "predictions/b/c")
    (tmp_path / "named").symlink_to(tmp_path / "run")  # the root itself is what the user named
    assert make_folders(tmp_path / "named", "predictions/a").is_dir()


def test_a_log_grows_and_can_be_read(tmp_path: Path) -> None:
    for text in (b"a\n", b"b\n"):
        with append_to(tmp_path / "log") as file:
            file.write(text)
    with append_to(tmp_path / "log") as file:
        file.seek(0)
        assert file.read() == b"a\nb\n"
