"""What changed class by class: accuracy or IoU of each, and which classes are taken for which."""

import math
import statistics
from typing import Any

import numpy as np

from ..elements import Content, Element, element
from ..evidence import Arm, ArmRun, Evidence
from ..figures.confusion import MOST_CLASSES, Mistake, draw_grid, draw_mistakes
from ..figures.differences import CLASS_ROW, Difference, draw_differences
from .blocks import captioned, figures, section, table

MOST_CHANGED = 16  # classes that a figure shows
MOST_MISTAKES = 10


def draw_classes(evidence: Evidence) -> Element | None:
    """The change of each class, as a figure of the most changed ones and a table of all."""
    baseline, classes = evidence.baseline, name_classes(evidence)
    if baseline is None or not baseline.outcomes or not classes:
        return None
    score, word = find_class_score(evidence)
    drawn: list[Content] = []
    tables: list[Content] = []
    for arm in evidence.shown:
        changes = list_changes(arm)
        if not changes:
            continue
        ordered = sorted(changes, key=lambda change: -abs(change.mean))[:MOST_CHANGED]
        ordered.sort(key=lambda change: -change.mean)
        title = f"{arm.name} against {baseline.name}"
        caption = f"the {len(ordered)} most changed of {len(changes)} classes" if len(ordered) < len(changes) else None
        svg = draw_differences(ordered, f"Change of each class's {word}: {title}", "points", row_height=CLASS_ROW + 5)
        drawn.append(captioned(svg, f"classes-{arm.name}", title, caption))
        tables.append(
            element(
                "details", element("summary", f"All classes: {title}"), _tabulate(arm, baseline, classes, (score, word))
            )
        )
    if not drawn:
        return None
    lead = (
        f"Difference of each class's {word} from the baseline with the same seed, in points, with intervals over seeds "
        "and test images where there are three seeds or more. Of many classes, some miss zero by chance."
    )
    return section("classes", "Class by class", lead, figures(drawn), tables)


def find_class_score(evidence: Evidence) -> tuple[str | None, str]:
    """The name of the task's score of single classes, and what it is called; None: accuracy, from the outcomes."""
    scores = evidence.task.class_scores if evidence.task is not None else {}
    return next(iter(scores.items()), (None, "accuracy"))


def name_classes(evidence: Evidence) -> tuple[str, ...]:
    """The names of the classes, or their numbers where no run names them."""
    outcomes = next((outcomes for arm in evidence.arms for outcomes in arm.outcomes.values()), None)
    if evidence.classes or outcomes is None:
        return evidence.classes
    columns = [getattr(outcomes, name).shape[1] for name in ("labeled", "shown") if hasattr(outcomes, name)]
    count = columns[0] if columns else int(outcomes.label.max()) + 1
    return tuple(map(str, range(count)))


def score_classes(run: ArmRun, score: str | None, count: int) -> np.ndarray:
    """The task's score of each class, or else accuracy, (k,) in percent; NaN for a class that does not occur."""
    if score is not None:
        return 100 * np.array([math.nan if value is None else value for value in run.scores[score]])
    return 100 * np.diagonal(share_rows(count_pairs(run.outcomes, count)))


def count_pairs(outcomes: Any, count: int) -> np.ndarray:
    """Images or pixels by label (row) and prediction (column)."""
    if hasattr(outcomes, "confusion"):
        return outcomes.confusion.numpy().astype(np.float64)
    pairs = outcomes.label.numpy() * count + outcomes.predicted.numpy()
    return np.bincount(pairs, minlength=count**2).reshape(count, count).astype(np.float64)


def share_rows(pairs: np.ndarray) -> np.ndarray:
    """Counts as shares of their row; NaN in empty rows."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return pairs / pairs.sum(1, keepdims=True)


def list_changes(arm: Arm) -> list[Difference]:
    """The paired difference of each class that occurs, in points."""
    paired = (arm.row or {}).get("statistics") or {}
    return [
        Difference(name, arm.number, values["mean"], _take_bounds(values["interval"]))
        for name, values in paired.get("classes", {}).items()
    ]


def _take_bounds(interval: dict[str, float] | None) -> tuple[float, float] | None:
    """An interval, cut to the points by which an accuracy or IoU can differ."""
    return None if interval is None else (max(interval["low"], -100.0), min(interval["high"], 100.0))


def _tabulate(arm: Arm, baseline: Arm, classes: tuple[str, ...], scored: tuple[str | None, str]) -> Element:
    """Every class with its score before and after."""
    score, word = scored
    changes = {change.name: change for change in list_changes(arm)}
    before, after = (_average_scores(which, score, len(classes)) for which in (baseline, arm))
    counts = _count_labels(next(iter(arm.outcomes.values())), len(classes))
    rows = []
    for k, name in enumerate(classes):
        change = changes.get(name)
        interval = "–" if change is None or change.interval is None else "{:+.1f} to {:+.1f}".format(*change.interval)
        rows.append(
            [
                name,
                f"{counts[k]:,.0f}",
                _percent(before[k]),
                _percent(after[k]),
                f"{change.mean:+.1f}" if change else "–",
                interval,
            ]
        )
    unit = "labeled pixels" if word == "IoU" else "images"
    titles = ["class", unit, f"{baseline.name}, %", f"{arm.name}, %", "change", "95 % interval"]
    return table(titles, rows, f"{word} of each class, {arm.name} against {baseline.name}", tall=len(rows) > 15)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _average_scores(arm: Arm, score: str | None, count: int) -> np.ndarray:
    runs = {run.seed: run for run in arm.runs if run.outcomes is not None}
    scores = np.stack([score_classes(run, score, count) for run in runs.values()])
    return np.array([statistics.fmean(column) for column in scores.T])  # NaN where any seed has NaN


def _count_labels(outcomes: Any, count: int) -> np.ndarray:
    if hasattr(outcomes, "shown"):
        return (outcomes.shown.numpy() > 0).sum(0)
    return count_pairs(outcomes, count).sum(1)


def draw_confusions(evidence: Evidence) -> Element | None:
    """Which classes are taken for which, before and after."""
    classes, baseline = name_classes(evidence), evidence.baseline
    arms = [arm for arm in [baseline, *evidence.shown] if arm and arm.outcomes]
    if not arms or not classes or any(hasattr(o, "shown") for arm in arms for o in arm.outcomes.values()):
        return None  # classes that may be shown together are not taken for each other
    shares = {arm.name: share_rows(sum(count_pairs(o, len(classes)) for o in arm.outcomes.values())) for arm in arms}
    drawn = []
    if len(classes) <= MOST_CLASSES:
        drawn = [
            captioned(
                draw_grid(shares[arm.name], classes, f"Confusion of {arm.name}"), f"confusion-{arm.name}", arm.name
            )
            for arm in arms
        ]
    for arm in arms[1:] if baseline in arms else []:
        mistakes = find_mistakes(shares[arms[0].name], shares[arm.name], classes)
        if mistakes:
            title = f"Largest confusions of {arms[0].name} and {arm.name}"
            svg = draw_mistakes(mistakes, title, (arms[0].name, arm.name), arm.number)
            drawn.append(captioned(svg, f"mistakes-{arm.name}", title))
    if not drawn:
        return None
    unit = "pixels" if evidence.task and evidence.task.output == "pixel" else "images"
    lead = f"Rows are labels, columns are predictions, numbers are percent of the label's {unit}, over all seeds."
    if len(classes) > MOST_CLASSES:
        pairs = f"Of {len(classes)} classes, the pairs that are confused most"
        lead = f"{pairs}, in percent of the label's {unit}, over all seeds."
    return section("confusion", "What is taken for what", lead, figures(drawn))


def find_mistakes(before: np.ndarray, after: np.ndarray, classes: tuple[str, ...]) -> list[Mistake]:
    """The pairs of classes that either arm confuses most."""
    off = np.maximum(np.nan_to_num(before), np.nan_to_num(after)) * (1 - np.eye(len(classes)))
    largest = [divmod(int(index), len(classes)) for index in np.argsort(-off, axis=None, kind="stable")[:MOST_MISTAKES]]
    return [
        Mistake(
            classes[row],
            classes[column],
            float(np.nan_to_num(before[row, column])),
            float(np.nan_to_num(after[row, column])),
        )
        for row, column in largest
        if off[row, column] > 0
    ]
