"""A task in a file of its own, outside of the package, is trained, scored, predicted with, compared and exported."""

import pytest
import torch
from PIL import Image

from helpers.multilabel import CORNERS, MultiLabelScores, binary_cross_entropy, draw_squares
from selfdistill import Batch, Task, create_method, evaluate
from selfdistill.build import build
from selfdistill.commands.evaluate import evaluate_run
from selfdistill.commands.predict import predict_images
from selfdistill.config.read import parse
from selfdistill.export import export
from selfdistill.models import build_student
from selfdistill.report.comparison import compare_runs
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student, read_card
from selfdistill.tasks import find_task
from selfdistill.training.loop import fit

MULTI_LABEL = "helpers.multilabel:MultiLabel"
METHODS = {"baseline": {"name": "baseline"}, "frskd": {"name": "frskd", "alpha": 0.0, "beta": 10.0}}


def recipe(method, **settings):
    common = {"task": MULTI_LABEL, "method": method, "epochs": 8, "precision": "fp32"}
    return parse({**common, "data": {"augment": "none"}, **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of each method, with what `fit` said of it."""
    runs = {}
    for name, method in METHODS.items():
        experiment = build(recipe(method, out=str(tmp_path_factory.mktemp("runs") / name)))
        run = Run.create(experiment.recipe.out, experiment.recipe)
        runs[name] = run, fit(experiment, run)
    return runs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_a_student_learns_the_task_and_its_scores_are_those_of_the_tasks_metric(trained, method):
    run, result = trained[method]
    assert isinstance(result.scores, MultiLabelScores) and result.scores.count == 40
    assert result.scores.labels > 0.9 and result.scores.exact > 0.7
    first, *_, last = [record for record in run.records() if record.kind == "train"]
    assert last.losses["task"] < first.losses["task"] and 0.9 < last.accuracy <= 1
    held_out, student = draw_squares(40, seed=1), load_student(run.path)
    assert evaluate_run(run.path, None).scores == pytest.approx(result.scores)
    transform = find_task(MULTI_LABEL).eval_transform(read_card(run.path).data)
    images = torch.stack([transform.show(image) for image in held_out.images])
    scores = evaluate(student, [Batch(images, held_out.labels)], num_classes=3, kind=MULTI_LABEL)
    assert scores == pytest.approx(result.scores)


@pytest.mark.slow
def test_a_run_goes_on_where_its_student_was(trained, tmp_path):
    run, result = trained["baseline"]
    again = build(
        recipe("baseline", student={"name": "cifar:resnet8", "start": str(run.path)}, out=str(tmp_path / "x"))
    )
    assert fit(again).scores.labels >= result.scores.labels - 0.1


@pytest.mark.slow
def test_the_students_predictions_are_the_tasks(trained, tmp_path):
    run, _ = trained["baseline"]
    image, labels = draw_squares(40, seed=1).images[0], draw_squares(40, seed=1).labels[0]
    image.save(tmp_path / "a.png")
    (prediction,) = predict_images(run.path, [tmp_path / "a.png"], top=3)
    shown = {name for name, probability in prediction.classes if probability > 0.5}
    assert shown == {name for name, label in zip(CORNERS, labels, strict=True) if label} and prediction.files == {}


@pytest.mark.parametrize("format", ["safetensors", "torch-export"])
@pytest.mark.slow
def test_the_student_is_exported_for_any_number_of_images(trained, tmp_path, format):
    run, _ = trained["baseline"]
    assert export(run.path, format, out=tmp_path).max_difference < 1e-4
    with pytest.raises(ValueError, match="--fixed-size has no effect"):
        export(run.path, format, out=tmp_path, fixed_size=True)


@pytest.mark.slow
def test_runs_are_compared_by_the_tasks_own_scores(trained):
    table = compare_runs([run.path for run, _ in trained.values()])
    assert {"exact, %", "points", "labels, %"} <= table.columns().keys()
    assert f"| {100 * trained['baseline'][1].scores.exact:.2f} ± - |" in table.markdown()
    assert table.rows[1]["statistics"]["mean"] == table.rows[1]["points"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"method": "label_smoothing"},
            "method=label_smoothing needs labels of the form class or multi_label, and those of helpers.mu",
        ),
        ({"method": {"name": "frskd", "alpha": 1.0}}, "soft labels compare class probabilities, .* set alpha=0"),
        ({"method": "baseline", "mix": "mixup"}, "mix=mixup does not mix the labels of task=helpers.multilabel"),
        ({"method": "baseline", "data": "digits"}, "digits has one class for each image, not several"),
        ({"method": "baseline", "data": "square"}, "no file or folder 'square'; did you mean 'squares'?"),
        ({"method": "baseline", "data": {"window": True}}, "data.window=True has no effect on task=helpers.multilabel"),
        ({"method": "baseline", "student": "smp:Unet/resnet18"}, "smp:Unet/resnet18"),
        ({"method": "baseline", "task": "helpers.multilabel:Squares"}, "is not a subclass of .*TaskKind"),
    ],
)
def test_what_does_not_go_with_the_task_is_refused_in_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        build(recipe(**settings))
    assert "\n" not in str(error.value)


def test_the_task_serves_in_a_loop_of_ones_own():
    task = Task(MULTI_LABEL, 3, (3, 16, 16))
    student = build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16))
    method = create_method("baseline", student, task)
    images, target = torch.randn(4, 3, 16, 16), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    step = method(Batch(images, target))
    torch.testing.assert_close(step.loss, binary_cross_entropy(step.logits, target))
    assert [value.item() for value in task.count_correct(torch.ones(4, 3), target)] == [6, 12]


def test_a_criterion_of_ones_own_reaches_every_method():
    def doubled(logits, target, soft_target, ignore_index):
        return 2 * binary_cross_entropy(logits, target)

    student = build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16))
    images, target = torch.randn(4, 3, 16, 16), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    for name, settings in (("baseline", {}), ("frskd", {"alpha": 0.0})):
        torch.manual_seed(0)
        plain = create_method(name, student, Task(MULTI_LABEL, 3, (3, 16, 16)), **settings).eval()
        torch.manual_seed(0)
        own = create_method(name, student, Task(MULTI_LABEL, 3, (3, 16, 16), criterion=doubled), **settings).eval()
        batch = Batch(images, target)
        for term in {"task", "teacher"} & own(batch).losses.keys():
            torch.testing.assert_close(own(batch).losses[term], 2 * plain(batch).losses[term])


def test_images_may_be_of_any_origin(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has one class for each image, not several"):
        build(recipe("baseline", data=str(tmp_path)))
