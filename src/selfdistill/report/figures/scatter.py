"""Score against cost: a small dot for every seed, a large one for the mean, lines of equal cost."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ..elements import Element, Number, element
from .plot import BOTTOM, LEFT, RIGHT, WIDTH, Plot, axes, figure, legend, line, mark, text
from .scales import fit_scale

HEIGHT = 220.0
LADDER = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # times the baseline's cost
MOST_LINES = 5


class Spending(NamedTuple):
    """Cost and score of each seed of an arm."""

    name: str
    number: int  # of its color
    seeds: Sequence[tuple[Number, Number]]

    @property
    def mean(self) -> tuple[Number, Number]:
        costs, scores = zip(*self.seeds, strict=True)
        return statistics.fmean(costs), statistics.fmean(scores)


def draw_spending(
    arms: Sequence[Spending], title: str, cost_title: str, score_title: str, *, unit_cost: Number | None = None
) -> Element:
    """Arms by cost and score. `unit_cost` is the baseline's; lines mark its multiples."""
    keys, height = legend([(arm.name, arm.number) for arm in arms])
    top, bottom = height + 18, height + 18 + HEIGHT
    seeds = [point for arm in arms for point in arm.seeds]
    costs = [cost for cost, _ in seeds]
    x = fit_scale([0.0, *costs], LEFT, WIDTH - RIGHT)
    y = fit_scale([score for _, score in seeds], bottom, top, margin=0.12)
    plot = Plot(x._replace(low=0.0), y, top, bottom)
    drawn = _draw_equal_costs(unit_cost, plot) if unit_cost else []
    for arm in arms:
        drawn += [mark(plot.x(cost), plot.y(score), arm.number, 2.2) for cost, score in arm.seeds]
        cost, score = arm.mean
        words = element("title", f"{arm.name}: {score:.2f} for {cost:,.1f}")
        drawn.append(mark(plot.x(cost), plot.y(score), arm.number, 6, words))
    described = "; ".join(f"{arm.name}: {arm.mean[1]:.2f} for {arm.mean[0]:,.1f}" for arm in arms)
    description = f"{score_title} against {cost_title}, means over seeds. {described}."
    return figure(title, description, bottom + BOTTOM, keys, axes(plot, cost_title, score_title), drawn)


def _draw_equal_costs(unit: Number, plot: Plot) -> list[Element]:
    """Lines at multiples of the baseline's cost, labeled above the plot."""
    factors = [factor for factor in LADDER if factor * unit <= plot.x.high]
    drawn = []
    for factor in factors[:: -(-len(factors) // MOST_LINES)] if factors else []:
        x = plot.x(factor * unit)
        drawn += [line(x, plot.top, x, plot.bottom, "guide"), text(x, plot.top - 5, f"{factor:g}×", anchor="middle")]
    return drawn
