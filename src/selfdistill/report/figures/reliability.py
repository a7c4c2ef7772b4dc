"""Reliability diagram: how often predictions of a confidence are right, and how many there are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..elements import Element, Number, element
from .plot import BOTTOM, LEFT, RIGHT, WIDTH, Plot, axes, color, figure, legend, line, mark, path, rectangle, text
from .scales import Scale

LEAST = 10  # predictions of a bin that has a point
HEIGHT, STRIP = 210.0, 34.0  # pixels of the diagram and of the counts above it


class Reliability(NamedTuple):
    """Bins of equal width over [0, 1] of the confidence."""

    name: str
    number: int  # of its color
    count: Int[np.ndarray, " bins"]
    hits: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]  # sums


def draw_reliability(arms: Sequence[Reliability], title: str) -> Element:
    """Points on the diagonal are honest: of predictions that claim 80 %, 80 % are right."""
    keys, height = legend([(arm.name, arm.number) for arm in arms])
    strips = height + 4
    top = strips + STRIP * len(arms) + 10
    bottom = top + HEIGHT
    plot = Plot(Scale(0, 100, LEFT, WIDTH - RIGHT), Scale(0, 100, bottom, top), top, bottom)
    drawn = [line(plot.x(0), plot.y(0), plot.x(100), plot.y(100), "guide")]
    for index, arm in enumerate(arms):
        filled = arm.count >= LEAST
        x = 100 * arm.confidence[filled] / arm.count[filled]
        y = 100 * arm.hits[filled] / arm.count[filled]
        points = [(plot.x(a), plot.y(b)) for a, b in zip(x, y, strict=True)]
        drawn += [path(points, f"line {color(arm.number)}")] * bool(points)
        drawn += [
            mark(px, py, arm.number, 3.2, element("title", f"{arm.name}: of {n:,} at {a:.0f} %, {b:.0f} % are right"))
            for (px, py), n, a, b in zip(points, arm.count[filled], x, y, strict=True)
        ]
        drawn += _draw_counts(arm, plot.x, strips + STRIP * (index + 1))
    drawn.append(
        text(
            11,
            strips + STRIP * len(arms) / 2,
            "share",
            "title",
            "middle",
            transform=f"rotate(-90 11 {strips + STRIP * len(arms) / 2:.1f})",
        )
    )
    described = " ".join(map(_describe, arms))
    whole = [keys, axes(plot, "confidence, %", "of them right, %"), drawn]
    return figure(title, f"Share of right predictions by confidence. {described}", bottom + BOTTOM, whole)


def _draw_counts(arm: Reliability, x: Scale, base: Number) -> list[Element]:
    """Bars of the share of predictions in each bin, on a line at `base`."""
    shares = arm.count / max(int(arm.count.sum()), 1)
    width = (x.end - x.start) / len(shares)
    highest = max(float(shares.max()), 1e-9)
    bars = [
        rectangle(
            x.start + index * width + 0.5,
            base - h,
            width - 1,
            h,
            f"bar {color(arm.number)}",
            element("title", f"{arm.name}: {share:.1%}"),
        )
        for index, share in enumerate(shares)
        if (h := float(share / highest * (STRIP - 6))) > 0
    ]
    return [*bars, line(x.start, base, x.end, base, "axis")]


def _describe(arm: Reliability) -> str:
    total = max(int(arm.count.sum()), 1)
    confidence, right = arm.confidence.sum() / total, arm.hits.sum() / total
    return f"{arm.name}: mean confidence {confidence:.1%}, right {right:.1%}."
