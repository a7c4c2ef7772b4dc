"""Run folders side by side: a row for each method, averaged over its seeds, next to a baseline."""

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import did_you_mean, escape_controls
from ..runs.files import replace_nan
from ..runs.folder import Run
from ..tasks.base import TaskKind
from .columns import (
    Cell,
    Row,
    list_classes,
    list_columns,
    list_main_columns,
    list_other_columns,
    list_rare_columns,
    list_runs,
    list_short_columns,
    write_value,
)
from .differences import add_statistics, compare_costs, describe_unequal_costs
from .elements import element
from .finished import (
    FinishedRun,
    choose_split,
    describe_differences,
    find_task_of,
    group_by_settings,
    read_finished,
)
from .learning import RULE, is_still_learning
from .markdown import escape_html, markdown_table
from .statistics import LEAST_SEEDS
from .tables import draw_table, write_csv, write_latex
from .verdict import USE, Rule, Verdict, describe_difference, give_verdict, judge

CLASSES = "Change of each class, in points. The intervals are not corrected for the number of classes."
INTERVAL = re.compile(r"&#91;(-?[\d.]+, -?[\d.]+)\](?!\()")  # of two numbers, which is no link


class Comparison(NamedTuple):
    """Rows under one recipe: shares in [0, 1], nats, seconds, MiB, differences in points; None for what is unknown."""

    rows: list[Row]
    split: str | None  # what the scores were taken on; None where no run has any
    unfinished: list[str]  # run folders that are not averaged in
    notes: list[str]  # sentences on what makes the rows less comparable than they look
    tasks: tuple[TaskKind, ...]  # of the runs; they say which scores the columns show
    arms: Mapping[str, list[FinishedRun]] = {}  # the finished runs of each row
    verdicts: Sequence[Verdict] = ()  # on every row but the baselines, in words
    rule: Rule = Rule()  # which decided them
    folder: str | None = None  # with the runs and the report, where `compare` wrote them

    def __repr__(self) -> str:
        arms = ", ".join(f"{row['method']} ({row['seeds']})" for row in self.rows)
        return f"<Comparison of {arms}{f' in {self.folder}' if self.folder else ''}>"

    def _repr_html_(self) -> str:
        """The verdicts and the short table, for notebooks."""
        columns = list_short_columns(self.tasks, self.rule.confidence, self.rows)
        head = element("tr", [element("th", title) for title in columns])
        body = [element("tr", [element("td", cell) for cell in line]) for line in self.cells(columns)]
        said = [*(verdict.sentence for verdict in self.verdicts), *self.sentences()]
        return str(element("div", element("table", head, body), [element("p", sentence) for sentence in said]))

    def json(self) -> str:
        values = {name: value for name, value in self._asdict().items() if name not in ("tasks", "arms", "folder")}
        values["verdicts"] = [verdict._asdict() for verdict in self.verdicts]
        values["rule"] = {**self.rule._asdict(), "words": self.rule.describe()}
        return json.dumps(replace_nan(values), indent=2, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """The verdicts, the whole table, what is to be said of it, and a table with a line for each run."""
        verdicts = [escape_controls(verdict.sentence) for verdict in self.verdicts]
        rule = [f"The rule: {self.rule.describe()}"] if self.verdicts else []
        runs = [[write_value(value) for value in line] for line in list_runs(self.rows)]
        tables = [markdown_table(runs[0], runs[1:])] if runs[1:] else []
        if classes := list_classes(self.rows):
            tables += [CLASSES, markdown_table(classes[0], classes[1:])]
        table = markdown_table(list(self.columns()), self.cells())
        text = escape_html("\n\n".join([*verdicts, table, *map(escape_controls, self.sentences()), *rule, *tables]))
        return INTERVAL.sub(r"[\1]", text) + "\n"

    def latex(self) -> str:
        """The whole table for a paper."""
        return write_latex(list(self.columns()), self.cells())

    def csv(self) -> str:
        """A line for each run: arm, seed, scores and costs."""
        return write_csv(list_runs(self.rows))

    def rich(self) -> Any:
        """The short table, which fits 100 columns, to print on a rich console."""
        columns = list_short_columns(self.tasks, self.rule.confidence, self.rows)
        return draw_table(list(columns), self.cells(columns))

    def columns(self) -> dict[str, Cell]:
        """What each column of the whole table shows of a row, under its title."""
        return list_columns(self.tasks, self.rows)

    def cells(self, columns: Mapping[str, Cell] | None = None) -> list[list[str]]:
        """The lines of the table with these columns, by default with all."""
        return [[escape_controls(cell(row)) for cell in (columns or self.columns()).values()] for row in self.rows]

    def sentences(self) -> list[str]:
        """What the scores were taken on, what is not known, which runs are missing, and the notes."""
        paired = [row["statistics"] for row in self.rows if row.get("statistics")]
        sentences = [f"Scores of the last epoch on the {self.split} images."] if self.split else []
        if partial := [row["method"] for row in self.rows if row.get("statistics") and _has_other_seeds(row)]:
            sentences.append(f"Differences are those of the seeds that the baseline has too ({', '.join(partial)}).")
        if errors := [row["test_error"] for row in self.rows if row.get("test_error")]:
            span = " to ".join(dict.fromkeys(f"{error:.1f}" for error in (min(errors), max(errors))))
            sentences.append(f"The choice of test images alone gives a score a standard error of {span} points.")
        if any(len(statistics["seeds"]) < LEAST_SEEDS for statistics in paired):
            sentences.append(f"With fewer than {LEAST_SEEDS} seeds no interval is possible.")
        if any(statistics["basis"] == "seeds" for statistics in paired):
            sentences.append("Intervals are over seeds alone: what was answered for each test image was not kept.")
        for row in self.rows:
            if row.get("statistics") and not row["is_judged"] and judge(row["statistics"], self.rule) == USE:
                difference = describe_difference(row["statistics"], unit=" points")
                sentences.append(f"Training longer helps, so more epochs first: {row['method']} has {difference}.")
        sentences += describe_unequal_costs(self.rows)
        if learning := [row["method"] for row in self.rows if row.get("still_learning")]:
            sentences.append(f"Still learning: more epochs first ({', '.join(learning)}). {RULE}")
        if self.unfinished:
            sentences.append(f"Not finished, so not averaged in: {', '.join(self.unfinished)}.")
        return sentences + self.notes


def _has_other_seeds(row: Row) -> bool:
    return len(row["statistics"]["seeds"]) < row["seeds"]


def compare_runs(
    runs: Sequence[str | Path] | Mapping[str, Sequence[str | Path]],
    baseline: str | None = None,
    *,
    trust: bool = False,
    rule: Rule | None = None,
    equal_cost: Mapping[str, str] | None = None,
) -> Comparison:
    """Run folders averaged over their seeds and set beside a baseline.

    Runs whose recipes agree in all but seed, folder and machine share a row, which is called by its method and the
    settings that set it apart; a mapping gives the rows and their names instead. `baseline` is the name of a row,
    by default the one called "baseline", if any. Costs are medians (time) and maxima (memory) over the seeds.
    `trust`: whether to import a task that a folder from somebody else names. `rule` decides the verdicts.
    `equal_cost` names for an arm the row of the baseline that was trained for as long a time.
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
    scored_tasks = [run.task for run in scored]
    tasks = tuple(
        dict.fromkeys(scored_tasks or [find_task_of(run, trust=trust) for group in folders.values() for run in group])
    )
    split = choose_split(scored) if scored else None
    arms = {name: group for name, group in groups.items() if group}
    rows = [average(name, group, tasks, split) for name, group in arms.items()]
    reference = find_baseline(rows, baseline, names=groups)
    rule = rule or Rule()
    rows = [row | compare_costs(reference, row) for row in rows]
    rows = add_statistics(rows, reference, arms, tasks, split, rule, equal_cost or {})
    return Comparison(
        rows=rows,
        split=split or " and ".join(sorted({run.end.split for run in scored})) or None,
        unfinished=unfinished,
        notes=describe_differences(groups),
        tasks=tasks,
        arms=arms,
        verdicts=[give_verdict(row, rule) for row in rows if row["statistics"] is not None and row["is_judged"]],
        rule=rule,
    )


def average(name: str, runs: Sequence[FinishedRun], tasks: Sequence[TaskKind], split: str | None = None) -> Row:
    """One row: the scores and costs of runs with different seeds."""
    ends = [run.end for run in runs]
    train = [end.train_scores.main for end in ends if end.train_scores is not None]
    nll = [run.get_nll_at_temperature(split) for run in runs]
    return {
        "method": name,
        "seeds": len({run.seed for run in runs}),
        "runs": [str(run.run.path) for run in runs],
        **average_scores(runs, tasks, split),
        "nll_at_temperature": _summarize_known(statistics.fmean, nll),
        "train_score": _summarize_known(statistics.fmean, train),
        "still_learning": is_still_learning(runs),
        "seconds_per_step": _summarize_known(statistics.median, [end.seconds_per_step for end in ends]),
        "cost_per_step": _summarize_known(statistics.median, [end.cost_per_step for end in ends]),
        "cost": _summarize_known(statistics.median, [_total_cost(run) for run in runs]),
        "train_seconds": _summarize_known(statistics.median, [end.train_seconds for end in ends]),
        "eval_seconds": _summarize_known(statistics.median, [end.eval_seconds for end in ends]),
        "peak_memory_mib": _summarize_known(max, [end.peak_memory_mib for end in ends]),
        "student_parameters": ends[0].parameters.student,
        "training_only_parameters": ends[0].parameters.training_only,
        "per_seed": [describe_run(run, split) for run in sorted(runs, key=lambda run: run.seed)],
    }


def describe_run(run: FinishedRun, split: str | None) -> Row:
    """The scores and costs of one run, as plain values."""
    end, scores = run.end, run.get_scores(split)
    return {
        "seed": run.seed,
        "run": str(run.run.path),
        "split": split or end.split,
        **({} if scores is None else scores._asdict()),
        "train_score": None if end.train_scores is None else end.train_scores.main,
        "temperature": end.temperature,
        "nll_at_temperature": run.get_nll_at_temperature(split),
        **{name: getattr(end, name) for name in ("epoch", "step", "seconds_per_step", "cost_per_step")},
        **{name: getattr(end, name) for name in ("train_seconds", "eval_seconds")},
        **{name: getattr(end, name) for name in ("processor_seconds", "device_seconds", "peak_memory_mib")},
    }


def _total_cost(run: FinishedRun) -> float | None:
    """Processor seconds of a run's training steps on a CPU, device seconds on a GPU."""
    return run.end.processor_seconds if run.end.device_seconds is None else run.end.device_seconds


def average_scores(runs: Sequence[FinishedRun], tasks: Sequence[TaskKind], split: str | None = None) -> Row:
    """The mean of each score over the seeds, and the spread of the main ones."""
    scores = [{} if (of_run := run.get_scores(split)) is None else of_run._asdict() for run in runs]
    main = list_main_columns(tasks)
    means: Row = {}
    for column in (*main, *list_other_columns(tasks), *list_rare_columns(tasks, scores)):
        values = [by_name[column.score] for by_name in scores if by_name.get(column.score) is not None]
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
