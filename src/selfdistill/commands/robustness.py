"""eval --robust: scores students on corrupted images."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data import LabeledDataset, Sample, get_scoring_window
from ..data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ..data.datasets.base import select_evenly
from ..data.transforms.base import Transform
from ..distributed import default_device
from ..errors import count_of, escape_controls
from ..runs.student import StudentCard, load_student, read_complete_card
from ..tasks import Scores, find_task
from ..tasks.base import Column, TaskKind
from .arguments import tell_other_run
from .console import console, say, tell
from .evaluate import name_classes, open_scored

MOST = 1000  # images, unless told otherwise: each is scored 56 times
PATIENCE = 5.0  # seconds after which the time left is told
Cell = tuple[str, int]  # corruption and severity
CLEAN: Cell = ("clean", 0)


class Robustness(NamedTuple):
    """The scores of a student on clean and on corrupted images."""

    images: str  # what was scored, in words
    classes: tuple[str, ...]
    columns: tuple[Column, ...]  # of the task; the first is the main score
    scores: dict[Cell, Scores]

    def get(self, column: Column, cell: Cell) -> float:
        return column.scale * getattr(self.scores[cell], column.score)

    def average(self, column: Column, name: str) -> float:
        """The mean of a score over severities, of one corruption or of "all"."""
        names = CORRUPTIONS if name == "all" else [name]
        values = [self.get(column, (name, severity)) for name in names for severity in SEVERITIES]
        return sum(values) / len(values)


def print_robustness(
    paths: Sequence[Path], source: str | None, *, most: int | None, as_json: bool, trust: bool = False
) -> None:
    """Prints a run's scores by corruption and severity; of several runs the means over severities."""
    results = {}
    for path in paths:
        results[str(path)] = result = measure_robustness(path, source, most=most or MOST, trust=trust)
        if as_json:
            say(json.dumps({"run": str(path), **to_json(result)}))
    if as_json:
        return
    for result in results.values():
        say(f"{result.images}: {result.scores[CLEAN].sentence()}  ({count_of(result.scores[CLEAN].count, 'image')})")
    if len(results) == 1:
        console().print(draw_severities(next(iter(results.values()))))
    else:
        console().print(draw_runs(results))


def measure_robustness(path: Path, source: str | None, *, most: int, trust: bool = False) -> Robustness:
    """Scores a run's student on at most `most` of its held-out images, or of those of `source`, evenly spaced."""
    card = read_complete_card(path, trust=trust)
    tell_other_run(path, card)
    task = find_task(card.task)
    dataset, images, _ = open_scored(path, card, source, trust=trust)
    if len(dataset) > most:
        count = count_of(len(dataset), "image")
        tell(f"note: {most:,} of {count} are scored, evenly spaced; --most={len(dataset)} takes all")
        dataset = dataset.subset(torch.tensor(select_evenly(len(dataset), most)))
    student = load_student(path, trust=trust).to(default_device())
    scores = score_cells(student, dataset, task, card)
    if not scores[CLEAN].finite:
        raise ValueError(f"the scores of {path} on {images} are NaN or infinite, so they cannot be compared")
    return Robustness(images, card.classes, task.columns, scores)


@torch.inference_mode()
def score_cells(student: nn.Module, dataset: LabeledDataset, task: TaskKind, card: StudentCard) -> dict[Cell, Scores]:
    """The scores on clean images and on each corruption and severity; each image is decoded and resized once."""
    device, transform = default_device(), task.eval_transform(card.data)
    score = task.scorer(get_scoring_window(card.data))
    cells = [CLEAN, *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)]
    metrics = {cell: task.metric(len(card.classes), -100).to(device) for cell in cells}
    size, started, is_told = task.eval_batch_size(card.data), time.monotonic(), False
    for start in range(0, len(dataset), size):
        indices = range(start, min(start + size, len(dataset)))
        samples = [_prepare(dataset, transform, i) for i in indices]
        for cell, metric in metrics.items():
            images, target = (tensor.to(device) for tensor in make_batch(samples, transform, cell))
            metric.update(score(student, images, target).float(), target)
        seconds = time.monotonic() - started
        if not is_told and seconds > PATIENCE and indices.stop < len(dataset):
            minutes = seconds / indices.stop * (len(dataset) - indices.stop) / 60
            tell(f"{indices.stop} of {count_of(len(dataset), 'image')} scored; about {max(minutes, 1):.0f} min left")
            is_told = True
    return {cell: metric.compute() for cell, metric in metrics.items()}


def _prepare(dataset: LabeledDataset, transform: Transform, i: int) -> Sample:
    sample = dataset[i]
    with dataset.name_errors(i):
        return transform.cached(sample)


def make_batch(samples: Sequence[Sample], transform: Transform, cell: Cell) -> tuple[Tensor, Tensor]:
    """The network's input from resized images, corrupted before they are normalized; and the labels, which stay."""
    keys = torch.zeros(len(samples), dtype=torch.int64)  # nothing is drawn
    changed = samples if cell == CLEAN else [s._replace(image=corrupt(s.image, *cell)) for s in samples]
    loaded = [transform.per_image(sample, keys[:1]) for sample in changed]
    images, targets = zip(*loaded, strict=True)
    return transform.batch(torch.stack(images), keys), torch.stack(targets)


def to_json(result: Robustness) -> dict[str, Any]:
    """All scores as plain values; `mean` is over corruptions and severities, and `relative` divides it by clean."""
    main = result.columns[0]
    clean, mean = result.get(main, CLEAN), result.average(main, "all")
    return {
        "data": result.images,
        "clean": name_classes(result.scores[CLEAN], result.classes),
        "corruptions": {
            name: [name_classes(result.scores[name, severity], result.classes) for severity in SEVERITIES]
            for name in CORRUPTIONS
        },
        "mean": {column.score: result.average(column, "all") / column.scale for column in result.columns},
        "relative": mean / clean if clean else None,
    }


def draw_severities(result: Robustness) -> Any:
    """A table with a row for each corruption, for a rich console."""
    main, *others = result.columns
    titles = ["corruption", *(f"severity {severity}" for severity in SEVERITIES), f"mean {main.title}", "of clean"]
    return _draw_table([*titles, *(f"mean {column.title}" for column in others)], _list_rows(result))


def _list_rows(result: Robustness) -> Iterator[list[str]]:
    main, *others = result.columns
    clean = result.get(main, CLEAN)
    for name in (*CORRUPTIONS, "all"):
        mean = result.average(main, name)
        cells = [format(result.get(main, (name, s)), main.format) if name != "all" else "" for s in SEVERITIES]
        rest = [format(result.average(column, name), column.format) for column in others]
        yield [name, *cells, format(mean, main.format), f"{mean / clean:.0%}" if clean else "-", *rest]


def draw_runs(results: dict[str, Robustness]) -> Any:
    """A table with a column for each run: the main score on clean images, and its mean over severities."""
    first = next(iter(results.values())).columns[0]
    rows = [["clean", *(format(r.get(r.columns[0], CLEAN), first.format) for r in results.values())]]
    for name in (*CORRUPTIONS, "all"):
        rows.append([name, *(format(r.average(r.columns[0], name), first.format) for r in results.values())])
    return _draw_table([first.title, *results], rows)


def _draw_table(titles: Sequence[str], rows: Any) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, title in enumerate(titles):
        table.add_column(Text(escape_controls(title)), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
