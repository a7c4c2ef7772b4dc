"""A recipe made into objects: the only place that knows every name."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config.recipe import DataPart, MixPart, Recipe, StudentPart
from .data import (
    CachedDataset,
    EvalSet,
    LabeledDataset,
    OpenedData,
    Plan,
    TrainSet,
    eval_loader,
    image_shape,
    prepare_data,
)
from .method import Method
from .methods import create_method, find_method, list_methods
from .models import build_student
from .runs.folder import Run
from .runs.student import NetworkCard, StudentCard, build_network, load_student, load_weights, read_card
from .task import Batch, Task
from .tasks import complete_recipe, find_task
from .tasks.base import TaskKind
from .training.device import choose_device, choose_precision
from .training.experiment import Experiment, HeldOut
from .training.optim import count_steps

SHORT_RUN = 20_000  # optimiser steps; the papers' schedules have 50,000 and more


def build(recipe: Recipe, opened: OpenedData | None = None) -> Experiment:
    """The experiment that a recipe describes; its own recipe has every value resolved and builds the same again.

    Experiments on the same data may share it, in `opened`.

    Raises `ValueError` in one sentence for whatever cannot work, before anything is trained. The student's initial
    weights depend on the recipe's seed and student alone, so methods start from the same ones.
    """
    recipe = complete_recipe(recipe)
    task_kind, kind = find_task(recipe.task.kind), find_method(recipe.method.name)
    kind.validate(recipe.method.hyperparameters)
    refuse_other_task(recipe, kind)
    refuse_unmixable(recipe, task_kind, kind)
    precision, told = chosen_precision(recipe)
    teacher = None if recipe.method.teacher is None else load_teacher(recipe.method.teacher, kind)
    prepared = prepare_data(
        as_the_teacher_saw(recipe),
        task_kind,
        cache=recipe.machine.cache,
        device=torch.device(choose_device(recipe)),
        opened=opened,
    )
    data, splits, split = prepared.settings, prepared.splits, prepared.held_out_split
    refuse_all_void(train=splits.train, **{split: splits.test if splits.val is None else splits.val})
    task = Task(recipe.task.kind, len(splits.train.classes), image_shape(data), len(splits.train))
    if recipe.method.teacher is not None:
        refuse_stranger(recipe.method.teacher, splits.train.classes, task.image_shape)
    plan = Plan(len(splits.train), recipe.batch_size, seed=recipe.seed, drop_last=recipe.data.drop_last)
    data = data.model_copy(update={"drop_last": plan.drop_last})
    settings, notes = choose_settings(kind, recipe, task.output, count_steps(recipe, plan.steps_per_epoch)[0])
    torch.manual_seed(recipe.seed)
    student = new_student(recipe.student, task, splits.train.classes)
    torch.manual_seed(recipe.seed + 1)
    method = create_method(recipe.method.name, student, task, taps=recipe.method.taps, teacher=teacher, **settings)
    refuse_random(method, recipe.student)
    transform = task_kind.train_transform(data)
    train_set = TrainSet(prepared.train, transform, seed=recipe.seed, views=kind.views, positives=kind.positives)
    every = {name: getattr(method, name) for name in kind.hyperparameters()}
    own = recipe.method.model_copy(update=every)
    settled = {"data": data, "method": own, "precision": precision, "out": recipe.out or free_folder(recipe)}
    resolved = recipe.model_copy(update=settled)
    notes = (*prepared.notes, *count_dropped(plan), *notes, *told, *idle_workers(recipe, train_set))
    return Experiment(
        recipe=resolved,
        method=method,
        train_set=train_set,
        held_out=None if prepared.held_out is None else eval_loader_of(prepared.held_out, resolved, task_kind),
        split=split,
        mix=make_mixer(recipe.mix, task, task_kind),
        card=describe_student(resolved, task, splits.train),
        fingerprint={
            name: rows.fingerprint() for name, rows in splits._asdict().items() if name != "notes" and rows is not None
        },
        notes=tuple(dict.fromkeys(notes)),
    )


def describe_student(recipe: Recipe, task: Task, rows: LabeledDataset) -> StudentCard:
    """What student.json says of the network, its classes and its images."""
    network = NetworkCard(
        name=recipe.student.name,
        options=recipe.student.options,
        num_classes=task.num_classes,
        image_shape=task.image_shape,
    )
    return StudentCard(
        task=task.kind,
        classes=tuple(rows.classes),
        student=network,
        data=recipe.data,
        method=recipe.method.name,
        **rows.about(),
    )


def new_student(part: StudentPart, task: Task, classes: Sequence[str]) -> nn.Module:
    """The student with fresh weights, pretrained ones or those of another run with the same classes."""
    refuse_settled(part.options)
    student = build_student(
        part.name,
        num_classes=task.num_classes,
        image_shape=task.image_shape,
        output=task.output,
        pretrained=part.pretrained,
        **part.options,
    )
    if part.start is not None:
        refuse_stranger(part.start, classes, task.image_shape)
        load_weights(student, Run.open(part.start).path / "student.safetensors", part.name)
    return student


def refuse_other_task(recipe: Recipe, kind: type[Method]) -> None:
    """Raises `ValueError` for a method that does not learn the task."""
    task, output = recipe.task.kind, find_task(recipe.task.kind).output
    if output not in kind.outputs:
        others = ", ".join(name for name in list_methods() if output in find_method(name).outputs)
        scores = f"{' or '.join(kind.outputs)}s, and {task} needs scores of {output}s; for that there are {others}"
        raise ValueError(f"method={recipe.method.name} trains networks that score {scores}")


def refuse_all_void(**splits: LabeledDataset | None) -> None:
    """Raises `ValueError` for a split in which nothing is labelled."""
    for split, rows in splits.items():
        if rows is not None and rows.all_ignored():
            first = f"of {rows.name(0)}" if len(rows) == 1 else f"of all {len(rows)} images from {rows.name(0)} on"
            verb = "learn from" if split == "train" else "score"
            raise ValueError(f"the {split} split has no labelled pixel to {verb}: the mask {first} is void throughout")


def refuse_unmixable(recipe: Recipe, task: TaskKind, method: type[Method]) -> None:
    """Raises `ValueError` for a mixing that the task does not have, or the method does not take."""
    name = recipe.mix.name
    if name == "none":
        return
    if name not in task.mixers:
        allowed = " or ".join([*task.mixers, "none"])
        raise ValueError(f"mix={name} does not mix the labels of task={task.name}; take {allowed}")
    if task.mixers[name].soft and not method.soft_targets:
        raise ValueError(f"mix={name} gives soft labels and method={recipe.method.name} needs hard ones")


def refuse_random(method: Method, part: StudentPart) -> None:
    """Raises `ValueError` where a method has frozen a student that nobody trained."""
    trains = any(parameter.requires_grad for parameter in method.student.parameters())
    if not (trains or part.start or part.pretrained):
        kind = type(method).__name__
        raise ValueError(f"{kind} with these settings leaves the student's weights random; set student.start=RUN")


def load_teacher(folder: str, kind: type[Method]) -> nn.Module:
    """The network that a run folder holds; with its training-only parts, as a method, where `kind` learns from these.

    Raises `ValueError` where another method trained it than `kind` needs. The random state is left as it was.
    """
    if not kind.teacher_method:
        return load_student(folder)
    run, card = Run.open(folder), read_card(folder)
    part = run.recipe().method
    if part.name != kind.teacher_method:
        raise ValueError(
            f"{kind.__name__} learns from a run of method={kind.teacher_method}, and {folder} is one of {part.name}"
        )
    task = Task(card.task, len(card.classes), card.student.image_shape)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        method = create_method(part.name, build_network(card), task, taps=part.taps, **part.hyperparameters)
    method.load_state_dict(run.load_checkpoint("last")["method"])
    return method


def as_the_teacher_saw(recipe: Recipe) -> DataPart:
    """The recipe's data, normalised as the teacher's were; raises `ValueError` where the recipe says otherwise."""
    data, folder = recipe.data, recipe.method.teacher
    if folder is None:
        return data
    teacher_data = read_card(folder).data
    seen = {"mean": teacher_data.mean, "std": teacher_data.std}
    for name, value in seen.items():
        if getattr(data, name) not in (None, value):
            raise ValueError(f"the teacher {folder} saw images with data.{name}={value}, not {getattr(data, name)}")
    return data.model_copy(update=seen)


def refuse_stranger(folder: str, classes: Sequence[str], image_shape: tuple[int, int, int]) -> None:
    """Raises `ValueError` for a run of other classes or of images of another shape."""
    card = read_card(folder)
    trained_on = card.student.image_shape
    if trained_on != image_shape:
        sizes = ["x".join(map(str, shape)) for shape in (trained_on, image_shape)]
        raise ValueError(
            f"the student of {folder} takes images of {sizes[0]}, and these are {sizes[1]}; set "
            f"data.image_size={list(trained_on[1:])}"
        )
    if card.classes != tuple(classes):
        other = next((c for c in (*classes, *card.classes) if c not in card.classes or c not in classes), None)
        whom = folder if other in classes else "the data"
        why = "in another order" if other is None else f"and {other!r} is unknown to {whom}"
        raise ValueError(f"the student of {folder} has {len(card.classes)} classes, the data {len(classes)}, {why}")


def refuse_settled(options: dict[str, Any]) -> None:
    """Raises `ValueError` for options of the student that the rest of the recipe decides."""
    for name in ("name", "num_classes", "image_shape", "kind", "pretrained"):
        if name in options:
            raise ValueError(f"student.options.{name} is decided by the data and by the student's own settings")


def choose_settings(kind: type[Method], recipe: Recipe, output: str, steps: int) -> tuple[dict[str, Any], list[str]]:
    """The method's settings for a schedule of so many `steps`, and sentences about those chosen for the user."""
    given, defaults = recipe.method.hyperparameters, kind.defaults(output)
    chosen = kind.short_run_defaults(output, given) if steps < SHORT_RUN else {}
    notes = [
        f"method.{name}={value}, as {steps} steps are a short schedule (the paper has {defaults[name]})"
        for name, value in chosen.items()
    ]
    return {**chosen, **given}, notes


def chosen_precision(recipe: Recipe) -> tuple[str, list[str]]:
    """What `fit` will compute in on this machine, and a sentence where the recipe left that open."""
    precision = choose_precision(recipe)
    has = "has" if precision == "bf16" else "has no"
    told = [f"precision={precision}, as this machine {has} bfloat16 arithmetic"] if recipe.precision == "auto" else []
    return precision, told


def eval_loader_of(dataset: CachedDataset, recipe: Recipe, task: TaskKind) -> HeldOut:
    """Batches of a data set as the recipe's evaluation shows them."""
    return functools.partial(
        eval_loader,
        EvalSet(dataset, task.eval_transform(recipe.data)),
        batch_size=task.eval_batch_size(recipe.data),
        workers=recipe.machine.workers,
    )


def count_dropped(plan: Plan) -> list[str]:
    """A sentence on the images that each epoch leaves out."""
    if not plan.num_dropped:
        return []
    are = "is" if plan.num_dropped == 1 else "are"
    return [
        f"{plan.num_dropped} of {plan.num_rows} images {are} left out of each epoch, others each time; "
        "data.drop_last=false keeps them"
    ]


def idle_workers(recipe: Recipe, train_set: TrainSet) -> list[str]:
    """A sentence on processes that have no image to load."""
    if not recipe.machine.workers or not train_set.samples.may_lie_on_device:
        return []
    return [f"machine.workers={recipe.machine.workers} has no effect on images that are kept on the device"]


def make_mixer(settings: MixPart, task: Task, task_kind: TaskKind) -> Callable[[Batch], Batch] | None:
    """What turns a batch into a mixed one, drawing from torch's global generator."""
    if settings.name == "none":
        return None
    mix = task_kind.mixers[settings.name].mix

    def mix_some(batch: Batch) -> Batch:
        if settings.probability < 1 and torch.rand(()).item() >= settings.probability:
            return batch
        return mix(batch, task.num_classes, settings.alpha)

    return mix_some


def free_folder(recipe: Recipe) -> str:
    """runs/DATA-STUDENT-METHOD-MIX-sSEED, with a number behind it where that is taken."""
    mix = [recipe.mix.name] if recipe.mix.name != "none" else []
    parts = [Path(recipe.data.source).stem, recipe.student.name.partition(":")[2], recipe.method.name, *mix]
    name = re.sub(r"[^\w.-]+", "_", "-".join([*parts, f"s{recipe.seed}"]))
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return str(folder)
