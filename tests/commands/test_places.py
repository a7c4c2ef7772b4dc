"""A run whose recipe has relative paths, used from another folder than it was started in."""

import json

import pytest

from helpers.images import write_classes
from selfdistill.runs.folder import Run

WORDS = ["student=cifar:resnet8", "method=baseline", "epochs=2", "batch_size=8", "precision=fp32"]


@pytest.fixture
def started(run, tmp_path, monkeypatch):
    """A run in the folder `there`, stopped after a step; this process is in the folder `here`."""
    there, here = tmp_path / "there", tmp_path / "here"
    write_classes(there / "images", {"a": 8, "b": 8})
    here.mkdir()
    monkeypatch.chdir(there)
    code, _, err = run("train", "data=./images", *WORDS, "max_steps=1", "out=run")
    assert code == 0, err
    monkeypatch.chdir(here)
    return there / "run"


@pytest.mark.slow
def test_images_are_found_from_another_folder_and_said_to_be(run, started):
    expected = Run(started).records()[-1].scores
    code, out, err = run("eval", started, "--json")
    assert code == 0 and json.loads(out)["top1"] == expected.top1
    assert f"note: ./images is {started.parent / 'images'}, as seen from where" in err and "not those" not in err
    code, _, err = run("train", "--resume", started, "max_steps=2")
    assert code == 0 and Run(started).load_checkpoint()["step"] == 2, err


@pytest.mark.slow
def test_images_that_lie_nowhere_or_are_others_are_said_to_be(run, started, tmp_path):
    write_classes(tmp_path / "here" / "images", {"a": 8, "b": 9})
    code, _, err = run("eval", started)
    assert code == 0 and "held-out images of ./images are not those that the run was scored on" in err
    (tmp_path / "here" / "images").rename(tmp_path / "gone")
    (started.parent / "images").rename(tmp_path / "gone too")
    for words, advice in ((["eval", started], "--data"), (["train", "--resume", started, "max_steps=2"], "from there")):
        code, _, err = run(*words)
        where = f"{tmp_path / 'here'} or in {started.parent}, where the run was started"
        assert code == 1 and f"there is no file or folder ./images in {where}; " in err and advice in err
    assert run("eval", started, "--data", tmp_path / "gone")[0] == 0
