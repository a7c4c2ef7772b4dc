"""Paired differences: one row for each arm or class, with a dot for every seed, the mean and its interval."""

from collections.abc import Sequence
from typing import NamedTuple

from ..elements import Element, Number, element
from .plot import BOTTOM, LETTER, WIDTH, Plot, color, figure, line, mark, rectangle, shorten, text
from .scales import Scale, fit_scale, format_ticks

ROW = 30.0  # pixels; rows of classes are lower
CLASS_ROW = 19.0
MOST_LETTERS = 20  # of a name


class Difference(NamedTuple):
    """An arm's or a class's difference from the baseline."""

    name: str
    number: int  # of its color
    mean: Number
    interval: tuple[Number, Number] | None = None  # None with fewer than two seeds
    seeds: Sequence[Number] = ()


def draw_differences(
    rows: Sequence[Difference], title: str, unit: str, *, margin: Number | None = None, row_height: Number = ROW
) -> Element:
    """Rows around a line at zero. `margin` marks the range that is too small to matter."""
    letters = min(max(len(row.name) for row in rows), MOST_LETTERS)
    left = 8 + LETTER * letters + 8
    top, bottom = 6.0, 6 + row_height * len(rows)
    x = fit_scale([0.0, *(value for row in rows for value in _list_values(row))], left, WIDTH - 12, margin=0.08)
    if margin is not None:
        x = x._replace(low=min(x.low, -1.4 * margin), high=max(x.high, 1.4 * margin))
    plot = Plot(x, Scale(0, len(rows), top, bottom), top, bottom)
    ticks = x.ticks()
    drawn = _draw_margin(margin, plot) if margin is not None else []
    drawn += [line(x(tick), top, x(tick), bottom, "grid") for tick in ticks]
    drawn += [
        text(x(tick), bottom + 16, f"+{label}" if tick > 0 else label.replace("-", "−"), anchor="middle")
        for tick, label in zip(ticks, format_ticks(ticks), strict=True)
    ]
    drawn.append(line(x(0), top, x(0), bottom, "zero"))
    for index, row in enumerate(rows):
        drawn += _draw_row(row, plot.y(index + 0.5), x, left - 10, letters)
    drawn.append(text((left + WIDTH - 12) / 2, bottom + 33, unit, "title", "middle"))
    return figure(title, " ".join(_describe(row) for row in rows), bottom + BOTTOM, drawn)


def _list_values(row: Difference) -> list[Number]:
    return [row.mean, *(row.interval or ()), *row.seeds]


def _draw_margin(margin: Number, plot: Plot) -> list[Element]:
    left, right = plot.x(-margin), plot.x(margin)
    edges = [line(x, plot.top, x, plot.bottom, "guide") for x in (left, right)]
    return [rectangle(left, plot.top, right - left, plot.bottom - plot.top, "margin"), *edges]


def _draw_row(row: Difference, y: Number, x: Scale, right: Number, letters: int) -> list[Element]:
    """The name, the interval, a dot for each seed below it, and the mean."""
    drawn = [text(right, y + 4, shorten(row.name, letters), "name", "end")]
    if row.interval is not None:
        low, high = (x(value) for value in row.interval)
        ends = [line(end, y - 4, end, y + 4, f"whisker {color(row.number)}") for end in (low, high)]
        drawn += [line(low, y, high, y, f"whisker {color(row.number)}"), *ends]
    drawn += [
        element("circle", cx=float(x(value)), cy=y + 9, r=2.2, class_=f"seed {color(row.number)}")
        for value in row.seeds
    ]
    return [*drawn, mark(x(row.mean), y, row.number, 4.5, element("title", _describe(row)))]


def _describe(row: Difference) -> str:
    interval = "" if row.interval is None else f", interval {row.interval[0]:+.2f} to {row.interval[1]:+.2f}"
    seeds = "" if not row.seeds else f", seeds {', '.join(f'{value:+.2f}' for value in row.seeds)}"
    return f"{row.name}: {row.mean:+.2f}{interval}{seeds}."
