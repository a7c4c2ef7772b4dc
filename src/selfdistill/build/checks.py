"""Checks that the parts of a recipe, and the objects built from it, go together.

`config/checks.py` finds settings that contradict each other. Here the method, the data, the networks and the machine
are known too. Every function raises `ValueError` in one sentence.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config.recipe import Recipe, StudentPart
from ..data import PreparedData, find_sampler
from ..data.cache.room import GIB, count_free_bytes
from ..method import Method
from ..methods import find_method, list_methods
from ..runs.student import StudentCard
from ..tasks import find_task
from ..tasks.base import TaskKind
from ..training.compile import choose_mode
from ..training.device import choose_device, count_local_processes, create_accelerator
from ..training.experiment import Experiment
from ..training.freezing import find_frozen
from ..training.optim import create_optimizer


def check_method(recipe: Recipe, task: TaskKind, method: type[Method]) -> None:
    """The method takes its settings, learns the task, and takes the labels that mixing makes."""
    method.validate(recipe.method.hyperparameters)
    if problem := method.find_obstacle(task, task.name):
        others = ", ".join(name for name in list_methods() if find_method(name).find_obstacle(task, task.name) is None)
        raise ValueError(f"method={recipe.method.name} {problem}; for that there are {others}")
    check_mixing(recipe, task, method)
    check_sampling(recipe, task, method)


def check_sampling(recipe: Recipe, task: TaskKind, method: type[Method]) -> None:
    """The sampler exists, knows the classes of whole images, and goes with method and class weights."""
    name = recipe.data.sampler
    find_sampler(name)
    if name == "shuffle":
        return
    if name == "balanced" and (task.output, task.target) != ("image", "class"):
        raise ValueError(
            f"data.sampler=balanced needs one class for each image, and task={task.name} has others; take "
            "task.class_weights=auto, or data.sampler=MODULE:FUNCTION"
        )
    if method.needs_index:
        raise ValueError(
            f"data.sampler={name} may show an image several times in an epoch, and method={recipe.method.name} learns "
            "from what it said of each image an epoch before; take task.class_weights=auto"
        )
    if name == "balanced" and isinstance(recipe.task.class_weights, str):
        raise ValueError(
            f"data.sampler=balanced and task.class_weights={recipe.task.class_weights} even out the same classes "
            "twice; take one of them"
        )


def check_mixing(recipe: Recipe, task: TaskKind, method: type[Method]) -> None:
    """The task has the mixing, and the method takes the labels that it makes."""
    name = recipe.mix.name
    if name == "none":
        return
    if name not in task.mixers:
        allowed = " or ".join([*task.mixers, "none"])
        raise ValueError(f"mix={name} does not mix the labels of task={task.name}; take {allowed}")
    if task.mixers[name].soft and not method.soft_targets:
        raise ValueError(f"mix={name} gives soft labels and method={recipe.method.name} needs hard ones")


def check_memory(recipe: Recipe, method: Method, *, goes_on: bool) -> None:
    """There is room for what a new method remembers of every training image: where it trains, and on the disk.

    The tables lie on the device that trains. Their main memory is not taken yet, see `modules.remembered`. A GPU's
    tables pass through main memory when a checkpoint is written, and everywhere a run that goes on reads them there. On
    the disk there are older checkpoints while one is written: one with large tables, two with small ones. A run that
    goes on has those already.
    """
    tables = [getattr(method, name) for name in method.remembered]
    size, checkpoints = sum(table.nbytes for table in tables), 2 if method.large_tables else 3
    device, processes = torch.device(choose_device(recipe)), count_local_processes()
    folder = next(path for path in Path(recipe.out or "runs").absolute().parents if path.exists())
    on_cpu = device.type == "cpu"
    copies = processes * (on_cpu + goes_on)  # in main memory
    needs = [
        ("", "this machine", max(copies, 1) * size, count_free_bytes(torch.device("cpu"))),
        ("checkpoints of ", str(folder), (1 if goes_on else checkpoints) * size, float(shutil.disk_usage(folder).free)),
    ]
    if not on_cpu:
        needs.insert(0, ("", f"the memory of {device}", size, count_free_bytes(device)))
    for what, where, needed, free in needs:
        if needed > free:
            raise ValueError(
                f"method={recipe.method.name} remembers class scores of {method.task.num_examples} images, {what}"
                f"{needed / GIB:.3g} GiB, and {where} has {free / GIB:.3g} GiB free; make room, set data.fraction, or "
                "take another method"
            )


def check_student_options(options: dict[str, Any]) -> None:
    """No option of the student is one that the rest of the recipe decides."""
    for name in ("name", "num_classes", "image_shape", "output", "pretrained"):
        if name in options:
            raise ValueError(f"student.options.{name} is decided by the data and by the student's own settings")


def check_labeled(prepared: PreparedData) -> None:
    """Something is labeled in what is trained on, and in what is scored."""
    splits = prepared.splits
    held_out = splits.test if splits.val is None else splits.val
    for split, dataset in {"train": splits.train, prepared.held_out_split: held_out}.items():
        if dataset is not None and dataset.is_all_ignored():
            first, verb = dataset.name(0), "learn from" if split == "train" else "score"
            if dataset.labels.ndim > 1:
                raise ValueError(f"the {split} split has no label to {verb}: all are marked as not known")
            masks = f"of {first}" if len(dataset) == 1 else f"of all {len(dataset)} images from {first} on"
            raise ValueError(f"the {split} split has no labeled pixel to {verb}: the mask {masks} is void throughout")
    if problem := splits.train.describe_single_class():
        raise ValueError(f"the train split has one class, and a network needs two to tell apart: {problem}")


def check_same_data(card: StudentCard, folder: str, classes: Sequence[str], image_shape: tuple[int, int, int]) -> None:
    """The student of a run folder, which `card` describes, knows these classes, and images of this shape."""
    trained_on = card.student.image_shape
    if trained_on != image_shape:
        sizes = ["x".join(map(str, shape)) for shape in (trained_on, image_shape)]
        settings = [f"data.channels={trained_on[0]}"] if trained_on[0] != image_shape[0] else []
        settings += [f"data.image_size={list(trained_on[1:])}"] if trained_on[1:] != image_shape[1:] else []
        raise ValueError(
            f"the student of {folder} takes images of {sizes[0]}, and these are {sizes[1]}; set {' '.join(settings)}"
        )
    if card.classes != tuple(classes):
        other = next((c for c in (*classes, *card.classes) if c not in card.classes or c not in classes), None)
        whom = folder if other in classes else "the data"
        why = "in another order" if other is None else f"and {other!r} is unknown to {whom}"
        raise ValueError(f"the student of {folder} has {len(card.classes)} classes, the data {len(classes)}, {why}")


def check_student_was_trained(method: Method, part: StudentPart) -> None:
    """A method that freezes the student got one that was trained."""
    is_trained = any(parameter.requires_grad for parameter in method.student.parameters())
    if not (is_trained or part.start or part.pretrained):
        name = type(method).__name__
        raise ValueError(f"{name} with these settings leaves the student's weights random; set student.start=RUN")


def check_best(experiment: Experiment) -> None:
    """There are validation images that choose the best epoch, and their task has the score that does."""
    recipe = experiment.recipe
    has_validation = experiment.held_out is not None and experiment.split == "val"
    for name in ("patience", "best_by"):
        value = getattr(recipe, name)
        if value is not None and not has_validation:
            raise ValueError(f"{name}={value} needs validation images to watch; set data.val or data.val_fraction")
    scores = find_task(recipe.task.kind).choosing_scores
    if recipe.best_by is not None and recipe.best_by not in scores:
        known = ", ".join(scores)
        raise ValueError(f"best_by={recipe.best_by} is no score of task={recipe.task.kind}; there are {known}")


def check_machine(experiment: Experiment) -> None:
    """This machine has the device, precision, trackers and compiler; timm the optimizer; the student what is frozen."""
    recipe = experiment.recipe
    device = create_accelerator(recipe).device
    diagnose, accumulate = recipe.diagnose is not None, recipe.optim.accumulate
    choose_mode(recipe.machine.compile, device, 0, accumulate=accumulate, diagnose=diagnose)
    create_optimizer(experiment.method, recipe.optim)
    check_best(experiment)
    if recipe.student.freeze is not None:
        find_frozen(experiment.method.student, recipe.student.freeze)


def check_around(method: Method, num_classes: int, image_shape: tuple[int, int, int], num_images: int) -> None:
    """A method that is there already learns the classes and the images of these data."""
    task = method.task
    if task.num_classes != num_classes:
        raise ValueError(f"the data have {num_classes} classes, and the task of the method has {task.num_classes}")
    if task.image_shape != image_shape:
        shapes = ["x".join(map(str, shape)) for shape in (image_shape, task.image_shape)]
        raise ValueError(f"the data give images of {shapes[0]}, and the task of the method has {shapes[1]}")
    if method.needs_index and task.num_examples != num_images:
        raise ValueError(
            f"{type(method).__name__} remembers every training image: there are {num_images}, and its task has "
            f"num_examples={task.num_examples}"
        )
