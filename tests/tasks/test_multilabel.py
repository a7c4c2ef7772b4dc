"""A run that learns several classes an image: what it stores, and what the commands do with that."""

import json

import pytest
import torch

from helpers.networks import small_student
from selfdistill import Batch, Task, create_method
from selfdistill.build import build
from selfdistill.commands.calibrate import calibrate_run
from selfdistill.commands.evaluate import evaluate_run
from selfdistill.commands.explain import explain_images, list_held_out
from selfdistill.commands.predict import predict_images, print_predictions
from selfdistill.config.read import parse
from selfdistill.data.datasets import scenes
from selfdistill.export import collect_metadata
from selfdistill.metrics.multi_label import choose_thresholds, say_yes
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student, read_card
from selfdistill.tasks import find_task
from selfdistill.training.loop import fit

pytestmark = pytest.mark.slow


def recipe(out, **settings):
    common = {"task": "multilabel", "student": "cifar:resnet8", "epochs": 2, "batch_size": 20, "precision": "fp32"}
    return parse({**common, "method": "baseline", "out": str(out), **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few steps on few scenes, what `fit` gave, and the validation images."""
    with pytest.MonkeyPatch.context() as patch:
        for split, count in {"train": 60, "val": 30, "test": 20}.items():
            patch.setitem(scenes.DIGIT_SCENES, split, count)
        out = tmp_path_factory.mktemp("runs") / "run"
        experiment = build(recipe(out, task={"kind": "multilabel", "class_weights": "auto"}))
        run = Run.create(out, experiment.recipe)
        result = fit(experiment, run)
        yield run, result, [*experiment.held_out()], [*experiment.test()]


def answer(run, batches):
    student = load_student(run.path)
    with torch.no_grad():
        logits = torch.cat([student(batch.images) for batch in batches])
    return logits, torch.cat([batch.target for batch in batches])


def test_thresholds_are_chosen_on_validation_images_and_used_on_others(trained):
    run, result, held_out, test = trained
    card = read_card(run.path)
    assert card.thresholds == pytest.approx(choose_thresholds(*answer(run, held_out)), abs=1e-6)
    assert result.scores.thresholds_f1_macro is None  # on the images themselves they would flatter
    metric = find_task("multilabel").metric(10, -100, thresholds=card.thresholds)
    metric.update(*answer(run, test))
    expected = {**metric.compute()._asdict(), "ap": None}
    assert {**result.test_scores._asdict(), "ap": None} == pytest.approx(expected, abs=1e-5)
    assert result.test_scores.ap == pytest.approx(metric.compute().ap, nan_ok=True, abs=1e-5)
    assert Run.open(run.path).records()[-1].test_scores.map == result.test_scores.map
    assert json.loads(collect_metadata(card)["thresholds"]) == [*card.thresholds]
    assert evaluate_run(run.path, None).values["thresholds_f1_micro"] is not None


def test_all_classes_from_their_thresholds_on_are_named(trained, tmp_path, capsys):
    run, _, held_out, _ = trained
    logits, _ = answer(run, held_out)
    images = scenes.open_digit_scenes().splits["val"]
    for i in range(8):
        images.image(i).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    shown = say_yes(logits[:8], read_card(run.path).thresholds)
    for prediction, row in zip(predict_images(run.path, paths), shown, strict=True):
        assert sorted(name for name, _ in prediction.classes) == [str(k) for k in row.nonzero().flatten().tolist()]
    assert all(len(prediction.classes) == 3 for prediction in predict_images(run.path, paths, top=3))
    print_predictions(run.path, paths, as_json=False, table=tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 9 and len({line.count(",") for line in lines}) == 1  # rows of several lengths are one table
    printed = capsys.readouterr().out.splitlines()
    assert [line.count("\t") for line in printed] == [max(int(count), 1) for count in shown.sum(dim=1)]
    explained = explain_images(run.path, list_held_out(run.path, 2)).images
    assert all(set(image.predicted.split(", ")) <= {*map(str, range(10)), "no class"} for image in explained)


def test_a_temperature_leaves_thresholds_and_answers_alone(trained):
    run, *_ = trained
    before = read_card(run.path).thresholds
    calibrate_run(run.path, None)
    assert read_card(run.path).thresholds == before and read_card(run.path).temperature != 1


def test_a_teacher_of_other_labels_is_refused_where_its_scores_would_teach(trained, tmp_path):
    run, *_ = trained
    data, teacher = {"source": "digits", "limit": 40, "image_size": 32, "channels": 3}, str(run.path)
    settings = {"task": "classification", "data": data, "method": {"name": "kd", "teacher": teacher}}
    with pytest.raises(ValueError, match="learned task=multilabel, with labels of the form multi_label"):
        build(recipe(tmp_path / "run", **settings))
    build(recipe(tmp_path / "run", **{**settings, "method": {"name": "at", "teacher": teacher}}))


def test_labels_that_are_none_are_told_by_the_first_step():
    task = Task("multilabel", 3, (3, 8, 8))
    method = create_method("baseline", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)), task)
    images = torch.randn(4, 3, 8, 8)
    for target, soft_target, sentence in (
        (torch.zeros(4, 3), None, "labels are torch.float32; give 0 or 1 for each class as int64"),
        (torch.zeros(4, dtype=torch.int64), None, r"labels \(4,\) must be \(4, 3\)"),
        (
            torch.full((4, 3), 2),
            None,
            "labels run from 2 to 2; give 1 where an image shows a class, 0 where it does not, and -100",
        ),
        (torch.zeros(4, 3, dtype=torch.int64), torch.full((4, 3), 1.5), "a probability between 0 and 1 for each class"),
    ):
        with pytest.raises(ValueError, match=sentence):
            method(Batch(images, target, soft_target))


@pytest.mark.parametrize(("share", "kept"), [("all", 0.9), ("others", 0.8)])
def test_label_smoothing_leaves_yes_and_no_this_probability(share, kept):
    task = Task("multilabel", 3, (3, 8, 8))
    method = create_method("label_smoothing", small_student(task), task, epsilon=0.2, share=share).eval()
    target = torch.tensor([[1, 0, 0], [0, 1, 1]])
    step = method(Batch(torch.randn(2, 3, 8, 8), target))
    wanted = torch.where(target == 1, kept, 1 - kept)
    costs = torch.nn.functional.binary_cross_entropy_with_logits(step.logits, wanted, reduction="none")
    torch.testing.assert_close(step.loss, costs.sum(dim=1).mean())
