"""What holds for every task: those of the package and one of a user's own."""

import json

import pytest
import torch
from PIL import Image

from selfdistill import Task, evaluate
from selfdistill.build import build
from selfdistill.commands.predict import predict_images
from selfdistill.config.read import parse
from selfdistill.config.recipe import DataPart, Recipe
from selfdistill.data import get_scoring_window
from selfdistill.data.datasets import scenes
from selfdistill.export import collect_metadata
from selfdistill.losses import cross_entropy
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student, read_card
from selfdistill.tasks import complete_recipe, find_task, list_tasks
from selfdistill.tasks.base import FIXED_SIZE, TaskKind
from selfdistill.training.loop import fit

TASKS = [*list_tasks(), "helpers.multilabel:MultiLabel"]
CLASSES = 4


@pytest.fixture(scope="module", autouse=True)
def few_scenes():
    """Drawing all scenes takes seconds, and no test here looks at how well a student learns."""
    with pytest.MonkeyPatch.context() as patch:
        for split in ("val", "test"):
            patch.setitem(scenes.SCENES, split, 8)
            patch.setitem(scenes.DIGIT_SCENES, split, 8)
        patch.setitem(scenes.DIGIT_SCENES, "train", 60)
        yield


# The fast set sees one task.
TASKS_TO_TRAIN = [pytest.param(task, marks=[pytest.mark.slow] * (task != "classification")) for task in TASKS]


@pytest.fixture(scope="module", params=TASKS_TO_TRAIN)
def trained(request, tmp_path_factory):
    """A run of one step with the task's defaults: the experiment, its folder and what `fit` gave."""
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {"method": "baseline", "max_steps": 1, "precision": "fp32", "data": {"limit": 32}, "out": str(out)}
    experiment = build(parse({"task": request.param, **settings}))
    run = Run.create(out, experiment.recipe)
    return experiment, run, fit(experiment, run)


@pytest.mark.slow
def test_the_defaults_of_a_task_train_a_student(trained):
    experiment, run, result = trained
    defaults = find_task(experiment.recipe.task.kind).defaults
    assert experiment.recipe.data.source == defaults.data and experiment.recipe.student.name == defaults.student
    assert (experiment.recipe.optim.lr, experiment.recipe.batch_size) == (defaults.lr, defaults.batch_size)
    assert result.step == 1 and result.scores.count > 0 and result.scores.finite
    assert read_card(run.path).task == experiment.recipe.task.kind


@pytest.mark.slow
def test_what_was_built_has_the_outputs_and_labels_of_the_task(trained):
    experiment = trained[0]
    task, kind = experiment.method.task, find_task(experiment.recipe.task.kind)
    assert (task.kind, task.output, task.target) == (kind.name, kind.output, kind.target)
    batch = next(iter(experiment.held_out()))
    with torch.no_grad():
        logits = kind.scorer(get_scoring_window(experiment.recipe.data))(
            experiment.method.student.eval(), batch.images, batch.target
        )
    assert logits.shape[:2] == (len(batch.images), task.num_classes)
    correct, labels = task.count_correct(logits, batch.target)
    assert 0 <= correct <= labels and labels > 0
    assert task.predict(logits).shape == batch.target.shape
    loss = task.loss(logits.requires_grad_(), batch.target)
    loss.backward()
    assert loss.ndim == 0 and loss.isfinite() and logits.grad.abs().sum() > 0


@pytest.mark.slow
def test_evaluation_is_a_slow_loop_over_single_images(trained):
    experiment, run, result = trained
    kind, student = find_task(experiment.recipe.task.kind), load_student(run.path)
    task, metric = experiment.method.task, kind.metric(experiment.method.task.num_classes, -100)
    options = {"num_classes": task.num_classes, "kind": kind.name}
    first, *_ = batches = list(experiment.held_out())
    for image, target in zip(first.images, first.target, strict=True):
        with torch.no_grad():
            metric.update(kind.scorer()(student, image[None], target[None]).float(), target[None])
    assert_same_scores(evaluate(student, [first], **options), metric.compute())
    assert_same_scores(evaluate(student, batches, **options), result.scores)


def assert_same_scores(scores, wanted):
    for name, value in wanted._asdict().items():
        assert getattr(scores, name) == pytest.approx(value, abs=1e-5, nan_ok=True), name


def test_the_columns_of_reports_are_scores_and_the_first_is_the_main_one(trained):
    experiment, _, result = trained
    columns, scores = find_task(experiment.recipe.task.kind).columns, result.scores
    assert getattr(scores, columns[0].score) == scores.main
    assert all(isinstance(getattr(scores, column.score), float) for column in columns)
    assert scores.sentence() and "\n" not in scores.sentence()


def test_an_image_file_is_predicted_and_what_is_written_exists(trained, tmp_path):
    _, run, _ = trained
    card = read_card(run.path)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[card.data.channels]
    Image.new(mode, card.student.image_shape[:0:-1]).save(tmp_path / "a.png")
    (prediction,) = predict_images(run.path, [tmp_path / "a.png"])
    assert all(0 <= share <= 1 for _, share in prediction.classes)
    (prediction,) = predict_images(run.path, [tmp_path / "a.png"], top=2)
    assert len(prediction.classes) == 2 and all(0 <= share <= 1 for _, share in prediction.classes)
    assert {name for name, _ in prediction.classes} <= set(card.classes)
    assert all(file.is_file() and run.path in file.parents for file in prediction.files.values())


def test_an_exported_file_says_what_is_free_and_what_it_holds_as_text(trained):
    experiment, run, _ = trained
    kind, card = find_task(experiment.recipe.task.kind), read_card(run.path)
    assert kind.free_axes.names.items() >= FIXED_SIZE.names.items()
    shapes = kind.free_axes.tried_shapes(*card.student.image_shape[1:])
    sizes_are_free = kind.free_axes.names.keys() > FIXED_SIZE.names.keys()
    assert len({count for count, *_ in shapes}) > 1
    assert (len({tuple(size) for _, *size in shapes}) > 1) == sizes_are_free
    told = collect_metadata(card)
    assert all(isinstance(text, str) for text in told.values()) and set(kind.export_metadata(card)) <= set(told)
    assert all(json.loads(text) is not Ellipsis for text in kind.export_metadata(card).values())


def test_mixing_keeps_shapes_and_says_where_labels_are_soft(trained):
    experiment = trained[0]
    kind, task = find_task(experiment.recipe.task.kind), experiment.method.task
    draws = experiment.train_set
    batch = next(iter(experiment.held_out()))
    assert len(draws) > 0
    for mixer in kind.mixers.values():
        mixed = mixer.mix(batch, task.num_classes, 1.0)
        assert mixed.images.shape == batch.images.shape and mixed.target.shape == batch.target.shape
        assert (mixed.soft_target is not None) == mixer.soft
        if mixer.soft:
            assert 0 <= mixed.soft_target.min() <= mixed.soft_target.max() <= 1
            if kind.target == "class":
                torch.testing.assert_close(mixed.soft_target.sum(dim=1), torch.ones(len(batch.images)))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_cannot_learn_from(name):
    task = find_task(name)
    for settings, sentence in (
        ({"data": "nowhere"}, f"there is no file or folder 'nowhere'; data comes from {task.sources_in_words}"),
        ({"data": {"augment": "flipp"}}, "no augmentation of .* is called 'flipp'; did you mean 'flip'?"),
        ({"mix": {"name": "mixup"}} if "mixup" not in task.mixers else {"mix": "mixups"}, "mixup"),
    ):
        with pytest.raises(ValueError, match=sentence.replace("?", r"\?").replace("(", r"\(")):
            build(parse({"task": name, "method": "baseline", "max_steps": 1, **settings}))


@pytest.mark.parametrize("name", TASKS)
def test_settings_without_effect_are_refused_by_name(name):
    values = {
        **{"classes": ["a"], "void": [0], "palette": "x.csv", "short_side": 8, "window": True},
        **{"separator": ";", "draft": True},
    }
    for setting in find_task(name).idle_settings:
        with pytest.raises(ValueError, match=f"data.{setting}=.* has no effect on task="):
            build(parse({"task": name, "method": "baseline", "data": {setting: values[setting]}}))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_of_its_name_takes_a_criterion_of_ones_own(name):
    def nothing(logits, target, soft_target, ignore_index):
        return logits.sum() * 0 + ignore_index

    task = Task(name, CLASSES, (3, 8, 8), ignore_index=-7, criterion=nothing)
    logits = torch.randn(2, CLASSES, *task.positions)
    assert task.loss(logits, torch.zeros(2, *task.positions, dtype=torch.int64)).item() == -7
    assert task.replace(num_classes=5).criterion is nothing


def doubled_cross_entropy(logits, target, soft_target, ignore_index):
    return 2 * cross_entropy(logits, target, soft_target, ignore_index)


@pytest.mark.slow
def test_a_recipe_names_a_criterion_of_ones_own():
    data = {"source": "digits", "limit": 32}
    common = {"method": "baseline", "data": data, "student": "cifar:resnet8", "max_steps": 1, "precision": "fp32"}
    own = build(parse({**common, "task": {"criterion": f"{__name__}:doubled_cross_entropy"}}))
    batch = next(iter(own.held_out()))
    step = own.method.eval()(batch)
    torch.testing.assert_close(step.loss, 2 * cross_entropy(step.logits, batch.target))
    with pytest.raises(ValueError, match="no function 'doubled'; did you mean"):
        build(parse({**common, "task": {"criterion": f"{__name__}:doubled"}}))


def test_an_unknown_task_is_told_with_the_nearest():
    with pytest.raises(ValueError, match="no task is called 'segmentatoin'; did you mean 'segmentation'"):
        find_task("segmentatoin")
    with pytest.raises(ValueError, match="no task is called 'guessing'"):
        complete_recipe(parse({"task": "guessing"}))
    with pytest.raises(ValueError, match="is not a subclass of selfdistill.tasks.base.TaskKind"):
        find_task("selfdistill.task:Task")


def test_the_folder_is_the_registry():
    assert list_tasks() == ["classification", "multilabel", "segmentation"]
    assert all(isinstance(find_task(name), TaskKind) and find_task(name).name == name for name in list_tasks())
    assert find_task("classification") is find_task("classification")


def test_only_what_a_recipe_leaves_open_is_filled_in():
    optim = {"lr": 0.5, "warmup": 0.2, "layer_decay": 0.8}
    given = {"data": "digits", "student": "cifar:resnet8", "optim": optim, "batch_size": 9}
    recipe = parse({"task": "segmentation", **given})
    assert complete_recipe(recipe) == recipe
    assert complete_recipe(Recipe()).optim.lr == 0.1
    assert complete_recipe(parse({"optim": "adamw"})).optim.lr == 0.001
    assert complete_recipe(parse({"task": "segmentation"})).data == DataPart(source="scenes")
