"""A run of changed code is another run, a changed recipe is said, and a small comparison keeps the larger table."""

import json
import shutil
import sys

import pytest

TINY = ["data.limit=40", "epochs=1", "batch_size=16", "precision=fp32"]
NET = """
from selfdistill.models import build_student
from width import OPTIONS


def net(num_classes, image_shape):
    return build_student("cifar:resnet8", num_classes=num_classes, image_shape=image_shape, **OPTIONS)
"""
METHOD = """
from selfdistill.methods.baseline import Baseline


class Mine(Baseline):
    note = 1
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Writes a module of the user's own, as an editor between two commands would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within one second would share one file

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        for name in ("mynet", "width", "mymethod"):
            sys.modules.pop(name, None)

    write(mynet=NET, width="OPTIONS = {}\n", mymethod=METHOD)
    yield write
    write()


def read_rows(path):
    return {
        row["method"]: [run.rpartition("/")[2] for run in row["runs"]] for row in json.loads(path.read_text())["rows"]
    }


@pytest.mark.slow
def test_compare_trains_changed_code_anew_and_says_so(run, code, tmp_path):
    words = ["compare", *TINY, "student=mynet:net", "methods=baseline,mymethod:Mine", "seeds=1", "out=all"]
    code_, _, err = run(*words)
    assert code_ == 0, err
    names = {"baseline": ["baseline-s0"], "mymethod:Mine": ["mymethod:Mine-s0"]}
    first = read_rows(tmp_path / "all/compare.json")
    assert len(first) == 2 and first["baseline"] == names["baseline"]
    assert "is finished" in run(*words)[2]
    code(mymethod=METHOD.replace("note = 1", "note = 2"))  # one arm's
    _, _, err = run(*words)
    assert "note: mymethod changed since" in err and "baseline-s0 is finished" in err
    second = read_rows(tmp_path / "all/compare.json")
    assert second["baseline"] == names["baseline"] and second["mymethod:Mine"] == [first["mymethod:Mine"][0] + "-2"]
    code(width="OPTIONS = {}  # of all arms, in a module that theirs imports\n")
    _, out, err = run(*words)
    assert "note: width changed since baseline-s0 was trained, so all/baseline-s0-2 is another run" in err
    third = read_rows(tmp_path / "all/compare.json")
    assert third["baseline"] == ["baseline-s0-2"] and third["mymethod:Mine"][0].endswith("-3")
    assert "changed" not in run(*words)[2]


@pytest.mark.slow
def test_a_run_of_changed_code_does_not_go_on(run, code, tmp_path):
    assert run("train", *TINY, "epochs=2", "student=mynet:net", "method=baseline", "out=a", "--max-steps", "1")[0] == 0
    code(width="OPTIONS = {}  # another\n")
    status, _, err = run("train", "--resume", "a", "max_steps=2")
    assert status == 1
    assert "what a is made of changed since it began, in width; undo that, or start another run with:" in err
    code(width="OPTIONS = {}\n")
    assert run("train", "--resume", "a", "max_steps=2")[0] == 0
    command = err.split("with: selfdistill ")[1].split()
    assert run(*command[:-1], "max_steps=1", "out=b")[0] == 0


@pytest.mark.slow
def test_fewer_arms_or_seeds_keep_the_larger_table(run, tmp_path):
    words = ["compare", *TINY, "student=cifar:resnet8", f"out={tmp_path / 'all'}"]
    assert run(*words, "methods=baseline,label_smoothing", "seeds=2")[0] == 0
    files = [tmp_path / "all" / name for name in ("compare.md", "compare.json")]
    before = [file.read_text() for file in files]
    for fewer in (["methods=label_smoothing", "seeds=1"], ["methods=baseline,label_smoothing", "seeds=1"]):
        code, out, err = run(*words, *fewer)
        assert code == 0 and "keeps the runs of the comparison before and shows 4" in err
        assert ("baseline" in out) == ("baseline" in fewer[0])
        assert [file.read_text() for file in files] == before
    assert run(*words, "methods=focal", "seeds=1")[0] == 0
    assert list(read_rows(files[1])) == ["baseline", "label_smoothing", "focal"]
    files[1].write_text("{")
    assert run(*words, "methods=focal", "seeds=1")[0] == 0
    assert list(read_rows(files[1])) == ["focal"]


@pytest.mark.slow
def test_a_finished_run_whose_recipe_was_changed_is_said_to_be_one(run, tmp_path):
    from selfdistill.report.comparison import compare_runs

    words = ["compare", *TINY, "student=cifar:resnet8", "methods=baseline", "seeds=1", f"out={tmp_path / 'all'}"]
    assert run(*words)[0] == 0
    recipe = tmp_path / "all" / "baseline-s0" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("batch_size: 16", "batch_size: 8"))
    for line in (["train", "--resume", recipe.parent], [*words, "batch_size=8"]):
        code, _, err = run(*line)
        assert code == 1 and "says batch_size=8, and the run was trained with batch_size=16" in err
    recipe.with_name("last.pt").unlink()  # which knows what was trained
    code, _, err = run("train", "--resume", recipe.parent)
    assert code == 0 and "is finished" in err and "recipe.yaml was changed after this run began" in err
    notes = compare_runs([recipe.parent]).notes
    assert any("recipe.yaml was changed after the run began" in note for note in notes)


@pytest.mark.slow
def test_a_recipe_that_was_cut_before_the_first_checkpoint_does_not_begin_another_run(run, tmp_path):
    folder = tmp_path / "run"
    assert run("train", *TINY, "student=cifar:resnet8", "method=baseline", f"out={folder}")[0] == 0
    for name in ("last.pt", "metrics.jsonl"):
        (folder / name).unlink()
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().partition("optim:")[0])
    code, _, err = run("train", "--resume", folder)
    assert code == 1 and "recipe.yaml was cut or changed after the run began, and no checkpoint tells" in err


@pytest.mark.slow
def test_a_teacher_that_was_trained_anew_makes_another_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student = [*TINY, "student=cifar:resnet8"]
    compared = ["compare", *student, "methods=kd+teacher=teacher", "seeds=1", "out=all"]
    started = ["train", *student, "epochs=2", "method=kd", "method.teacher=teacher", "student.start=start"]
    for seed in (0, 1):
        for folder in ("teacher", "start"):
            shutil.rmtree(folder, ignore_errors=True)
            assert run("train", *student, "method=baseline", f"seed={seed}", f"out={folder}")[0] == 0
        code, _, err = run(*compared)
        assert code == 0 and ("note: method.teacher changed since" in err) == (seed == 1)
        if seed == 0:
            assert run(*started, "out=a", "--max-steps", "1")[0] == 0
    code, _, err = run("train", "--resume", "a", "max_steps=2")
    assert code == 1 and "what a is made of changed since it began, in method.teacher; undo that" in err


def test_the_file_that_a_student_started_from_is_recorded_and_not_needed_any_more(run, tmp_path):
    import torch

    from selfdistill.models import build_student
    from selfdistill.runs.folder import Run
    from selfdistill.runs.student import load_student

    file, words = tmp_path / "start.pt", [*TINY, "student=cifar:resnet8", "method=baseline", "epochs=2"]
    stored = build_student("cifar:resnet8", num_classes=10, image_shape=(1, 8, 8)).state_dict()
    torch.save({"state_dict": stored}, file)
    code, _, err = run("train", *words, f"student.start={file}", f"out={tmp_path / 'whole'}")
    assert code == 0 and f"student.start={file}: 56 of 56 tensors are loaded (nested under 'state_dict')" in err
    assert "student.start" in Run(tmp_path / "whole").environment().sources
    run("train", *words, f"student.start={file}", f"out={tmp_path / 'cut'}", "max_steps=1")
    file.unlink()
    assert run("train", "--resume", tmp_path / "cut", "max_steps=4")[0] == 0
    whole, cut = (load_student(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
