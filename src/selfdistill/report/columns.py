"""What the columns of a comparison's tables show of a row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import escape_controls
from ..tasks.base import Column, TaskKind
from .verdict import describe_difference

Row = dict[str, Any]
Cell = Callable[[Row], str]
UNKNOWN = "-"


def list_main_columns(tasks: Iterable[TaskKind]) -> list[Column]:
    """The main score of each task."""
    return list(dict.fromkeys(task.columns[0] for task in tasks))


def list_other_columns(tasks: Iterable[TaskKind]) -> list[Column]:
    """The further scores that any of the tasks shows."""
    return list(dict.fromkeys(column for task in tasks for column in task.columns[1:]))


def list_rare_columns(tasks: Iterable[TaskKind], rows: Iterable[Mapping[str, Any]]) -> list[Column]:
    """The scores that any of the rows has, of those that only some data have."""
    columns = dict.fromkeys(column for task in tasks for column in task.rare_columns)
    return [column for column in columns if any(row.get(column.score) is not None for row in rows)]


def list_columns(tasks: Iterable[TaskKind], rows: Sequence[Row]) -> dict[str, Cell]:
    """What each column of the written tables shows of a row, under its title."""
    main = {column.title: _format_spread(column) for column in list_main_columns(tasks)}
    others: dict[str, Cell] = {}
    for column in list_other_columns(tasks):
        others[column.title] = _format_score(column)
        others[f"{column.title}: change"] = _format_effect(column.score, column.format)
    return {
        "method": lambda row: row["method"],
        "seeds": lambda row: str(row["seeds"]),
        **main,
        "test set's error": _format_number("test_error", ".2f"),
        "points": _format_points(2),
        "p (Holm)": lambda row: _format_p(row.get("statistics")),
        "seeds won": format_won,
        "points at equal time": lambda row: _describe(row.get("at_equal_cost"), 2),
        **{column.title: _format_score(column) for column in list_rare_columns(tasks, rows)},
        **others,
        "NLL at temperature": _format_number("nll_at_temperature", ".3f"),
        "NLL at temperature: change": _format_effect("nll_at_temperature", ".3f"),
        "training score, %": _format_number("train_score", ".2f", 100.0),
        "s / step": _format_number("seconds_per_step", ".4g"),
        "cost s / step": _format_number("cost_per_step", ".4g"),
        "slowdown": _format_number("slowdown", ".2f"),
        "training s": _format_number("train_seconds", ",.0f"),
        "scoring s": _format_number("eval_seconds", ",.0f"),
        "peak MiB": _format_number("peak_memory_mib", ",.0f"),
        "extra parameters": lambda row: f"{row['training_only_parameters']:,d}",
    }


def list_short_columns(tasks: Iterable[TaskKind], confidence: float, rows: Sequence[Row]) -> dict[str, Cell]:
    """The columns of the printed table."""
    return {
        "method": lambda row: row["method"],
        **{column.title: _format_spread(column) for column in list_main_columns(tasks)},
        f"points, {100 * confidence:g} %": _format_points(1),
        "won": format_won,
        **{column.title: _format_score(column) for column in list_rare_columns(tasks, rows)},
        **{column.title.removesuffix(", nats"): _format_score(column) for column in list_other_columns(tasks)},
        "train, %": _format_number("train_score", ".1f", 100.0),
        "slowdown": _format_number("slowdown", ".2f"),
    }


def list_runs(rows: Iterable[Row]) -> list[list[Any]]:
    """A head, and a line for each run; what has a value for each class is left out."""
    lines = [{"arm": row["method"], **values} for row in rows for values in row.get("per_seed", ())]
    names = [
        name
        for name in dict.fromkeys(name for line in lines for name in line)
        if not any(isinstance(line.get(name), tuple | list) for line in lines)
    ]
    return [names, *([line.get(name) for name in names] for line in lines)]


def list_classes(rows: Iterable[Row]) -> list[list[str]]:
    """A head, and a line for each class: how each arm changes its accuracy or IoU, in points; empty where not known."""
    arms = {row["method"]: row["statistics"]["classes"] for row in rows if (row.get("statistics") or {}).get("classes")}
    names = dict.fromkeys(name for classes in arms.values() for name in classes)
    lines = [[escape_controls(name), *(_describe(classes.get(name), 1) for classes in arms.values())] for name in names]
    return [["class", *map(escape_controls, arms)], *lines] if lines else []


def write_value(value: Any) -> str:
    """A value of one run as a cell."""
    return UNKNOWN if value is None else f"{value:.5g}" if isinstance(value, float) else escape_controls(str(value))


def _format_number(key: str, spec: str, scale: float = 1.0) -> Cell:
    return lambda row: UNKNOWN if row.get(key) is None else format(scale * row[key], spec)


def _format_score(column: Column) -> Cell:
    return _format_number(column.score, column.format, column.scale)


def _format_spread(column: Column) -> Cell:
    mean = _format_score(column)
    deviation = _format_number(f"{column.score}_std", column.format, column.scale)
    return lambda row: f"{mean(row)} ± {deviation(row)}"


def _format_points(decimals: int) -> Cell:
    """The paired difference with its interval; empty for the baseline, which is not compared with itself."""

    def show(row: Row) -> str:
        if row.get("is_baseline"):
            return ""
        if row.get("statistics"):
            return describe_difference(row["statistics"], decimals)
        return UNKNOWN if row.get("points") is None else f"{row['points']:+.{decimals}f}"

    return show


def _format_effect(score: str, spec: str) -> Cell:
    def show(row: Row) -> str:
        if row.get("is_baseline"):
            return ""
        effect = ((row.get("statistics") or {}).get("effects") or {}).get(score)
        return UNKNOWN if effect is None else _describe(effect, int(spec.strip(".f")))

    return show


def _describe(statistics: Mapping[str, Any] | None, decimals: int) -> str:
    known = statistics is not None and statistics["mean"] is not None
    return describe_difference(statistics, decimals) if known else UNKNOWN


def _format_p(statistics: Mapping[str, Any] | None) -> str:
    p = None if statistics is None else statistics.get("p_holm")
    return UNKNOWN if p is None else f"{p:.2g}"


def format_won(row: Row) -> str:
    statistics = row.get("statistics")
    if row.get("is_baseline") or statistics is None:
        return "" if row.get("is_baseline") else UNKNOWN
    return f"{statistics['won']}/{len(statistics['differences'])}"
