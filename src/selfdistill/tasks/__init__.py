"""The registry of tasks: each file of this folder is one task, and its name is the task's name."""

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import nn

from ..config.part import Part
from ..config.recipe import Recipe
from ..errors import did_you_mean
from ..imports import load, suggest_colon
from ..metrics.evaluation import Scores as Scores
from ..metrics.evaluation import measure
from ..metrics.evaluation import rate_scores as rate_scores
from ..metrics.outcomes import Collector
from ..metrics.scores import ClassificationScores, MultiLabelScores, SegmentationScores
from ..task import Task as Task
from ..task import as_batch, check_scored, refuse_no_count
from .base import TaskKind

LR = 0.001  # of all optimizers except SGD
FINE_TUNING_LR = 0.0001  # of these where the student starts from trained weights
WARMUP = 0.1  # of such students


def list_tasks() -> list[str]:
    """Lists the names that `find_task` takes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def find_task(name: str) -> TaskKind:
    """Finds a task by the name of a file of this folder, or by "package.module:Class".

    Raises `ValueError` for an unknown name, with the nearest one.
    """
    if ":" in name:
        task = load(name)
        if not _is_task(task):
            raise ValueError(f"{name!r} is not a subclass of selfdistill.tasks.base.TaskKind")
        return _create_kind(task, name)
    return _find_own(name)


@functools.cache
def _create_kind(task: type[TaskKind], name: str) -> TaskKind:
    return task(name)


@functools.cache
def _find_own(name: str) -> TaskKind:
    if name not in list_tasks():
        hint = suggest_colon(name) or did_you_mean(name, list_tasks())
        raise ValueError(f"no task is called {name!r}{hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    defined = [value for value in vars(module).values() if _is_task(value) and value.__module__ == module.__name__]
    assert len(defined) == 1, f"tasks/{name}.py must define one TaskKind, not {len(defined)}"
    return defined[0](name)


Task._find_kind = find_task  # type: ignore[assignment]  # functions that are attributes of a class pass for methods


def _is_task(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, TaskKind) and value is not TaskKind


def complete_recipe(recipe: Recipe) -> Recipe:
    """Fills in the settings that a recipe leaves to its task: data, student, learning rates and batch size.

    From trained weights a student learns at a lower rate, which rises at first. Raises `ValueError` for an unknown
    task.
    """
    defaults = find_task(recipe.task.kind).defaults
    lr = defaults.lr if recipe.optim.name == "sgd" else LR
    optim = {"lr": lr, "warmup": 0.0, "layer_decay": 1.0}
    if starts_trained(recipe):
        lr = (defaults.fine_tuning_lr or defaults.lr / 10) if recipe.optim.name == "sgd" else FINE_TUNING_LR
        optim |= {"lr": lr, "warmup": WARMUP}
    return recipe.model_copy(
        update={
            "data": _fill_in(recipe.data, source=defaults.data),
            "student": _fill_in(recipe.student, name=defaults.student),
            "optim": _fill_in(recipe.optim, **optim),
            "batch_size": recipe.batch_size or defaults.batch_size,
        }
    )


def starts_trained(recipe: Recipe) -> bool:
    """Whether the student's first weights were trained before."""
    return recipe.student.pretrained or recipe.student.start is not None


def _fill_in(part: Part, **values: Any) -> Part:
    return part.model_copy(update={name: value for name, value in values.items() if getattr(part, name) is None})


class _Options(TypedDict, total=False):
    """The other arguments of `evaluate`."""

    ignore_index: int
    window: tuple[int, int] | None
    device: str | torch.device
    precision: torch.dtype | None
    collector: Collector | None
    thresholds: Sequence[float] | None


@overload
def evaluate(
    student: nn.Module,
    batches: Iterable[Any],
    *,
    num_classes: int,
    kind: Literal["classification"] = ...,
    **options: Unpack[_Options],
) -> ClassificationScores: ...
@overload
def evaluate(
    student: nn.Module,
    batches: Iterable[Any],
    *,
    num_classes: int,
    kind: Literal["multilabel"],
    **options: Unpack[_Options],
) -> MultiLabelScores: ...
@overload
def evaluate(
    student: nn.Module,
    batches: Iterable[Any],
    *,
    num_classes: int,
    kind: Literal["segmentation"],
    **options: Unpack[_Options],
) -> SegmentationScores: ...
@overload
def evaluate(
    student: nn.Module, batches: Iterable[Any], *, num_classes: int, kind: str, **options: Unpack[_Options]
) -> Scores: ...
def evaluate(
    student: nn.Module,
    batches: Iterable[Any],
    *,
    num_classes: int,
    kind: str = "classification",
    ignore_index: int = -100,
    window: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    precision: torch.dtype | None = None,
    collector: Collector | None = None,
    thresholds: Sequence[float] | None = None,
) -> Scores:
    """Scores a student on all `batches`.

    Args:
        student: The network. It is scored in eval mode, and its mode is restored.
        batches: Anything with `.images` (b, c, h, w) and `.target`, or pairs of both, as a DataLoader yields them. The
            target is as the task `kind` has it: (b,) class numbers for "classification"; (b, k) zeros and ones for
            "multilabel"; (b, H, W) for "segmentation", whatever the images' height and width.
        num_classes: Number of classes that the student scores.
        kind: The name of the task, or "package.module:Class".
        ignore_index: The label that counts for nothing: of pixels, or of classes of which it is not known.
        window: (height, width) of the windows in which a segmenter sees an image; None: it sees the whole image.
        device: Where the student is and computes.
        precision: bfloat16 or float16 runs the student under autocast; the scores are computed in float32.
        collector: Is given the same class scores and labels, as the task's `outcomes` makes one.
        thresholds: For "multilabel": the probability from which on an image is said to show a class, for each class.

    Returns:
        `ClassificationScores`, `SegmentationScores` or what the metric of another task computes. Where
        torch.distributed is initialized every process gives its own images, possibly none, and all get the scores of
        all images. Where the logit of a labeled position is NaN, so are `nll` and `ece`.

    Raises:
        ValueError: for an unknown task, for a student that is no plain network, for batches of another form, for labels
            outside the student's classes, and if there is nothing to score.
    """
    is_method = isinstance(getattr(student, "task", None), Task)
    if is_method or not isinstance(student, nn.Module):
        given, hint = type(student).__name__, "; give its student" if is_method else ""
        raise ValueError(f"evaluate scores a plain network, and this is a {given}{hint}")
    task = find_task(kind)
    refuse_no_count(num_classes)
    if thresholds is not None and not task.chooses_thresholds:
        raise ValueError(f"thresholds have no effect on task={kind}, which has none")
    chosen = {} if thresholds is None else {"thresholds": thresholds}
    return measure(
        student,
        (_take_scored(batch, task) for batch in batches),
        task.metric(num_classes, ignore_index, **chosen),
        score=task.scorer(window),
        device=device,
        precision=precision,
        collector=collector,
    )


def _take_scored(batch: Any, task: TaskKind) -> Any:
    """A batch with `.images` and `.target`, from a pair of both too; raises `ValueError` for anything else."""
    batch = batch if hasattr(batch, "images") and hasattr(batch, "target") else as_batch(batch)
    check_scored(batch, task.target)
    return batch
