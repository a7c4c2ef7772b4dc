"""A recipe made into objects: the only place that knows every name."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from . import mixing
from .data import Plan, TrainSet, check, eval_loader, eval_transform, image_shape, open_splits, resolve, train_transform
from .method import Batch, Method
from .methods import create_method, find_method
from .recipe import MixPart, Recipe
from .run import Run, load_student
from .students import build_student
from .task import Task
from .train import HeldOut, Result, fit, length
from .watch import Watch

SHORT_RUN = 20_000  # optimiser steps; the papers' schedules have 50,000 and more


class Job(NamedTuple):
    """Everything `fit` takes, and what to tell the user before it starts."""

    recipe: Recipe  # every value resolved: building it again gives the same objects
    method: Method
    train_set: TrainSet
    held_out: HeldOut | None
    split: str  # the held-out rows' name: "val", or "test" where there is no validation split
    mix: Callable[[Batch], Batch] | None
    about: dict[str, Any]  # what student.json says of the network, its classes and its images
    fingerprint: dict[str, str]  # of each split
    notes: tuple[str, ...]

    def fit(self, run: Run, *, resume: bool = False, watch: Watch | None = None) -> Result:
        """Trains the method into a run folder, see `train.fit`."""
        return fit(
            self.method,
            self.train_set,
            self.recipe,
            held_out=self.held_out,
            split=self.split,
            mix=self.mix,
            run=run,
            resume=resume,
            about=self.about,
            watch=watch,
        )


def build(recipe: Recipe) -> Job:
    """The objects of a run. Raises `ValueError` in one sentence for whatever cannot work, before anything is trained.

    The student's initial weights depend on the recipe's seed and student alone, so methods start from the same ones.
    """
    kind = find_method(recipe.method.name)
    kind.checked(recipe.method.hyperparameters)
    if recipe.mix.name != "none" and not kind.soft_targets:
        raise ValueError(f"mix={recipe.mix.name} gives soft labels and method={recipe.method.name} needs hard ones")
    teacher = None if recipe.method.teacher is None else load_student(recipe.method.teacher)
    splits = open_splits(recipe.data)
    seen = [note for rows in splits[:3] if rows is not None for note in check(rows, recipe.data.channels)]
    data = resolve(recipe.data, splits)
    task = Task(recipe.task.kind, len(splits.train.classes), image_shape(data), len(splits.train))
    plan = Plan(len(splits.train), recipe.batch_size, seed=recipe.seed)
    settings, notes = suited(kind, recipe, length(recipe, plan.steps_per_epoch)[0])
    refuse_settled(recipe.student.options)
    torch.manual_seed(recipe.seed)
    student = build_student(
        recipe.student.name,
        num_classes=task.num_classes,
        image_shape=task.image_shape,
        pretrained=recipe.student.pretrained,
        **recipe.student.options,
    )
    torch.manual_seed(recipe.seed + 1)
    method = create_method(recipe.method.name, student, task, taps=recipe.method.taps, teacher=teacher, **settings)
    every = {name: getattr(method, name) for name in kind.hyperparameters()}
    resolved = recipe.model_copy(
        update={
            "data": data,
            "method": recipe.method.model_copy(update=every),
            "out": recipe.out or free_folder(recipe),
        }
    )
    held_out, split = (splits.val, "val") if splits.val is not None else (splits.test, "test")
    return Job(
        resolved,
        method,
        TrainSet(splits.train, train_transform(data), seed=recipe.seed, views=kind.views, partners=kind.partners),
        None if held_out is None else loader_of(held_out, resolved),
        split,
        mixer(recipe.mix, task),
        {
            "task": task.kind,
            "classes": list(splits.train.classes),
            "student": {
                "name": recipe.student.name,
                "options": recipe.student.options,
                "num_classes": task.num_classes,
                "image_shape": list(task.image_shape),
            },
            "data": data.model_dump(mode="json"),
            "method": recipe.method.name,
        },
        {name: rows.fingerprint() for name, rows in splits._asdict().items() if name != "notes" and rows is not None},
        tuple(dict.fromkeys((*splits.notes, *seen, *notes))),
    )


def refuse_settled(options: dict[str, Any]) -> None:
    """Raises `ValueError` for options of the student that the rest of the recipe decides."""
    for name in ("name", "num_classes", "image_shape", "pretrained"):
        if name in options:
            raise ValueError(f"student.options.{name} is decided by the data and by the student's own settings")


def suited(kind: type[Method], recipe: Recipe, steps: int) -> tuple[dict[str, Any], list[str]]:
    """The method's settings for a schedule of so many `steps`, and sentences about those chosen for the user."""
    given = recipe.method.hyperparameters
    chosen = kind.for_short_run(given) if steps < SHORT_RUN else {}
    notes = [
        f"method.{name}={value}, as {steps} steps are a short schedule (the paper has {kind.hyperparameters()[name]})"
        for name, value in chosen.items()
    ]
    return {**chosen, **given}, notes


def loader_of(rows: Any, recipe: Recipe) -> HeldOut:
    """Batches of `rows` as the recipe's evaluation presents them."""
    return functools.partial(
        eval_loader,
        rows,
        eval_transform(recipe.data),
        batch_size=max(recipe.batch_size, 64),
        workers=recipe.machine.workers,
    )


def mixer(part: MixPart, task: Task) -> Callable[[Batch], Batch] | None:
    """What turns a batch into a mixed one, drawing from torch's global generator."""
    if part.name == "none":
        return None
    mix = {"mixup": mixing.mixup, "cutmix": mixing.cutmix}[part.name]

    def mixed(batch: Batch) -> Batch:
        if part.probability < 1 and torch.rand(()).item() >= part.probability:
            return batch
        images, target = mix(batch.images, batch.target, task.num_classes, part.alpha)
        return batch._replace(images=images, target=target)

    return mixed


def free_folder(recipe: Recipe) -> str:
    """runs/DATA-STUDENT-METHOD-MIX-sSEED, with a number behind it where that is taken."""
    mix = [recipe.mix.name] if recipe.mix.name != "none" else []
    parts = [Path(recipe.data.source).stem, recipe.student.name.partition(":")[2], recipe.method.name, *mix]
    name = re.sub(r"[^\w.-]+", "_", "-".join([*parts, f"s{recipe.seed}"]))
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return str(folder)
