"""Which classes are taken for which: a grid of few classes, the largest confusions of many."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..elements import Element, Number, element
from .plot import BOTTOM, LETTER, WIDTH, color, figure, legend, line, mark, rectangle, shorten, text
from .scales import Scale, format_ticks

MOST_CLASSES = 20  # of a grid
SHADES = 6  # of a cell, by its share
LEAST = 0.005  # share of a cell that is colored
ROW = 34.0


class Mistake(NamedTuple):
    """The share of a class's images that are taken for another class, before and after."""

    label: str
    predicted: str
    before: Number
    after: Number


def draw_grid(shares: Float[np.ndarray, "k k"], classes: Sequence[str], title: str) -> Element:
    """A cell for each label (row) and prediction; `shares` of the label's images, in [0, 1], NaN if it has none."""
    k = len(classes)
    letters = min(max(map(len, classes)), 14)
    left, top = 20 + LETTER * letters, LETTER * letters * 0.72 + 14
    side = (WIDTH - left - max(24, LETTER * letters * 0.72)) / k  # the last turned name needs room
    drawn = []
    for row, name in enumerate(classes):
        drawn.append(text(left - 6, top + (row + 0.5) * side + 4, shorten(name, letters), "name", "end"))
        x, y = left + (row + 0.5) * side, top - 5
        drawn.append(text(x, y, shorten(name, letters), "name", transform=f"rotate(-45 {x:.1f} {y:.1f})"))
        for column, other in enumerate(classes):
            drawn += _draw_cell(shares[row, column], left + column * side, top + row * side, side, f"{name} as {other}")
    return figure(title, _describe_grid(shares, classes), top + k * side + 8, drawn)


def _draw_cell(share: Number, x: Number, y: Number, side: Number, words: str) -> list[Element]:
    known = 0.0 if np.isnan(share) else float(share)
    shade = 0 if known < LEAST else min(int(np.ceil(known * SHADES)), SHADES)
    cell = rectangle(x + 0.5, y + 0.5, side - 1, side - 1, f"cell h{shade}", element("title", f"{words}: {known:.1%}"))
    if side < 19 or known < LEAST:
        return [cell]
    return [cell, text(x + side / 2, y + side / 2 + 3.5, f"{100 * known:.0f}", f"count h{shade}", "middle")]


def _describe_grid(shares: Float[np.ndarray, "k k"], classes: Sequence[str]) -> str:
    off = np.nan_to_num(shares * (1 - np.eye(len(classes))))
    largest = np.argsort(off, axis=None)[::-1][:5]
    pairs = [divmod(int(index), len(classes)) for index in largest if off.flat[index] > 0]
    words = "; ".join(f"{classes[row]} as {classes[column]} {off[row, column]:.1%}" for row, column in pairs)
    right = np.nanmean(np.diagonal(shares)) if np.isfinite(np.diagonal(shares)).any() else 0.0
    average = f"Percent of each label's row. On average {right:.1%} of a class is right."
    return f"{average} Largest confusions: {words or 'none'}."


def draw_mistakes(mistakes: Sequence[Mistake], title: str, names: tuple[str, str], number: int) -> Element:
    """Rows of confusions; a line leads from the baseline's share to the method's."""
    keys, height = legend([(names[0], 0), (names[1], number)])
    top, bottom = height + 2, height + 2 + ROW * len(mistakes)
    highest = max(max(mistake.before, mistake.after) for mistake in mistakes) or 0.01
    x = Scale(0.0, 100 * highest * 1.05, 12.0, WIDTH - 14.0)
    ticks = x.ticks()
    drawn = [line(x(tick), top, x(tick), bottom, "grid") for tick in ticks]
    drawn += [
        text(x(tick), bottom + 16, label, anchor="middle")
        for tick, label in zip(ticks, format_ticks(ticks), strict=True)
    ]
    for index, mistake in enumerate(mistakes):
        y = top + ROW * index
        words = f"{shorten(mistake.label, 26)} taken for {shorten(mistake.predicted, 26)}"
        before, after = x(100 * mistake.before), x(100 * mistake.after)
        drawn += [
            text(x.start, y + 12, words, "name"),
            line(before, y + 23, after, y + 23, f"whisker {color(number)}"),
            mark(before, y + 23, 0, 3.6),
            mark(after, y + 23, number, 3.6),
        ]
    drawn.append(text(WIDTH / 2, bottom + 33, "percent of the label's images", "title", "middle"))
    said = "; ".join(f"{m.label} as {m.predicted}: {m.before:.1%}, then {m.after:.1%}" for m in mistakes)
    return figure(title, f"From {names[0]} to {names[1]}. {said}.", bottom + BOTTOM, keys, drawn)
