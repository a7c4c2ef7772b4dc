"""Every method through the training loop: a run that was stopped ends like one that was not, and its student ships."""

import pytest
from safetensors.torch import load_file

from helpers.contract import FEWER_CASES
from helpers.runs import StopAt
from helpers.states import same
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.data.datasets import scenes
from selfdistill.methods import find_method
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord
from selfdistill.runs.student import load_student
from selfdistill.training.loop import fit
from selfdistill.training.signals import Interrupted

pytestmark = pytest.mark.slow

COMMON = ["epochs=2", "precision=fp32", "optim.lr=0.02"]
DIGITS = ["data.limit=52", "student=helpers.plain_students:Stages", "batch_size=16", "data.drop_last=false"]
WORDS = {
    "multilabel": ["task=multilabel", *DIGITS],
    "classification": DIGITS,
    "segmentation": [
        *("task=segmentation", "data.limit=14", "data.image_size=32", "batch_size=4"),
        "student=helpers.compiled_runs:segmenter",
    ],
}
UNET = ["student=smp:Unet/mobilenetv3_small_050", "student.options={decoder_channels: [16, 16, 8, 8, 8]}"]
WORDS["segmentation by a U-Net"] = [*WORDS["segmentation"][:-1], *UNET]
CASES = [*FEWER_CASES]
CASES += [(name, "segmentation by a U-Net") for name in ("frskd", "kd_tf_fd")]
every_case = pytest.mark.parametrize(("method", "kind"), CASES)
STEPS = {
    "multilabel": 8,
    "classification": 8,
    "segmentation": 6,
    "segmentation by a U-Net": 6,
}  # three batches, twice, with and without the rest: 52 digits, 14 scenes


@pytest.fixture(scope="module", autouse=True)
def few_held_out_scenes():
    """Half of the time would go into scores that no test looks at."""
    with pytest.MonkeyPatch.context() as patch:
        for split in ("val", "test"):
            patch.setitem(scenes.SCENES, split, 3)
            patch.setitem(scenes.DIGIT_SCENES, split, 3)
        patch.setitem(scenes.DIGIT_SCENES, "train", 60)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run folders of whole runs by method and kind of task, each trained once."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def trained(method, kind):
        if (method, kind) not in done:
            done[method, kind] = folder / f"{method}-{kind}"
            job = build(read(None, words(method, kind, done[method, kind], trained)))
            fit(job, Run.create(done[method, kind], job.recipe))
        return done[method, kind]

    return trained


def words(method, kind, out, trained):
    found = find_method(method)
    teacher = [f"method.teacher={trained(found.teacher_method or 'baseline', kind)}"] if found.needs_teacher else []
    return [*COMMON, *WORDS[kind], f"method={method}", f"out={out}", *teacher]


@every_case
def test_a_stopped_run_ends_with_the_same_weights_and_memory(method, kind, trained, tmp_path):
    whole = Run.open(trained(method, kind))
    job = build(read(None, words(method, kind, tmp_path / "run", trained)))
    with pytest.raises(Interrupted, match="SIGTERM"):
        fit(job, Run.create(tmp_path / "run", job.recipe), callbacks=[StopAt(5)])
    stopped = Run.open(tmp_path / "run")
    assert stopped.load_checkpoint()["step"] == 5
    fit(build(stopped.recipe()), stopped, resume=True)
    ours, theirs = (run.load_checkpoint() for run in (stopped, whole))
    assert ours["step"] == theirs["step"] == STEPS[kind]
    assert same(ours["method"], theirs["method"]) and same(ours["optimizer"], theirs["optimizer"])


@every_case
def test_the_student_that_ships_has_the_baselines_keys_and_no_more(method, kind, trained):
    own, plain = (load_file(trained(name, kind) / "student.safetensors") for name in (method, "baseline"))
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in plain.items()}
    assert load_student(trained(method, kind)) is not None
    ends = [record for record in Run.open(trained(method, kind)).records() if isinstance(record, EndRecord)]
    assert len(ends) == 1 and ends[0].step == STEPS[kind]
