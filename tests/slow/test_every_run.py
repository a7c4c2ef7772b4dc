"""Every method through the training loop: a run that was stopped ends like one that was not, and its student ships."""

import pytest
from safetensors.torch import load_file

from selfdistill import list_methods
from selfdistill.build import build
from selfdistill.interrupt import Interrupted
from selfdistill.methods import find_method
from selfdistill.recipe import read
from selfdistill.run import Run, load_student
from test_every_method import same
from test_train import StopAt

pytestmark = pytest.mark.slow

WORDS = ["data.limit=52", "student=cifar:resnet8", "batch_size=16", "epochs=2", "precision=fp32", "optim.lr=0.02"]
METHODS = list_methods()
STEPS = 8  # 52 digits less the held-out ones are 3 batches and an incomplete one


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run folders of whole runs by method, each trained once."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def trained(method):
        if method not in done:
            done[method] = folder / method
            recipe = read(None, words(method, done[method], trained))
            job = build(recipe)
            job.fit(Run.create(done[method], job.recipe))
        return done[method]

    return trained


def words(method, out, trained):
    kind = find_method(method)
    teacher = [f"method.teacher={trained(kind.teacher_method or 'baseline')}"] if kind.needs_teacher else []
    return [*WORDS, f"method={method}", f"out={out}", *teacher]


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_ends_with_the_same_weights_and_memory(method, trained, tmp_path):
    whole = Run.open(trained(method))
    job = build(read(None, words(method, tmp_path / "run", trained)))
    with pytest.raises(Interrupted, match="SIGTERM"):
        job.fit(Run.create(tmp_path / "run", job.recipe), watch=StopAt(5))
    stopped = Run.open(tmp_path / "run")
    assert stopped.load_checkpoint("last")["step"] == 5
    build(stopped.recipe()).fit(stopped, resume=True)
    ours, theirs = (run.load_checkpoint("last") for run in (stopped, whole))
    assert ours["step"] == theirs["step"] == STEPS
    assert same(ours["method"], theirs["method"]) and same(ours["optimizer"], theirs["optimizer"])


@pytest.mark.parametrize("method", METHODS)
def test_the_student_that_ships_has_the_baselines_keys_and_no_more(method, trained):
    own, plain = (load_file(trained(name) / "student.safetensors") for name in (method, "baseline"))
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in plain.items()}
    assert load_student(trained(method)) is not None
    ends = [record for record in Run.open(trained(method)).metrics() if record["kind"] == "end"]
    assert len(ends) == 1 and ends[0]["step"] == STEPS
