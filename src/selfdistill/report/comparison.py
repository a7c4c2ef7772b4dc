"""Run folders side by side: a row for each method, averaged over its seeds, next to a baseline."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import did_you_mean, escape_controls
from ..runs.folder import Run
from ..runs.records import EndRecord
from ..tasks.base import Column, TaskKind
from .finished import FinishedRun, describe_differences, find_task_of, group_by_settings, read_finished
from .markdown import escape_html, markdown_table

Row = dict[str, Any]


class Comparison(NamedTuple):
    """Rows under one recipe: shares in [0, 1], nats, seconds, MiB; None for what is unknown."""

    rows: list[Row]
    split: str | None  # what the scores were taken on; None where no run has any
    unfinished: list[str]  # run folders that are not averaged in
    notes: list[str]  # sentences on what makes the rows less comparable than they look
    tasks: tuple[TaskKind, ...]  # of the runs; they say which scores the columns show

    def json(self) -> str:
        values = {name: value for name, value in self._asdict().items() if name != "tasks"}
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        table = markdown_table(list(self.columns()), self.cells())
        return escape_html("\n\n".join([table, *map(escape_controls, self.sentences())])) + "\n"

    def rich(self) -> Any:
        """The table with its sentences as the caption, to print on a rich console."""
        from rich.table import Table
        from rich.text import Text

        table = Table(caption=Text("\n".join(map(escape_controls, self.sentences()))), caption_justify="left")
        for number, title in enumerate(self.columns()):
            table.add_column(title, justify="right" if number else "left", no_wrap=bool(number))
        for cells in self.cells():
            table.add_row(*map(Text, cells))
        return table

    def columns(self) -> dict[str, Callable[[Row], str]]:
        """What each column shows of a row, under its title."""
        main = {column.title: _format_spread(column) for column in list_main_columns(self.tasks)}
        others = {column.title: _format_score(column) for column in list_other_columns(self.tasks)}
        return {**FIRST_COLUMNS, **main, **POINTS, **others, **LAST_COLUMNS}

    def cells(self) -> list[list[str]]:
        return [[escape_controls(cell(row)) for cell in self.columns().values()] for row in self.rows]

    def sentences(self) -> list[str]:
        """What the scores were taken on, which runs are missing, and the notes."""
        sentences = [f"Scores of the last epoch on the {self.split} images."] if self.split else []
        if self.unfinished:
            sentences.append(f"Not finished, so not averaged in: {', '.join(self.unfinished)}.")
        return sentences + self.notes


def compare_runs(
    runs: Sequence[str | Path] | Mapping[str, Sequence[str | Path]],
    baseline: str | None = None,
    *,
    trust: bool = False,
) -> Comparison:
    """Run folders averaged over their seeds and set beside a baseline.

    Runs whose recipes agree in all but seed, folder and machine share a row, which is called by its method and the
    settings that set it apart; a mapping gives the rows and their names instead. `baseline` is the name of a row,
    by default the one called "baseline", if any. Costs are medians (time) and maxima (memory) over the seeds.
    `trust`: whether to import a task that a folder from somebody else names.
    """
    paths = runs if isinstance(runs, Mapping) else {"": runs}
    folders = {name: [Run.open(path) for path in dict.fromkeys(map(Path, group))] for name, group in paths.items()}
    if not any(folders.values()):
        raise ValueError("there is nothing to compare; name one run folder or more")
    read = {name: [(run, read_finished(run, trust=trust)) for run in group] for name, group in folders.items()}
    unfinished = [str(run.path) for group in read.values() for run, finished in group if finished is None]
    groups = {name: [finished for _, finished in group if finished is not None] for name, group in read.items()}
    if not isinstance(runs, Mapping):
        groups = group_by_settings(groups[""])
    scored = [run for group in groups.values() for run in group if run.end.scores is not None]
    tasks = [run.task for run in scored] or [
        find_task_of(run, trust=trust) for group in folders.values() for run in group
    ]
    tasks = tuple(dict.fromkeys(tasks))
    rows = [average(name, group, tasks) for name, group in groups.items() if group]
    reference = find_baseline(rows, baseline, names=groups)
    return Comparison(
        rows=[row | compare_with(reference, row, tasks) for row in rows],
        split=" and ".join(sorted({run.end.split for run in scored})) or None,
        unfinished=unfinished,
        notes=describe_differences(groups),
        tasks=tasks,
    )


def list_main_columns(tasks: Iterable[TaskKind]) -> list[Column]:
    """The main score of each task."""
    return list(dict.fromkeys(task.columns[0] for task in tasks))


def list_other_columns(tasks: Iterable[TaskKind]) -> list[Column]:
    """The further scores that any of the tasks shows."""
    return list(dict.fromkeys(column for task in tasks for column in task.columns[1:]))


def average(name: str, runs: Sequence[FinishedRun], tasks: Sequence[TaskKind]) -> Row:
    """One row: the scores and costs of runs with different seeds."""
    ends = [run.end for run in runs]
    return {
        "method": name,
        "seeds": len({run.seed for run in runs}),
        "runs": [str(run.run.path) for run in runs],
        **average_scores(ends, tasks),
        "seconds_per_step": _summarize_known(statistics.median, [end.seconds_per_step for end in ends]),
        "peak_memory_mib": _summarize_known(max, [end.peak_memory_mib for end in ends]),
        "student_parameters": ends[0].parameters.student,
        "training_only_parameters": ends[0].parameters.training_only,
    }


def average_scores(ends: Sequence[EndRecord], tasks: Sequence[TaskKind]) -> Row:
    """The mean of each score over the seeds, and the spread of the main ones."""
    scores = [{} if end.scores is None else end.scores._asdict() for end in ends]
    main = list_main_columns(tasks)
    means: Row = {}
    for column in (*main, *list_other_columns(tasks)):
        values = [by_name[column.score] for by_name in scores if column.score in by_name]
        means[column.score] = statistics.fmean(values) if values else None
        if column in main:
            means[f"{column.score}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return means


def _summarize_known(statistic: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    """A statistic of the values that are known."""
    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    return statistic(known) if known else None


def find_baseline(rows: Sequence[Row], name: str | None, names: Iterable[str]) -> Row | None:
    """The row called `name`; None where it has no finished run, or no name is given and none is called "baseline"."""
    if name is not None and name not in names:
        hint = did_you_mean(name, names, otherwise=f"there are: {', '.join(names) or 'none'}")
        raise ValueError(f"no row of the comparison is called {name!r}{hint}")
    return next((row for row in rows if row["method"] == (name or "baseline")), None)


def compare_with(baseline: Row | None, row: Row, tasks: Sequence[TaskKind]) -> Row:
    """The difference of the main score in percentage points, and how many times the baseline's time a step takes."""
    other: Row = baseline or {}
    names = [column.score for column in list_main_columns(tasks)]
    shared = [name for name in names if row.get(name) is not None and other.get(name) is not None]
    is_timed = row["seconds_per_step"] is not None and bool(other.get("seconds_per_step"))
    return {
        "points": 100 * (row[shared[0]] - other[shared[0]]) if shared else None,
        "slowdown": row["seconds_per_step"] / other["seconds_per_step"] if is_timed else None,
    }


def _format_number(key: str, spec: str, scale: float = 1) -> Callable[[Row], str]:
    return lambda row: "-" if row[key] is None else format(scale * row[key], spec)


def _format_score(column: Column) -> Callable[[Row], str]:
    return _format_number(column.score, column.format, column.scale)


def _format_spread(column: Column) -> Callable[[Row], str]:
    mean = _format_score(column)
    deviation = _format_number(f"{column.score}_std", column.format, column.scale)
    return lambda row: f"{mean(row)} ± {deviation(row)}"


FIRST_COLUMNS: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row["method"],
    "seeds": lambda row: str(row["seeds"]),
}
POINTS = {"points": _format_number("points", "+.2f")}
LAST_COLUMNS: dict[str, Callable[[Row], str]] = {
    "s / step": _format_number("seconds_per_step", ".4g"),
    "slowdown": _format_number("slowdown", ".2f"),
    "peak MiB": _format_number("peak_memory_mib", ",.0f"),
    "extra parameters": lambda row: f"{row['training_only_parameters']:,d}",
}
