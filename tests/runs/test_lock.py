"""One process at a time writes a run folder."""

import os
import signal
import socket

import pytest

from selfdistill.config.recipe import Recipe
from selfdistill.runs.folder import Run
from selfdistill.runs.lock import FolderTaken, lock_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="locks and forks are those of POSIX")


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", Recipe())


def fork(work):
    """A child process that does `work`, says so, and then waits to be killed; gives its id."""
    done, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(tell, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(done, 1) == b"."
    os.close(done)
    return child


def kill(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_process_is_told_who_writes_the_folder_and_a_dead_one_locks_nothing(run):
    context = lock_folder(run.path)
    child = fork(context.__enter__)
    refusal = f"is being written by process {child} on {socket.gethostname()}; wait"
    with pytest.raises(FolderTaken, match=refusal), run.lock():
        pass
    assert Run.open(run.path).recipe() == Recipe()  # reading needs no lock
    kill(child)
    with run.lock():
        pass
    assert not (run.path / ".lock").exists()


def test_a_run_may_take_its_lock_again_and_two_runs_of_one_process_may_not(run):
    with (
        run.lock(),
        run.lock(),
        pytest.raises(FolderTaken, match=f"process {os.getpid()}"),
        Run.open(run.path).lock(),
    ):
        pass
    with Run.open(run.path).lock():
        pass


def test_a_child_does_not_keep_the_lock_of_a_parent_that_was_killed(run):
    """A process that loads images may live on for seconds after its parent."""
    told, tell = os.pipe()
    context = lock_folder(run.path)

    def lock_and_fork():
        context.__enter__()
        os.write(tell, str(fork(lambda: None)).encode())

    kill(fork(lock_and_fork))
    with run.lock():
        pass
    os.kill(int(os.read(told, 100)), signal.SIGKILL)  # it was still there


def test_a_lock_file_that_somebody_left_is_no_lock(run):
    (run.path / ".lock").write_text("process 1 on elsewhere\n")
    with run.lock():
        assert f"process {os.getpid()} on" in (run.path / ".lock").read_text()


def test_of_two_processes_that_start_in_one_folder_one_is_refused(tmp_path, monkeypatch):
    """Both look at the empty folder first; then one is faster."""
    faster = Run(tmp_path / "run")
    mkdir = os.mkdir

    def overtaken(*args, **options):
        mkdir(*args, **options)
        monkeypatch.undo()
        Run.create(faster.path, Recipe(seed=1))

    monkeypatch.setattr(os, "mkdir", overtaken)
    with pytest.raises(FolderTaken, match="already holds a run"):
        Run.create(tmp_path / "run", Recipe(seed=2))
    assert faster.recipe().seed == 1
