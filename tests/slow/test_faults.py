"""Kills, damaged files, full disks and dead processes: a run that goes on ends as if nothing had been.

SELFDISTILL_FAULTS=10 tries ten times as many kills as the 39 of one round.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.images import damage
from helpers.killed_runs import DIGITS, KINDS, compare
from helpers.programs import call, run, start
from helpers.soak import soak
from selfdistill.commands import train
from selfdistill.config.read import read
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student
from selfdistill.training.callbacks import Callback
from selfdistill.training.loop import fit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")]
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What killed runs of every kind found, in a process of their own."""
    folder = tmp_path_factory.mktemp("killed")
    rounds = os.environ.get("SELFDISTILL_FAULTS", "1")
    words = [sys.executable, "-m", "helpers.killed_runs", str(folder), rounds]
    done = run(words, capture_output=True, text=True, cwd=TESTS)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_killed_anywhere_ends_with_the_same_files_bit_for_bit(killed, kind):
    runs = killed[kind]["runs"]
    assert sum(len(run["killed_at"]) for run in runs) >= len(runs)
    assert [run for run in runs if run["differs"]] == []


class Stop(BaseException):
    """The end of a run at a step, without a checkpoint of it."""


class StopAfter(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, state):
        if state.step == self.step:
            raise Stop


def go_on_until(step, monkeypatch):
    monkeypatch.setattr(
        train, "fit", lambda *args, callbacks, **options: fit(*args, callbacks=[*callbacks, StopAfter(step)], **options)
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a whole run, and that of one that ended in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    words = [*DIGITS, "method=baseline"]
    train.start_run(read(None, [*words, f"out={folder / 'whole'}"]))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        go_on_until(5, patch)
        train.start_run(read(None, [*words, f"out={folder / 'stopped'}"]))
    return folder / "whole", folder / "stopped"


FILES = [
    *("recipe.yaml", "environment.json", "metrics.jsonl", "train.log", "student.json", "student.safetensors"),
    *("last.pt", "last.1.pt"),
]


@pytest.mark.parametrize("harm", ["truncated", "empty", "text"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_in_one_sentence_or_does_no_harm(stopped, tmp_path, name, harm, capsys):
    whole, folder = stopped[0], tmp_path / "run"
    shutil.copytree(stopped[1], folder)
    damage(folder / name, harm)
    try:
        train.resume_run(folder)
    except ValueError as error:
        assert name in str(error) and "\n" not in str(error)
        assert name not in ("last.pt", "last.1.pt", "student.safetensors", "student.json")  # there is another, or soon
        return
    said = capsys.readouterr().err
    assert ("last.pt is truncated or damaged" in said) == (name == "last.pt")
    assert ("metrics.jsonl was cut or edited" in said) == (name == "metrics.jsonl")
    logs = ["log"] if name in ("last.pt", "metrics.jsonl") else []  # it holds the warning
    assert compare(whole, folder) == logs, f"silently so after {name} was {harm}"


@pytest.mark.parametrize("name", ["student.json", "student.safetensors"])
def test_a_damaged_best_student_is_refused_and_the_last_one_is_not(stopped, tmp_path, name):
    shutil.copytree(stopped[0], tmp_path / "run")
    damage(tmp_path / "run" / "best" / name, "truncated")
    with pytest.raises(ValueError, match=f"best/{name} "):
        load_student(tmp_path / "run" / "best")
    assert load_student(tmp_path / "run") is not None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize("limit", ["size=700k", "nr_inodes=13"])
def test_a_full_disk_loses_nothing(stopped, tmp_path, limit):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        with pytest.raises(ValueError, match=f"{disk}/run.*: No space left on device; go on with: selfdistill train"):
            train.start_run(read(None, [*DIGITS, "method=baseline", f"out={disk / 'run'}"]))
        run = Run.open(disk / "run")
        assert run.load_whole_checkpoint()[1] is None
        subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=1000", disk], check=True)
        train.resume_run(run.path)
        assert compare(stopped[0], run.path) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_process_that_was_killed_ends_the_other_with_a_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    words = [sys.executable, "-m", "selfdistill", "train", *DIGITS[:-1], "method=baseline", "epochs=5000", "out=run"]
    processes = [
        start(
            words,
            cwd=tmp_path,
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    while not (tmp_path / "run" / "last.pt").exists() and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    (_, said), _ = (process.communicate() for process in processes)
    assert processes[0].returncode == 1 and "Traceback" not in said, said
    assert "another process of this training ended or cannot be reached; go on with: selfdistill train --resume" in said


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux tells of a process")
def test_two_thousand_steps_leave_memory_and_open_files_as_they_were(tmp_path):
    call(soak, str(tmp_path))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert len(seen) == 4
    (files, objects, memory), *_, (files_at_end, objects_at_end, memory_at_end) = seen
    assert files_at_end == files and objects_at_end - objects < 500 and memory_at_end - memory < 16
