"""What `selfdistill contract` finds wrong with a method, and the method that `new-method` writes."""

import sys

import pytest
import torch

from helpers.programs import run
from selfdistill import Method, Step
from selfdistill.commands import contract
from selfdistill.commands.template import write_method


class Plain(Method):
    """The labels teach."""

    cost = "none"

    def forward(self, batch, progress=0.0):
        logits = self.student(batch.images)
        return Step({"task": self.task.loss(logits, batch.target)}, logits)


class Infinite(Plain):
    def forward(self, batch, progress=0.0):
        step = super().forward(batch)
        return step._replace(losses={"task": step.losses["task"] / 0})


class Idle(Plain):
    def setup(self):
        self.head = torch.nn.Linear(2, 2)


class Scaled(Plain):
    def forward(self, batch, progress=0.0):
        step = super().forward(batch)
        return step._replace(logits=2 * step.logits)


class Hooked(Plain):
    def setup(self):
        self.student.register_forward_hook(print_nothing)


class Writing(Plain):
    def forward(self, batch, progress=0.0):
        batch.images.add_(0.1)
        return super().forward(batch)


class Moody(Plain):
    calls = 0

    def forward(self, batch, progress=0.0):
        Moody.calls += 1
        step = super().forward(batch)
        return step._replace(losses={"task": step.losses["task"] * Moody.calls})


class Forgetful(Plain):
    """Remembers in an attribute, which no checkpoint holds."""

    seen = 0.0

    def forward(self, batch, progress=0.0):
        step = super().forward(batch)
        self.seen += 1.0
        return step._replace(losses={"task": step.losses["task"] * self.seen})


class Teaching(Plain):
    needs_teacher = True

    def forward(self, batch, progress=0.0):
        with torch.no_grad():
            next(self.teacher.parameters()).add_(0.1)
        return super().forward(batch)


class Single(Plain):
    def forward(self, batch, progress=0.0):
        step = super().forward(batch)
        return step._replace(losses={"task": step.losses["task"].float()})


class Half(Plain):
    def forward(self, batch, progress=0.0):
        step = super().forward(batch)
        return step._replace(losses={"task": step.logits.square().mean()})


class Silent(Plain):
    """The labels teach, at no said price."""

    cost = ""


READING = '''
from selfdistill import Method, Step


class Reading(Method):
    """The labels teach."""

    cost = "none"

    def forward(self, batch, progress=0.0):
        logits = self.student(batch.images)
        task = self.task.loss(logits, batch.target)
        return Step({"task": task if task.item() > 0 else 2 * task}, logits)
'''


def print_nothing(module, args, output):
    return None


@pytest.mark.parametrize(
    ("broken", "promise", "sentence"),
    [
        (Infinite, "every loss term is a finite number", "for task, which is no number"),
        (Idle, "every weight that may learn gets a gradient", r"leaves head.weight without a gradient \(2 such\)"),
        (Scaled, "its logits are the student's", "returns other logits"),
        (Hooked, "the student stays a plain network", "leaves a hook on the student's network"),
        (Writing, "the batch stays as it was", "writes into batch.images"),
        (Moody, "the same seed gives the same step", "gives other losses"),
        (Forgetful, "a resumed run goes on as if it had not stopped", "ends with another task"),
        (Teaching, "a teacher is left alone", "changes its teacher's"),
        (Single, "float64 stays float64", "computes task in torch.float32"),
        (Half, "bfloat16 reaches no loss", "computes task in torch.bfloat16"),
        (Silent, "it says what it does and what it costs", "says nothing of its price"),
    ],
)
def test_a_broken_promise_is_found(broken, promise, sentence):
    trial = contract.build_trial(broken, "classification")
    with pytest.raises(contract.Broken, match=sentence):
        contract.PROMISES[promise](trial)
    plain = contract.build_trial(Plain, "classification")
    contract.PROMISES[promise](plain)


def command(*words, cwd):
    """Runs `selfdistill contract` free of the tests' type checks, which no compiler sees through."""
    return run([sys.executable, "-m", "selfdistill", "contract", *words], capture_output=True, text=True, cwd=cwd)


@pytest.mark.slow
def test_a_step_that_reads_a_value_is_not_one_graph(tmp_path):
    (tmp_path / "mine.py").write_text(READING)
    done = command("mine:Reading", cwd=tmp_path)
    broken = [line for line in done.stdout.splitlines() if line.startswith("NO ")]
    assert done.returncode == 1 and len(broken) == 1 and "a step is one graph: it is not one graph" in broken[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hsakd", "dlb", "cs_kd"])
def test_methods_of_the_package_keep_their_promises(name, tmp_path):
    done = command(name, cwd=tmp_path)
    assert done.returncode == 0 and "NO " not in done.stdout, done.stdout


@pytest.mark.slow
def test_a_method_with_phases_keeps_its_promises_in_each(tmp_path):
    lines = [
        "from selfdistill.methods.frskd import FRSKD",
        "class Late(FRSKD):",
        '    "It begins late."',
        "    outputs, start, settle = ('image',), 0.2, 0.2",
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    done = command("mine:Late", cwd=tmp_path)
    assert done.returncode == 0 and "NO " not in done.stdout, done.stdout


def test_every_promise_has_a_method_that_breaks_it():
    (cases,) = [mark for mark in test_a_broken_promise_is_found.pytestmark if mark.name == "parametrize"]
    assert {promise for _, promise, _ in cases.args[1]} == set(contract.PROMISES) - {"a step is one graph"}


def test_what_goes_wrong_otherwise_is_said_too(capsys, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(
        "from selfdistill import Method\n\n\nclass Failing(Method):\n    def forward(self, batch, progress=0.0):\n"
        "        raise KeyError(1)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert not contract.print_contract("failing:Failing")
    assert "NO  classification: the batch stays as it was: it fails: KeyError: 1" in capsys.readouterr().out


@pytest.mark.slow
def test_the_method_to_start_from_keeps_its_contract(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_method("my_own")
    done = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_own.py"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "13 passed" in done.stdout, done.stdout
    assert "selfdistill contract my_own:MyOwn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-own", "is no name for a Python file"),
        ("class", "is no name for a Python file"),
        ("frskd", "a method of the package is called frskd"),
    ],
)
def test_names_that_cannot_be_taken_are_refused(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        write_method(name)
    assert not [*tmp_path.iterdir()]


def test_no_file_is_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_mine.py").write_text("mine")
    with pytest.raises(ValueError, match="test_mine.py exists already"):
        write_method("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
