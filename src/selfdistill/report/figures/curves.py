"""Curves over training: the mean over seeds as a line, all seeds as a band."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ..elements import Element, Number
from .plot import BOTTOM, LEFT, RIGHT, WIDTH, Plot, axes, color, figure, legend, mark, path
from .scales import Scale, fit_scale

MOST_POINTS = 200  # of a line; more cannot be told apart
HEIGHT = 180.0  # pixels between the axes
Points = Sequence[tuple[Number, Number]]  # (step or epoch, value)


class Curve(NamedTuple):
    """What is drawn of one arm."""

    name: str
    number: int  # of its color
    seeds: Sequence[Points]


class Band(NamedTuple):
    """A curve's values at one step, over the seeds that have any there."""

    x: Number
    mean: Number
    low: Number
    high: Number


def draw_curves(curves: Sequence[Curve], title: str, x_title: str, y_title: str) -> Element:
    """Lines of several arms. Values that are not finite are left out."""
    bands = {curve.name: thin(average(curve.seeds)) for curve in curves}
    points = [point for band in bands.values() for point in band]
    keys, height = legend([(curve.name, curve.number) for curve in curves])
    top, bottom = height + 4, height + 4 + HEIGHT
    x = fit_scale([point.x for point in points], LEFT, WIDTH - RIGHT, margin=0)
    y = fit_scale([value for point in points for value in (point.low, point.high)], bottom, top)
    plot = Plot(x, _include_zero(y), top, bottom)
    ticks = [tick for tick in x.ticks() if tick == round(tick)]  # epochs and steps are whole
    drawn = [part for curve in curves for part in _draw_curve(bands[curve.name], curve.number, plot)]
    description = f"{y_title} by {x_title}. " + " ".join(_describe(curve, bands[curve.name]) for curve in curves)
    return figure(title, description, bottom + BOTTOM, keys, axes(plot, x_title, y_title, x_ticks=ticks), drawn)


def average(seeds: Sequence[Points]) -> list[Band]:
    """Mean and range of the seeds at every x that any of them has.

    >>> average([[(1, 2.0), (2, 3.0)], [(1, 4.0)]])
    [Band(x=1, mean=3.0, low=2.0, high=4.0), Band(x=2, mean=3.0, low=3.0, high=3.0)]
    """
    by_x: dict[Number, list[Number]] = {}
    for points in seeds:
        for x, value in points:
            if math.isfinite(value):
                by_x.setdefault(x, []).append(value)
    return [Band(x, statistics.fmean(values), min(values), max(values)) for x, values in sorted(by_x.items())]


def thin(band: Sequence[Band]) -> list[Band]:
    """At most about `MOST_POINTS` of a band: neighbors are averaged, and their ranges joined."""
    size = -(-len(band) // MOST_POINTS)
    groups = [band[start : start + size] for start in range(0, len(band), size or 1)]
    return [
        Band(
            group[-1].x,
            statistics.fmean(point.mean for point in group),
            min(point.low for point in group),
            max(point.high for point in group),
        )
        for group in groups
    ]


def _include_zero(y: Scale) -> Scale:
    """The scale from 0 where the values come close to it and none lies below."""
    span = y.high - y.low
    is_close = y.low + 0.05 * span >= 0 and y.low < 0.3 * y.high
    return y._replace(low=0.0) if is_close else y


def _draw_curve(band: Sequence[Band], number: int, plot: Plot) -> list[Element]:
    if not band:
        return []
    edges = [(plot.x(point.x), plot.y(point.high)) for point in band]
    edges += [(plot.x(point.x), plot.y(point.low)) for point in reversed(band)]
    middle = [(plot.x(point.x), plot.y(point.mean)) for point in band]
    if len(middle) == 1:  # a line of one point would not be seen
        return [mark(*middle[0], number)]
    is_wide = any(point.high > point.low for point in band)
    return [path(edges, f"band {color(number)}", closed=True)] * is_wide + [path(middle, f"line {color(number)}")]


def _describe(curve: Curve, band: Sequence[Band]) -> str:
    if not band:
        return f"{curve.name}: no values."
    first, last = band[0], band[-1]
    return f"{curve.name}: from {first.mean:.4g} at {first.x:g} to {last.mean:.4g} at {last.x:g}."
