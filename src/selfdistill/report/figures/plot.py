"""What all figures share: the frame with its axes, the legend, marks, text of a limited length."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..elements import Content, Element, Number, element
from .scales import Scale, format_ticks

WIDTH = 380  # pixels of every figure: a phone shows it as it is
LETTER = 6.6  # pixels that a letter of 11 pixels takes on average
COLORS = 8  # then colors begin again, with dashed lines and other marks
LEFT, RIGHT, BOTTOM = 54.0, 10.0, 40.0  # room for titles and ticks
LEGEND_ROW = 18.0


class Plot(NamedTuple):
    """The area of a figure between its axes."""

    x: Scale
    y: Scale
    top: Number
    bottom: Number


def figure(title: str, description: str, height: Number, *content: Content) -> Element:
    """An SVG with a title and a description for those who do not see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:.0f}",
        width=WIDTH,
        height=round(height),
        role="img",
        aria_label=title,
        class_="plot",
    )


def text(x: Number, y: Number, content: str, kind: str = "tick", anchor: str = "start", **more: str | None) -> Element:
    return element("text", content, x=float(x), y=float(y), class_=kind, text_anchor=anchor, **more)


def line(x1: Number, y1: Number, x2: Number, y2: Number, kind: str) -> Element:
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind)


def rectangle(x: Number, y: Number, width: Number, height: Number, kind: str, *content: Content) -> Element:
    return element("rect", content, x=float(x), y=float(y), width=float(width), height=float(height), class_=kind)


def path(points: Iterable[tuple[Number, Number]], kind: str, *, closed: bool = False) -> Element:
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return element("path", d=f"M{steps}{'Z' if closed else ''}", class_=kind)


def mark(x: Number, y: Number, number: int, size: Number = 4.0, *content: Content) -> Element:
    """A dot in the color of a series; its shape differs too, for readers who do not tell the colors apart.

    Where colors begin again, each has another shape than before.
    """
    kind = f"dot {color(number)}"
    match (number + number // COLORS) % 4:
        case 0:
            return element("circle", content, cx=float(x), cy=float(y), r=float(size), class_=kind)
        case 1:
            points = [(x, y - 1.3 * size), (x + 1.3 * size, y), (x, y + 1.3 * size), (x - 1.3 * size, y)]
        case 2:
            points = [(x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)]
        case _:
            points = [(x, y - 1.2 * size), (x + 1.2 * size, y + size), (x - 1.2 * size, y + size)]
    joined = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return element("polygon", content, points=joined, class_=kind)


def color(number: int) -> str:
    """The classes that color a series, by its number; 0 is the baseline's gray."""
    return f"c{number % COLORS}" + (" dashed" if number >= COLORS else "")


def shorten(content: str, letters: int) -> str:
    """The text, cut to a number of letters.

    >>> shorten("label_smoothing", 15), shorten("label_smoothing", 8)
    ('label_smoothing', 'label_s…')
    """
    return content if len(content) <= letters else f"{content[: letters - 1]}…"


def legend(entries: Sequence[tuple[str, int]], top: Number = 0.0) -> tuple[list[Element], Number]:
    """Marks and names of series, in as many rows as they need, and the height of these."""
    drawn, x, y = [], 2.0, top + 12
    for name, number in entries:
        label = shorten(name, 54)
        width = 18 + LETTER * len(label) + 12
        if x > 2 and x + width > WIDTH:
            x, y = 2.0, y + LEGEND_ROW
        drawn += [mark(x + 6, y - 4, number), text(x + 16, y, label, "key")]
        x += width
    return drawn, (y + 10 - top if entries else 0.0)


def axes(plot: Plot, x_title: str, y_title: str, *, x_ticks: Sequence[Number] | None = None) -> list[Element]:
    """Grid lines, ticks and titles of both axes."""
    x_values, y_values = plot.x.ticks() if x_ticks is None else list(x_ticks), plot.y.ticks()
    drawn = [line(plot.x.start, plot.y(value), plot.x.end, plot.y(value), "grid") for value in y_values]
    drawn += [
        text(plot.x.start - 6, plot.y(value) + 4, label, anchor="end")
        for value, label in zip(y_values, format_ticks(y_values), strict=True)
    ]
    drawn += [line(plot.x(value), plot.bottom, plot.x(value), plot.bottom + 4, "axis") for value in x_values]
    drawn += [
        text(plot.x(value), plot.bottom + 16, label, anchor="middle")
        for value, label in zip(x_values, format_ticks(x_values), strict=True)
    ]
    middle, height = (plot.x.start + plot.x.end) / 2, (plot.top + plot.bottom) / 2
    drawn += [
        line(plot.x.start, plot.bottom, plot.x.end, plot.bottom, "axis"),
        text(middle, plot.bottom + 33, x_title, "title", "middle"),
        text(11, height, y_title, "title", "middle", transform=f"rotate(-90 11 {height:.1f})"),
    ]
    return drawn
