"""A row of a comparison beside the baseline: what it costs, and its paired statistics."""

from collections.abc import Mapping, Sequence

from ..tasks.base import Column, TaskKind
from .columns import Row, list_main_columns, list_other_columns
from .finished import FinishedRun
from .paired import compare_arms, measure_test_error, read_arm
from .verdict import Rule, adjust_rows

EQUAL = 1.15  # times the cost of another run, up to which the two cost the same


def compare_costs(baseline: Row | None, row: Row) -> Row:
    """How many times the baseline's time a step and the whole run take: processor or device time where it is known."""
    other: Row = baseline or {}
    return {
        "is_baseline": row is baseline,
        "slowdown": _divide(row, other, "cost_per_step") or _divide(row, other, "seconds_per_step"),
        "run_slowdown": _divide(row, other, "cost") or _divide(row, other, "train_seconds"),
    }


def _divide(row: Row, other: Row, name: str) -> float | None:
    return row[name] / other[name] if row[name] is not None and other.get(name) else None


def describe_unequal_costs(rows: Sequence[Row]) -> list[str]:
    """Sentences on baselines of equal cost whose runs cost more or less than the arm's after all."""
    costs = {row["method"]: row.get("run_slowdown") for row in rows}
    sentences = []
    for row in rows:
        arm, longer = row["method"], row.get("equal_cost")
        if not row.get("at_equal_cost") or not costs[arm] or not costs[longer]:
            continue
        ratio = costs[longer] / costs[arm]
        if not 1 / EQUAL <= ratio <= EQUAL:
            side = "hard on" if ratio > 1 else "kind to"
            sentences.append(
                f"{longer} took {ratio:.2f} times the training time of {arm}, not the same as the pilot had it: their "
                f"difference is too {side} {arm}."
            )
    return sentences


def add_statistics(
    rows: Sequence[Row],
    reference: Row | None,
    groups: Mapping[str, Sequence[FinishedRun]],
    tasks: Sequence[TaskKind],
    split: str | None,
    rule: Rule,
    equal_cost: Mapping[str, str],
) -> list[Row]:
    """The rows with their paired statistics, against the baseline and against the one of equal cost; see `paired`."""
    columns = [*list_main_columns(tasks)[:1], *list_other_columns(tasks)] if len(tasks) == 1 else []
    arms = {name: read_arm(name, runs, split) for name, runs in groups.items()} if columns else {}

    def compare(row: Row, against: str | None) -> Row | None:
        if against not in arms or against == row["method"] or not arms[against].runs.keys() & arms[row["method"]].runs:
            return None
        return compare_arms(arms[against], arms[row["method"]], columns, rule.confidence)

    longer = {arm: name for arm, name in equal_cost.items() if reference is None or name != reference["method"]}
    added = [
        row
        | {
            "test_error": measure_test_error(arms[row["method"]]) if arms else None,
            "statistics": compare(row, reference and reference["method"]),
            "equal_cost": equal_cost.get(row["method"]),  # the row of the baseline that was trained for as long
            "at_equal_cost": None if row["is_baseline"] else compare(row, longer.get(row["method"])),
            "is_judged": not row["is_baseline"] and row["method"] not in longer.values(),
        }
        for row in rows
    ]
    judged, others = ([row for row in added if row["is_judged"] is is_judged] for is_judged in (True, False))
    for name, family in (("statistics", judged), ("statistics", others), ("at_equal_cost", added)):
        known = [row[name] for row in family if row[name] is not None]
        for statistics_of_row, p in zip(known, adjust_rows(known), strict=True):
            statistics_of_row["p_holm"] = p
    main = list_main_columns(tasks)
    return [row | {"points": _subtract_means(row, reference, main)} for row in added]


def _subtract_means(row: Row, reference: Row | None, main: Sequence[Column]) -> float | None:
    """The difference of the main score's means, in points; None for the baseline itself."""
    if reference is None or row["is_baseline"]:
        return None
    shared = [c.score for c in main if row.get(c.score) is not None and reference.get(c.score) is not None]
    return 100 * (row[shared[0]] - reference[shared[0]]) if shared else None
