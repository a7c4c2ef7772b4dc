"""Run folders side by side: a row for each method, averaged over its seeds, next to a baseline."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config.part import flatten
from ..errors import did_you_mean
from ..runs.environment import Environment
from ..runs.folder import Run
from ..runs.records import EndRecord
from ..tasks import find_task
from ..tasks.base import Column, TaskKind

SEEDLIKE = ("seed", "out", "machine")  # settings in which the runs of one row may differ
Row = dict[str, Any]


class Comparison(NamedTuple):
    """Rows under one recipe: shares in [0, 1], nats, seconds, MiB; None where there is nothing to say."""

    rows: list[Row]
    split: str | None  # what the scores were taken on; None where no run has any
    unfinished: list[str]  # run folders that are not averaged in
    notes: list[str]  # sentences on what makes the rows less comparable than they look
    tasks: tuple[TaskKind, ...]  # of the runs; they say which scores the columns show

    def json(self) -> str:
        values = {name: value for name, value in self._asdict().items() if name != "tasks"}
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        titles = list(self.columns())
        lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *self.cells()]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return "\n\n".join([table, *self.sentences()]) + "\n"

    def rich(self) -> Any:
        """The table with its sentences as the caption, to print on a rich console."""
        from rich.table import Table
        from rich.text import Text

        table = Table(caption=Text("\n".join(self.sentences())), caption_justify="left")
        for number, title in enumerate(self.columns()):
            table.add_column(title, justify="right" if number else "left", no_wrap=bool(number))
        for cells in self.cells():
            table.add_row(*map(Text, cells))
        return table

    def columns(self) -> dict[str, Callable[[Row], str]]:
        """What each column shows of a row, under its title."""
        main = {column.title: _show_spread(column) for column in main_columns(self.tasks)}
        others = {column.title: _show_score(column) for column in other_columns(self.tasks)}
        return {**FIRST_COLUMNS, **main, **POINTS, **others, **LAST_COLUMNS}

    def cells(self) -> list[list[str]]:
        return [[cell(row) for cell in self.columns().values()] for row in self.rows]

    def sentences(self) -> list[str]:
        """What the scores were taken on, which runs are missing, and the notes."""
        said = [f"Scores of the last epoch on the {self.split} images."] if self.split else []
        said += [f"Not finished, so not averaged in: {', '.join(self.unfinished)}."] if self.unfinished else []
        return said + self.notes


class Finished(NamedTuple):
    """What a comparison reads of one run that went to its end."""

    run: Run
    settings: dict[str, Any]  # of the recipe, under dotted names, without those in `SEEDLIKE`
    seed: int
    end: EndRecord

    @property
    def task(self) -> TaskKind:
        return find_task(self.settings["task.kind"])


def compare_table(
    runs: Sequence[str | Path] | Mapping[str, Sequence[str | Path]], baseline: str | None = None
) -> Comparison:
    """Run folders averaged over their seeds and set beside a baseline.

    Runs whose recipes agree in all but seed, folder and machine share a row, which is called by its method and the
    settings that set it apart; a mapping gives the rows and their names instead. `baseline` is the name of a row,
    by default the one called "baseline", if any. Costs are medians (time) and maxima (memory) over the seeds.
    """
    given = runs if isinstance(runs, Mapping) else {"": runs}
    opened = {name: [Run.open(path) for path in dict.fromkeys(map(Path, paths))] for name, paths in given.items()}
    if not any(opened.values()):
        raise ValueError("there is nothing to compare; name one run folder or more")
    read = {name: [(run, _finished(run)) for run in held] for name, held in opened.items()}
    unfinished = [str(run.path) for held in read.values() for run, found in held if found is None]
    groups = {name: [found for _, found in held if found is not None] for name, held in read.items()}
    if not isinstance(runs, Mapping):
        groups = _by_settings(groups[""])
    every = [found for held in groups.values() for found in held]
    scored = [found for found in every if found.end.scores is not None]
    of_runs = (find_task(run.recipe().task.kind) for held in opened.values() for run in held)
    tasks = tuple(dict.fromkeys(finished.task for finished in scored)) or tuple(dict.fromkeys(of_runs))
    rows = [_row(name, held, tasks) for name, held in groups.items() if held]
    reference = _baseline(rows, baseline, names=groups)
    splits = sorted({found.end.split for found in scored})
    rows = [row | _against(row, reference, tasks) for row in rows]
    return Comparison(rows, " and ".join(splits) or None, unfinished, _notes(groups), tasks)


def main_columns(tasks: Iterable[TaskKind]) -> list[Column]:
    """The main score of each task."""
    return list(dict.fromkeys(task.columns[0] for task in tasks))


def other_columns(tasks: Iterable[TaskKind]) -> list[Column]:
    """The further scores that any of the tasks shows."""
    return list(dict.fromkeys(column for task in tasks for column in task.columns[1:]))


def _finished(run: Run) -> Finished | None:
    """None where the run has not ended, or went on after its end and has not ended again."""
    records = run.records()
    last = max((record.step for record in records), default=0)
    ends = [record for record in records if isinstance(record, EndRecord) and record.step == last]
    if not ends:
        return None
    values = run.recipe().model_dump(mode="json")
    settings = flatten({name: value for name, value in values.items() if name not in SEEDLIKE})
    return Finished(run, settings, values["seed"], ends[-1])


def _by_settings(found: Iterable[Finished]) -> dict[str, list[Finished]]:
    """Runs of equal settings together, in order of appearance, under "METHOD+NAME=VALUE+..." names."""
    groups: dict[str, list[Finished]] = {}
    for one in found:
        groups.setdefault(json.dumps(one.settings, sort_keys=True), []).append(one)
    firsts = [held[0].settings for held in groups.values()]
    named = {}
    for settings, held in zip(firsts, groups.values(), strict=True):
        method = settings["method.name"]
        apart = _differing([other for other in firsts if other["method.name"] == method])
        own = [f"{name.removeprefix('method.')}={settings.get(name)}" for name in apart]
        named["+".join([method, *own])] = held
    return named


def _differing(several: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names whose values are not the same in all of them."""
    names = dict.fromkeys(name for values in several for name in values)
    return [name for name in names if any(values.get(name) != several[0].get(name) for values in several)]


def _row(name: str, held: Sequence[Finished], tasks: Sequence[TaskKind]) -> Row:
    ends = [found.end for found in held]
    return {
        "method": name,
        "seeds": len({found.seed for found in held}),
        "runs": [str(found.run.path) for found in held],
        **_means(ends, tasks),
        "seconds_per_step": _of(statistics.median, _known(end.seconds_per_step for end in ends)),
        "peak_memory_mib": _of(max, _known(end.peak_memory_mib for end in ends)),
        "student_parameters": ends[0].parameters.student,
        "training_only_parameters": ends[0].parameters.training_only,
    }


def _means(ends: Sequence[EndRecord], tasks: Sequence[TaskKind]) -> Row:
    """The mean of each score over the seeds, and the spread of a main one."""
    by_name = [{} if end.scores is None else end.scores._asdict() for end in ends]
    main = main_columns(tasks)
    means: Row = {}
    for column in (*main, *other_columns(tasks)):
        values = [values[column.score] for values in by_name if column.score in values]
        means[column.score] = _of(statistics.fmean, values)
        if column in main:
            means[f"{column.score}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return means


def _known(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None and not math.isnan(value)]


def _of(statistic: Callable[[list[float]], float], values: list[float]) -> float | None:
    return statistic(values) if values else None


def _baseline(rows: Sequence[Row], name: str | None, names: Iterable[str]) -> Row | None:
    """The row called `name`; None where it has no finished run, or no name is given and none is called "baseline"."""
    if name is not None and name not in names:
        hint = did_you_mean(name, names, otherwise=f"there are: {', '.join(names) or 'none'}")
        raise ValueError(f"no row of the comparison is called {name!r}{hint}")
    return next((row for row in rows if row["method"] == (name or "baseline")), None)


def _against(row: Row, baseline: Row | None, tasks: Sequence[TaskKind]) -> Row:
    """Difference in percentage points of the main score, and how many times the baseline's time a step takes."""
    other: Row = baseline or {}
    main = [column.score for column in main_columns(tasks)]
    both = [name for name in main if row.get(name) is not None and other.get(name) is not None]
    timed = row["seconds_per_step"] is not None and bool(other.get("seconds_per_step"))
    return {
        "points": 100 * (row[both[0]] - other[both[0]]) if both else None,
        "tax": row["seconds_per_step"] / other["seconds_per_step"] if timed else None,
    }


def _notes(groups: Mapping[str, Sequence[Finished]]) -> list[str]:
    notes = []
    for name, held in groups.items():
        seeds = [found.seed for found in held]
        if len(set(seeds)) < len(seeds):
            notes.append(f"{name} has several runs of one seed, so its spread is too small.")
        if apart := _differing([found.settings for found in held]):
            notes.append(f"The runs of {name} do not share one recipe; they differ in {', '.join(apart)}.")
    every = [found for held in groups.values() for found in held]
    apart = [name for name in _differing([found.settings for found in every]) if not name.startswith("method.")]
    if apart:
        notes.append(f"The rows do not share one recipe; beside the method they differ in {', '.join(apart)}.")
    if len({found.end.split for found in every if found.end.scores is not None}) > 1:
        notes.append("Not all scores were taken on the same split.")
    environments = [found.run.environment() or Environment() for found in every]
    if _differing([{"data": environment.data} for environment in environments]):
        notes.append("The images changed between the runs: their fingerprints differ.")
    if _differing([{"cpu": environment.cpu, "gpus": environment.gpus} for environment in environments]):
        notes.append("The runs were made on different machines, so their times do not compare.")
    return notes


def _number(key: str, spec: str, scale: float | int = 1) -> Callable[[Row], str]:
    return lambda row: "-" if row[key] is None else format(scale * row[key], spec)


def _show_score(column: Column) -> Callable[[Row], str]:
    return _number(column.score, column.format, column.scale)


def _show_spread(column: Column) -> Callable[[Row], str]:
    mean, deviation = _show_score(column), _number(f"{column.score}_std", column.format, column.scale)
    return lambda row: f"{mean(row)} ± {deviation(row)}"


FIRST_COLUMNS: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row["method"],
    "seeds": _number("seeds", "d"),
}
POINTS = {"points": _number("points", "+.2f")}
LAST_COLUMNS = {
    "s / step": _number("seconds_per_step", ".4g"),
    "tax": _number("tax", ".2f"),
    "peak MiB": _number("peak_memory_mib", ",.0f"),
    "extra parameters": _number("training_only_parameters", ",d"),
}
