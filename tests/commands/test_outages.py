"""What fails while a run trains: one sentence says what it was and how to go on, and nothing is lost."""

import os
import resource
import shutil
import signal

import pytest
from torch.utils.data import get_worker_info

from selfdistill import __main__ as program
from selfdistill.commands import progress, show, train
from selfdistill.commands.arms import is_done
from selfdistill.commands.failures import describe_failure
from selfdistill.config.read import read
from selfdistill.runs.folder import Run
from selfdistill.training.callbacks import Callback
from selfdistill.training.signals import Interrupted

TINY = [
    *("data=digits", "data.limit=40", "student=cifar:resnet8", "method=baseline", "batch_size=16", "epochs=2"),
    *("precision=fp32", "machine.device=cpu"),
]


@pytest.fixture
def at_step(monkeypatch):
    """Has something done after a step of the next run."""

    def at_step(number, work):
        class Then(Callback):
            def on_step(self, state):
                if state.step == number:
                    work()

        monkeypatch.setattr(progress, "PlainProgress", Then)  # to replace `fit` would make this file the user's code

    return at_step


@pytest.fixture
def file_size_limit():
    """Lets files grow to so many bytes, as a disk that is nearly full does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_disk_that_fills_up_names_the_file_and_the_run_goes_on_later(
    run, tmp_path, at_step, file_size_limit, monkeypatch
):
    folder = tmp_path / "run"
    at_step(3, lambda: file_size_limit(50_000))
    code, _, err = run("train", *TINY, f"out={folder}")
    assert code == 1 and err.count("error:") == 1 and "Traceback" not in err
    assert f"error: {folder}/" in err and f": File too large; go on with: selfdistill train --resume {folder}" in err
    assert Run.open(folder).load_checkpoint()["step"] == 2
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    file_size_limit(resource.RLIM_INFINITY)
    monkeypatch.undo()
    code, _, err = run("train", "--resume", folder)
    assert code == 0 and Run.open(folder).load_checkpoint()["step"] == 4, err


@pytest.mark.slow
def test_a_folder_that_vanishes_is_named(run, tmp_path, at_step):
    folder = tmp_path / "run"
    at_step(1, lambda: shutil.rmtree(folder))
    code, _, err = run("train", *TINY, f"out={folder}")
    assert code == 1 and f"error: {folder}/metrics.jsonl: No such file or directory" in err


def die_in_worker(image):
    """An augmentation that a loader process does not survive."""
    if get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return image


@pytest.mark.slow
def test_a_loader_that_was_killed_is_one_sentence(run, tmp_path):
    words = [*TINY, f"data.augment={__name__}:die_in_worker", "machine.workers=1", "machine.cache=none"]
    code, _, err = run("train", *words, f"out={tmp_path / 'run'}")
    assert code == 1 and err.count("error:") == 1 and "lower machine.workers" in err
    assert f"go on with: selfdistill train --resume {tmp_path / 'run'}" in err


@pytest.mark.slow
def test_a_run_without_a_checkpoint_says_that_it_begins_again(run, tmp_path):
    begun = Run.create(tmp_path / "run", read(None, [*TINY, "epochs=1"]))
    assert "holds no checkpoint; it starts from the beginning" in run("train", "--resume", begun.path)[2]


def test_of_two_runs_that_choose_one_name_at_a_moment_the_slower_takes_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = read(None, [*TINY, "out=runs/a"])
    with train.begin_run(recipe, may_rename=True) as first, train.begin_run(recipe, may_rename=True) as second:
        assert first.path != second.path and second.recipe().out == str(second.path)
    with pytest.raises(ValueError, match="already holds a run"), train.begin_run(recipe, may_rename=False):
        pass


@pytest.mark.slow
def test_an_interrupted_comparison_asks_for_the_same_line_again(run, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise Interrupted("SIGINT: stopped after step 1")

    monkeypatch.setattr(train, "fit", interrupted)
    code, _, err = run("compare", *TINY[:2], "student=cifar:resnet8", "methods=baseline", f"out={tmp_path}")
    assert code == 130 and "SIGINT: stopped after step 1; run the same line again to go on" in err


def test_a_setting_that_a_comparison_advises_is_taken(tmp_path):
    stored = read(None, [*TINY, "optim.milestones=[0.25,0.5]", "optim.schedule=step"])
    run = Run.create(tmp_path / "run", stored)
    words = [*TINY, "optim.milestones=[0.25,0.5]", "optim.schedule=step", "max_steps=3"]
    with pytest.raises(ValueError, match="set max_steps=null or choose another out=") as raised:
        is_done(run.path, read(None, words))
    word = str(raised.value).partition("; set ")[2].partition(" or ")[0]
    assert not is_done(run.path, read(None, [*words, word]))


def test_a_full_disk_behind_standard_output_is_no_empty_name():
    assert describe_failure(OSError(28, "No space left on device")) == ("error: No space left on device", 1)


def test_ctrl_c_in_a_command_is_one_word(run, monkeypatch):
    def interrupt(name, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "print_methods", interrupt)
    assert run("methods") == (130, "", "interrupted\n")


def test_ctrl_c_in_an_import_is_no_traceback_and_other_errors_are(capsys):
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None
    except ImportError as error:
        program.report_uncaught(ImportError, error, None)
    assert capsys.readouterr().err == "interrupted\n"
    program.report_uncaught(KeyError, KeyError("mine"), None)
    assert "KeyError: 'mine'" in capsys.readouterr().err
