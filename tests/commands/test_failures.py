"""What the program says of errors, of the user's own code above all."""

import sys

import pytest

from helpers.images import write_classes

TINY = ["data.limit=40", "epochs=1", "batch_size=16", "precision=fp32", "data=digits"]
CODE = """
import torch
from torch import nn
from selfdistill import Method
from selfdistill.methods.baseline import Baseline


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, images):
        return self.head(images.flatten(1))


class Typo(Net):
    def forward(self, images):
        return self.haed(images.flatten(1))  # line 19


class WrongSize(Net):
    def forward(self, images):
        return self.head(images)  # line 24


def broken_build(num_classes):
    return {}["net"]  # line 28


class Mislaid(Net):
    def forward(self, images):
        if self.training:
            open("no such file")  # line 34
        return super().forward(images)


class Mine(Baseline):
    def forward(self, batch, progress):
        raise ValueError("not today")  # line 40


class MineAtSetup(Baseline):
    def setup(self):
        self.layer = nn.Lienar(3, 3)  # line 45


def criterion(logits, target, soft_target, ignore_index):
    return logits[target.shape[0] + 99].sum()  # line 49


def transform(image):
    return image.no_such_thing()  # line 53


class OnlyFloat32(Net):
    def forward(self, images):
        scores = self.head(images.flatten(1))
        return torch.zeros(scores.shape).scatter(1, scores.argsort(dim=1), scores)


class OnlyFloat32AtRest(Net):
    def forward(self, images):
        scores = self.head(images.flatten(1))
        return scores if self.training else torch.zeros(scores.shape).scatter(1, scores.argsort(dim=1), scores)


class TooLarge(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.extra = torch.empty(2**50)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_code", None)


@pytest.mark.parametrize(
    ("words", "error", "line"),
    [
        (["student=own_code:Typo", "method=baseline"], "AttributeError: 'Typo' object has no attribute 'haed'", 19),
        (["student=own_code:WrongSize", "method=baseline"], "RuntimeError", 24),
        (["student=own_code:broken_build", "method=baseline"], "KeyError: 'net'", 28),
        (["student=own_code:Mislaid", "method=baseline"], "FileNotFoundError", 34),
        (["student=own_code:Net", "method=own_code:Mine"], "ValueError: not today", 40),
        (["student=own_code:Net", "method=own_code:MineAtSetup"], "AttributeError", 45),
        (["student=own_code:Net", "method=baseline", "task.criterion=own_code:criterion"], "IndexError", 49),
        (["student=own_code:Net", "method=baseline", "data.augment=own_code:transform"], "AttributeError", 53),
    ],
)
def test_an_error_in_own_code_keeps_its_file_and_line_and_blames_no_image(run, folder, words, error, line):
    code, _, err = run("train", *TINY, *words, f"out={folder / 'run'}")
    last = err.splitlines()[-1]
    assert code == 1 and last.startswith("error: ") and f"(own_code.py:{line})" in last and error in last
    assert last.endswith("; --traceback shows all of it")
    for blame in ("cannot be read", "take another image size", "more such image", "cannot take images"):
        assert blame not in last


@pytest.mark.parametrize("student", ["OnlyFloat32", "OnlyFloat32AtRest"])
def test_a_student_that_fails_in_bfloat16_names_the_precision(run, folder, student):
    words = [*TINY, f"student=own_code:{student}", "method=baseline"]
    code, _, err = run("train", *words, "precision=bf16", f"out={folder / 'half'}")
    last = err.splitlines()[-1]
    assert code == 1 and last.startswith("error: the student runs in float32 and not in bf16 (RuntimeError: ")
    assert "own_code.py:" in last and "set precision=fp32" in last
    assert run("train", *words, f"out={folder / 'full'}")[0] == 0


def test_traceback_shows_all_wherever_it_stands(run, folder):
    for words in (["--traceback", "train"], ["train", "--traceback"]):
        with pytest.raises(ValueError, match="raised KeyError") as error:
            run(*words, *TINY, "student=own_code:broken_build", "method=baseline", f"out={folder / 'run'}")
        assert isinstance(error.value.__cause__, KeyError)


def test_too_little_memory_is_one_sentence(run, folder):
    code, _, err = run("train", *TINY, "student=own_code:TooLarge", "method=baseline", f"out={folder / 'run'}")
    last = err.splitlines()[-1]
    assert code == 1 and last.startswith("error: there is too little memory (")
    assert last.endswith("or a larger optim.accumulate, needs less")


def test_errors_of_others_name_no_line(run, tmp_path):
    write_classes(tmp_path / "images", {"a": 4, "b": 4})
    (tmp_path / "images" / "a" / "0.png").write_bytes(b"no image")
    code, _, err = run("train", f"data={tmp_path / 'images'}", f"out={tmp_path / 'run'}")
    assert code == 1 and "a/0.png cannot be read" in err and "traceback" not in err and ".py" not in err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["train", "--epochs", "3"], "settings have no dashes: write epochs=3"),
        (["train", "--method=frskd"], "settings have no dashes: write method=frskd"),
        (["train", "quick/digits", "--batch-size", "8"], "settings have no dashes: write batch_size=8"),
        (["compare", "--nesterov"], "settings have no dashes: write optim.nesterov=VALUE"),
        (["init", "--lr", "--seed"], "settings have no dashes: write optim.lr=VALUE"),
        (["train", "--ephocs", "3"], "no option --ephocs; settings are written NAME=VALUE; did you mean 'epochs'?"),
        (["train", "epochs", "3"], "'epochs' is neither a recipe nor name=value; write epochs=VALUE"),
        (["train", "quick/digits", "optim.lr", "0.1"], "write optim.lr=VALUE"),
        (["train", "stamina=3"], "no setting is called 'stamina'; there are data, task, student"),
        (["train", "student.thaw=true"], "there are student.name, student.pretrained, student.start"),
        (["train", "student.pretraind=true"], "did you mean 'student.pretrained'?"),
        (["train", "momentun=0.5"], "did you mean 'optim.momentum'?"),
        (["train", "student=own_code.TinyNet"], "write 'own_code:TinyNet'"),
        (["train", "method=own_code.Mine"], "write 'own_code:Mine'"),
        (["train", "task=own_code.Task"], "write 'own_code:Task'"),
        (["train", "data.augment=own_code.transform"], "write 'own_code:transform'"),
        (["train", "task.criterion=own_code.criterion"], "write 'own_code:criterion'"),
        (["train", "student=own_cod:Net"], "did you mean 'own_code'?"),
    ],
)
def test_a_word_that_is_nearly_right_is_answered_with_the_right_one(run, folder, words, answer):
    code, _, err = run(*words)
    assert code == 1 and err.startswith("error: ") and answer in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_hint_names_nothing_unlike_what_was_said(run, folder):
    (folder / "prepare.py").write_text("")
    for word in ("student=zebra:Net", "student=mynet.TinyNet", "zoom=3", "student.depth=9"):
        assert "did you mean" not in (err := run("train", word)[2]) and "prepare" not in err


def test_version_and_short_help(run):
    import selfdistill

    assert run("--version") == (0, f"selfdistill {selfdistill.__version__}\n", "")
    for command in ("train", "compare", "eval", "predict", "export", "methods", "recipes", "taps", "init"):
        code, out, _ = run(command, "-h")
        assert code == 0 and command in out
