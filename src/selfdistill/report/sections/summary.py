"""The top of the page: the verdict, the arms, and what makes them less comparable than they look."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ...errors import count_of
from ..columns import list_short_columns
from ..elements import Content, Element, element
from ..evidence import Arm, Evidence
from ..figures.differences import Difference, draw_differences
from ..verdict import HURTS, NOTHING, UNKNOWN, USE
from .blocks import captioned, figures, join_words, section, table
from .cost import measure_total

HEADLINES = {  # of the first verdict; its own sentence has the numbers
    USE: "Use {}.",
    HURTS: "{} hurts here.",
    NOTHING: "No evidence that {} helps.",
    UNKNOWN: "These runs cannot tell whether {} helps.",
}
BADGES = {USE: "good", HURTS: "bad"}
NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"


class Fact(NamedTuple):
    """One of the numbers below the headline."""

    value: str
    meaning: str


def draw_verdict(evidence: Evidence) -> Element:
    """One sentence, three numbers, and the verdicts on the further arms."""
    verdicts = list(evidence.comparison.verdicts)
    if not verdicts:
        return draw_card(None, describe_runs(evidence), None, list_facts(evidence))
    first, *others = verdicts
    arm = next(arm for arm in evidence.arms if arm.name == first.arm)
    listed = [element("li", _draw_badge(other.verdict), other.sentence) for other in others]
    return draw_card(
        _draw_badge(first.verdict),
        HEADLINES[first.verdict].format(first.arm),
        element("p", first.sentence, class_="why"),
        list_difference_facts(evidence, arm),
        element("ul", listed, class_="others") if listed else None,
    )


def draw_card(badge: Content, headline: str, why: Content, facts: Sequence[Fact], others: Content = None) -> Element:
    pairs = [element("div", element("dt", fact.meaning), element("dd", fact.value)) for fact in facts]
    numbers = element("dl", pairs, class_="numbers") if pairs else None
    return element("div", badge, element("p", headline, class_="said"), why, numbers, others, class_="verdict")


def _draw_badge(verdict: str) -> Element:
    return element("span", verdict, class_=f"badge {BADGES.get(verdict, 'plain')}")


def describe_runs(evidence: Evidence) -> str:
    """What the page shows where nothing is compared."""
    finished = sum(len(arm.finished) for arm in evidence.arms)
    arms = join_words([arm.name for arm in evidence.arms])
    if not finished:
        return f"{arms}: {count_of(len(evidence.runs), 'run')} not finished, so there is no result yet."
    scored = [arm for arm in evidence.arms if average_score(arm, evidence) is not None]
    if not scored:
        why = "without scores" if evidence.task else "of several tasks, which have no score in common"
        return f"{arms}: {count_of(finished, 'finished run')} {why}."
    best = max(scored, key=lambda arm: average_score(arm, evidence) or 0.0)
    score = f"{name_score(evidence)} {_format_score(best, evidence)}"
    if len(scored) > 1:
        return f"{best.name} has the highest {score}, of {len(scored)} arms; no verdict rests on it."
    runs = count_of(len(best.finished), "run")
    return f"{best.name} reaches {score} in {runs}; there is no other arm to compare with."


def name_score(evidence: Evidence) -> str:
    """The main score, without its unit."""
    return evidence.task.columns[0].title.removesuffix(", %") if evidence.task else "score"


def average_score(arm: Arm, evidence: Evidence) -> float | None:
    """The mean main score of an arm, in percent; None where there is none, or the arms have different ones."""
    if evidence.task is None:
        return None
    column = evidence.task.columns[0]
    scores = [column.scale * run.scores[column.score] for run in arm.finished if column.score in run.scores]
    return statistics.fmean(scores) if scores else None


def _format_score(arm: Arm, evidence: Evidence) -> str:
    """The mean main score with its unit."""
    unit = f"{NARROW_SPACE}%" if evidence.task and evidence.task.columns[0].title.endswith(", %") else ""
    return f"{average_score(arm, evidence):.1f}{unit}"


def list_facts(evidence: Evidence) -> list[Fact]:
    """Three numbers of the best arm, where nothing is compared."""
    scored = [arm for arm in evidence.arms if average_score(arm, evidence) is not None]
    if not scored:
        return []
    best = max(scored, key=lambda arm: average_score(arm, evidence) or 0.0)
    runs = [run for run in best.finished if run.scores]
    split, images = runs[0].split or "held-out", runs[0].scores.get("count")
    where = f"on {images:,} {split} images" if images else f"on the {split} images"
    facts = [Fact(_format_score(best, evidence), f"{name_score(evidence)} of {best.name}, {where}")]
    if all("nll" in run.scores for run in runs):
        nll = statistics.fmean(run.scores["nll"] for run in runs)
        facts.append(Fact(f"{nll:.3f}", "negative log-likelihood, nats"))
    seconds = statistics.fmean(measure_total(other) for other in best.finished)
    return [*facts, Fact(format_seconds(seconds), "training steps of one run")]


def format_seconds(seconds: float) -> str:
    """Seconds in a unit that people think in.

    >>> [format_seconds(seconds).replace(NARROW_SPACE, " ") for seconds in (1.84, 12.3, 600.0, 9000.0)]
    ['1.8 s', '12 s', '10 min', '2.5 h']
    """
    if seconds < 120:
        return f"{seconds:.2g}{NARROW_SPACE}s" if seconds < 10 else f"{seconds:.0f}{NARROW_SPACE}s"
    minutes = seconds / 60
    return f"{minutes:.0f}{NARROW_SPACE}min" if minutes < 120 else f"{minutes / 60:.1f}{NARROW_SPACE}h"


def list_difference_facts(evidence: Evidence, arm: Arm) -> list[Fact]:
    """An arm beside the baseline: difference, seeds won, training time."""
    paired = arm.row and arm.row.get("statistics")
    if not paired or paired["mean"] is None:
        return []
    interval, level = paired["interval"], 100 * evidence.comparison.rule.confidence
    span = f"{level:g} % interval {interval['low']:+.1f} to {interval['high']:+.1f}" if interval else "no interval"
    points = f"{paired['mean']:+.1f} points"
    won = f"{paired['won']} of {len(paired['differences'])}"
    facts = [
        Fact(
            points.replace("-", "−"),
            f"{name_score(evidence)} beside {paired['against']}, {span}",
        ),
        Fact(won, f"seeds that were better than {paired['against']} with the same seed"),
    ]
    slowdown = arm.row and (arm.row["run_slowdown"] or arm.row["slowdown"])
    return [*facts, Fact(f"{slowdown:.2g}×", "the training time; none at inference")] if slowdown else facts


def list_differences(evidence: Evidence, key: str) -> list[Difference]:
    """The paired difference of every arm, in points: "statistics" or "at_equal_cost" of its row."""
    differences = []
    for arm in evidence.others:
        paired = arm.row and arm.row.get(key)
        if paired and paired["mean"] is not None:
            interval = paired["interval"] and (paired["interval"]["low"], paired["interval"]["high"])
            seeds = [value for value in paired["differences"] if value is not None]
            differences.append(Difference(arm.name, arm.number, paired["mean"], interval, seeds))
    return differences


def _draw_differences(evidence: Evidence) -> Element | None:
    """Figures of the differences from the baseline, and from the one that was trained for as long a time."""
    rule = evidence.comparison.rule
    caption = (
        f"Means with {100 * rule.confidence:g} % intervals. Each ring is a seed, which starts from the weights of the "
        f"baseline's and sees the same batches. Within the shaded {rule.margin:g} points a difference is too small to "
        "matter."
    )
    against = evidence.baseline.name if evidence.baseline else "the baseline"
    longer = f"At equal training time: from {against} with more epochs"
    titles = {"statistics": f"Difference from {against}, {name_score(evidence)}", "at_equal_cost": longer}
    drawn = []
    for (key, title), name in zip(titles.items(), ("differences", "differences-at-equal-time"), strict=True):
        if rows := list_differences(evidence, key):
            svg = draw_differences(rows, title, "percentage points", margin=rule.margin)
            drawn.append(captioned(svg, name, title, None if drawn else caption))
    return figures(drawn) if drawn else None


def _draw_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Element:
    """The table without columns that nothing is known for."""
    known = [number for number in range(len(titles)) if any(row[number] not in ("", "-") for row in rows)]
    cells = [[row[number].removesuffix(" ± -") for number in known] for row in rows]
    return table([titles[number] for number in known], cells, "Means over the seeds of each arm")


def draw_arms(evidence: Evidence) -> Element:
    """The table of arms, their differences as a figure, and the notes."""
    comparison = evidence.comparison
    content: list[Element | None] = []
    if comparison.rows:
        short = list_short_columns(comparison.tasks, comparison.rule.confidence, comparison.rows)
        content.append(_draw_table(list(short), comparison.cells(short)))
        whole = table(list(comparison.columns()), comparison.cells(), "Means over the seeds of each arm, all columns")
        content.append(element("details", element("summary", "All columns"), whole))
    content.append(_draw_differences(evidence))
    if notes := comparison.sentences():
        content.append(element("div", [element("p", sentence) for sentence in notes], class_="note"))
    if comparison.verdicts:
        rule = element("p", comparison.rule.describe())
        content.append(element("details", element("summary", "How the verdicts were decided"), rule))
    return section("arms", "The arms" if len(evidence.arms) > 1 else "The run", "", content)
