"""eval: scores a run's student on labeled images."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..config.recipe import DataPart
from ..data import EvalSet, LabeledDataset, check, eval_loader, get_scoring_window, open_one_split, open_splits
from ..data.datasets.registry import has_columns
from ..distributed import default_device
from ..errors import count_of, escape_controls
from ..report.columns import list_rare_columns
from ..runs.files import replace_nan
from ..runs.folder import Run
from ..runs.student import StudentCard, is_own_card, load_student, read_card, read_complete_card
from ..runs.trust import refuse_unpacking
from ..tasks import Collector, Scores, evaluate, find_task
from ..tasks.base import Column, TaskKind
from .arguments import tell_ignored, tell_other_run
from .console import console, say, tell
from .places import find_data_paths

CALIBRATED = ("nll", "ece")  # scores that a temperature changes


class Evaluation(NamedTuple):
    """The scores of a run's student."""

    scores: Scores
    values: dict[str, Any]  # the scores by name, scores of classes by name and class; None if not defined
    images: str  # what was scored, in words


def print_scores(path: Path, source: str | None, *, as_json: bool, trust: bool = False) -> None:
    """Prints the scores of a run's student, and the scores of single classes."""
    scores, values, images = evaluate_run(path, source, trust=trust)
    if as_json:
        say(json.dumps({"run": str(path), "data": images, **values}))
        return
    say(f"{images}: {scores.sentence()}  ({count_of(scores.count, 'image')})")
    if "temperature" in values:
        calibrated = "  ".join(f"{name} {value:.4f}" for name, value in values["at_temperature"].items())
        say(f"at the temperature {values['temperature']:.4g} of student.json: {calibrated}")
    for line in describe_classes(path, values, trust=trust):
        say(line)


def print_table(paths: Sequence[Path], source: str | None, *, as_json: bool, trust: bool = False) -> None:
    """Prints the scores of several runs' students; a run that cannot be scored is named, and the exit code is 1."""
    tasks, rows, failed = [], [], False
    for path in paths:
        try:
            _, values, images = evaluate_run(path, source, trust=trust)
            task = find_task(read_card(path, trust=trust).task)
        except ValueError as error:
            tell(str(error))
            failed = True
            continue
        if as_json:
            say(json.dumps({"run": str(path), "data": images, **values}))
        tasks.append(task)
        rows.append({"run": str(path), "images": images, **values})
    if rows and not as_json:
        columns = [*dict.fromkeys(column for task in tasks for column in task.columns), *list_rare_columns(tasks, rows)]
        console().print(draw_table(rows, columns))
    if failed:
        sys.exit(1)


def draw_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> Any:
    """A table of the runs' scores, to print on a rich console."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("run", overflow="fold")
    for title in [*(column.title for column in columns), "images"]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        known = [(row.get(column.score), column) for column in columns]
        cells = ["-" if value is None else format(column.scale * value, column.format) for value, column in known]
        table.add_row(*(Text(escape_controls(cell)) for cell in [row["run"], *cells, f"{row['count']:,}"]))
    return table


def evaluate_run(path: Path, source: str | None, *, trust: bool = False) -> Evaluation:
    """Scores a run's student on its own held-out images, or on all labeled images of `source`."""
    card = read_complete_card(path, trust=trust)
    tell_other_run(path, card)
    dataset, images, _ = open_scored(path, card, source, trust=trust)
    student = load_student(path, trust=trust).to(default_device())
    scores = score_student(student, card, dataset)
    if not scores.finite:
        raise ValueError(
            f"the scores of {path} on {images} are NaN or infinite: its network computes no numbers for some of them"
        )
    values = name_classes(scores, card.classes)
    if card.temperature is not None:
        calibrated = score_student(AtTemperature(student, card.temperature), card, dataset)
        values |= {"temperature": card.temperature, "at_temperature": replace_nan(choose_calibrated(calibrated))}
    return Evaluation(scores, values, images)


class Scored(NamedTuple):
    """Labeled images to score."""

    dataset: LabeledDataset
    images: str  # what they are, in words
    split: str | None  # of the run's own data; None for other images


def open_scored(path: Path, card: StudentCard, source: str | None, *, trust: bool) -> Scored:
    """A run's own held-out images, or all labeled images of `source`."""
    task = find_task(card.task)
    if source is not None:
        dataset, notes = open_one_split(forget_columns(card.data, source, task), source, card.classes, task)
        for note in (*notes, *check(dataset, card.data.channels)):
            tell(f"note: {note}")
        return Scored(dataset, source, None)
    if not trust and not is_own_card(path):
        refuse_unpacking(path, card.data)
    tell_ignored(path, read_card(path, trust=True).data, card.data)
    settings = find_data_paths(card.data, Run(path), card.task, advice="name the images with --data")
    split, dataset = open_held_out(settings, task)
    images = f"held-out images of {card.data.source}"
    if has_changed(dataset, split, Run(path)):
        tell(f"note: the {images} are not those that the run was scored on: their names, labels or sizes differ")
    return Scored(dataset, images, split)


def score_student(
    student: nn.Module, card: StudentCard, dataset: LabeledDataset, *, collector: Collector | None = None
) -> Scores:
    """The scores of a network that a card describes; the `collector` gets its answers."""
    task = find_task(card.task)
    return evaluate(
        student,
        eval_loader(EvalSet(dataset, task.eval_transform(card.data)), batch_size=task.eval_batch_size(card.data)),
        num_classes=len(card.classes),
        kind=task.name,
        window=get_scoring_window(card.data),
        device=default_device(),
        collector=collector,
        thresholds=card.thresholds,
    )


class AtTemperature(nn.Module):
    """A student whose class scores are divided by a temperature."""

    def __init__(self, student: nn.Module, temperature: float) -> None:
        super().__init__()
        self.student, self.temperature = student, temperature

    def forward(self, images: Tensor) -> Tensor:
        return self.student(images) / self.temperature


def choose_calibrated(scores: Scores) -> dict[str, Any]:
    """The scores that depend on the temperature."""
    values = scores._asdict()
    return {name: values[name] for name in CALIBRATED if name in values}


def name_classes(scores: Scores, classes: Sequence[str]) -> dict[str, Any]:
    """Scores as plain values by name, and the scores of single classes by the classes' names."""
    values = {
        name: dict(zip(classes, value, strict=True)) if isinstance(value, tuple) else value
        for name, value in scores._asdict().items()
    }
    return replace_nan(values)


def describe_classes(path: Path, values: dict[str, Any], *, trust: bool = False) -> Iterator[str]:
    """A line for each class and each score that a run's task has of single classes."""
    for score, title in find_task(read_card(path, trust=trust).task).class_scores.items():
        for name, value in values[score].items():
            share = "- (not defined, as no label is)" if value is None else f"{value:.2%}"
            yield f"{escape_controls(name)}\t{title} {share}"


def open_held_out(settings: DataPart, task: TaskKind) -> tuple[str, LabeledDataset]:
    """The name of the split that training was scored on, and its images."""
    splits = open_splits(settings, task)
    if splits.val is not None:
        return "val", splits.val
    if splits.test is not None:
        return "test", splits.test
    raise ValueError(f"{settings.source} held nothing out to score on; name labeled images with --data")


def has_changed(images: LabeledDataset, split: str, run: Run) -> bool:
    """Whether the images of a split are others than when the run was started."""
    environment = run.environment()
    before = (environment.data or {}).get(split) if environment is not None else None
    return before is not None and before != images.fingerprint()


def forget_columns(settings: DataPart, source: str, task: TaskKind) -> DataPart:
    """The settings without what another source may have otherwise: table columns, and how its files are opened.

    Columns that are classes, and what separates labels, stay for another table.
    """
    forgotten = {"image_column": None, "label_column": None, "separator": None, "stream": 0, "opener": None}
    if has_columns(source, task):
        del forgotten["separator"]
        if isinstance(settings.label_column, list):
            del forgotten["label_column"]
    return settings.model_copy(update=forgotten)
