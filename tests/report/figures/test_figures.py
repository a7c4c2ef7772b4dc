"""Figures are whole SVGs: named, described, inside of their frame, whatever the numbers are."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageColor

from selfdistill.report.figures.confusion import Mistake, draw_grid, draw_mistakes
from selfdistill.report.figures.curves import MOST_POINTS, Band, Curve, average, draw_curves, thin
from selfdistill.report.figures.differences import Difference, draw_differences
from selfdistill.report.figures.plot import figure, line, mark, rectangle, text
from selfdistill.report.figures.raster import rasterize
from selfdistill.report.figures.reliability import Reliability, draw_reliability
from selfdistill.report.figures.scales import choose_ticks, fit_scale, format_ticks
from selfdistill.report.figures.scatter import Spending, draw_spending
from selfdistill.report.style import LIGHT

EVIL = "<script>alert(1)</script>"
SVG = "{http://www.w3.org/2000/svg}"
COUNTS = np.array([0, 20, 300])
FIGURES = {
    "curves": lambda: draw_curves(
        [
            Curve(EVIL, 0, [[(1, 0.5), (2, 0.25)], [(1, 0.75), (2, math.nan)]]),
            Curve("one point", 9, [[(1, 3.0)]]),
            Curve("none", 2, [[]]),
        ],
        "Loss",
        "step",
        "loss",
    ),
    "equal values": lambda: draw_curves([Curve("a", 1, [[(1, 0.1), (2, 0.1)]])], "lr", "step", "lr"),
    "spending": lambda: draw_spending(
        [Spending("baseline", 0, [(10.0, 50.0), (11.0, 52.0)]), Spending(EVIL, 1, [(40.0, 55.0)])],
        "Accuracy against cost",
        "seconds",
        "accuracy, %",
        unit_cost=10.5,
    ),
    "one run": lambda: draw_spending([Spending("a", 1, [(0.0, 50.0)])], "t", "s", "%"),
    "differences": lambda: draw_differences(
        [Difference(EVIL, 1, 1.0, (-0.5, 2.5), (0.2, 1.8)), Difference("one seed", 2, -0.3)], "d", "points", margin=0.5
    ),
    "no difference": lambda: draw_differences([Difference("a", 1, 0.0)], "d", "points"),
    "grid": lambda: draw_grid(np.array([[0.9, 0.1], [math.nan, math.nan]]), ["cat", EVIL], "c"),
    "large grid": lambda: draw_grid(np.eye(20), [f"a class with a long name {k}" for k in range(20)], "c"),
    "mistakes": lambda: draw_mistakes([Mistake("cat", EVIL, 0.2, 0.1), Mistake("a", "b", 0, 0)], "m", ("x", "y"), 1),
    "reliability": lambda: draw_reliability(
        [Reliability(EVIL, 0, COUNTS, np.array([0, 5, 290]), np.array([0.0, 9.0, 280.0]))], "r"
    ),
    "no predictions": lambda: draw_reliability([Reliability("a", 1, COUNTS * 0, COUNTS * 0, COUNTS * 0.0)], "r"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_a_name_and_a_description_and_stays_in_its_frame(name):
    root = ElementTree.fromstring(str(FIGURES[name]()))
    assert root.tag == f"{SVG}svg" and root.attrib["role"] == "img" and root.attrib["aria-label"]
    assert [child.tag for child in root[:2]] == [f"{SVG}title", f"{SVG}desc"] and root[0].text and root[1].text
    assert root.find(f".//{SVG}script") is None
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for x, y in list_positions(root):
        assert -1 <= x <= width + 1 and -1 <= y <= height + 1


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_as_pixels_too(name):
    svg = FIGURES[name]()
    picture = rasterize(svg)
    assert picture.size == (2 * int(svg.attributes["width"]), 2 * int(svg.attributes["height"]))
    assert len(picture.getcolors(maxcolors=10**6)) > 5


def test_pixels_have_the_colors_and_places_of_the_figure():
    whole = figure(
        "f",
        "d",
        100,
        rectangle(10, 20, 30, 40, "cell h6"),
        line(0, 80, 380, 80, "guide"),
        text(300, 50, "W", "tick", transform="rotate(-90 300 50)"),
    )
    pixels = np.asarray(rasterize(whole))
    assert (pixels[40:120, 20:80] == ImageColor.getrgb(LIGHT["h6"])).all()
    assert (pixels[0:38, :500] == 255).all()
    dashed = (pixels[160] < 250).any(axis=1)
    assert 0.2 < dashed.mean() < 0.7
    letter = np.argwhere((pixels[:140, 560:640] < 200).any(axis=2))
    assert letter[:, 0].max() <= 101 and letter[:, 1].max() + 560 <= 601  # above and left of its anchor


VALUES = st.floats(-1e300, 1e300) | st.sampled_from([0.0, 1.0, math.nextafter(1, 2), 1e-300, math.nan, math.inf])
FINITE = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 1.0, math.nextafter(1, 2), 1e-300])


@settings(max_examples=30)
@given(values=st.lists(VALUES, max_size=4), others=st.lists(FINITE, min_size=3, max_size=3), cost=FINITE)
def test_any_numbers_can_be_drawn(values, others, cost):
    mean, low, high = others
    figures = [
        draw_curves([Curve("a", 1, [list(enumerate(values))])], "t", "x", "y"),
        draw_differences([Difference("a", 1, mean, (low, high), others)], "t", "points", margin=0.5),
        draw_spending([Spending("a", 1, [(abs(cost), mean), (1.0, low)])], "t", "x", "y", unit_cost=abs(cost)),
    ]
    for svg in figures:
        root = ElementTree.fromstring(str(svg))
        assert all(-1 <= x <= 381 and -1 <= y <= 800 for x, y in list_positions(root))
        assert "nan" not in str(svg) and "inf" not in root.attrib["viewBox"]


def list_positions(root):
    """The coordinates of all marks, lines, paths and texts."""
    for child in root.iter():
        for keys in (("x", "y"), ("x1", "y1"), ("x2", "y2"), ("cx", "cy")):
            if keys[0] in child.attrib:
                yield float(child.attrib[keys[0]]), float(child.attrib[keys[1]])
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", child.get("points", child.get("d", "")))]
        yield from zip(numbers[::2], numbers[1::2], strict=True)


def test_names_reach_the_description_as_text():
    for name in ("curves", "spending", "differences", "grid", "mistakes", "reliability"):
        root = ElementTree.fromstring(str(FIGURES[name]()))
        assert EVIL in root[1].text, name


@given(low=st.floats(-1e6, 1e6), share=st.floats(1e-6, 1e6), count=st.integers(2, 8))
def test_ticks_are_round_few_and_within_the_scale(low, share, count):
    span = share * max(abs(low), 1e-6)
    ticks = choose_ticks(low, low + span, count)
    assert all(low - 1e-3 * span <= tick <= low + span + 1e-3 * span for tick in ticks)
    assert 1 <= len(ticks) <= 2 * count + 2
    assert len(format_ticks(ticks)) == len(ticks)


@pytest.mark.slow
@given(values=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=5))
def test_a_scale_holds_every_finite_value(values):
    scale = fit_scale(values, 0, 100)
    assert scale.low < scale.high
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values if math.isfinite(value))


def test_a_band_reaches_from_the_lowest_seed_to_the_highest():
    band = average([[(1, 0.5), (2, math.nan)], [(1, 0.75), (2, 0.25)]])
    assert band == [Band(1, 0.625, 0.5, 0.75), Band(2, 0.25, 0.25, 0.25)]


def test_a_long_curve_keeps_its_range_and_its_last_step():
    band = average([[(step, float(step % 7)) for step in range(10_001)]])
    thinned = thin(band)
    assert len(thinned) <= MOST_POINTS + 1 and thinned[-1].x == 10_000
    assert min(point.low for point in thinned) == 0 and max(point.high for point in thinned) == 6


def test_sixteen_series_have_marks_that_can_be_told_apart():
    marks = [mark(0, 0, number) for number in range(16)]
    kinds = [(each.name, each.attributes["class"].split()[1], each.attributes.get("points")) for each in marks]
    assert len(set(kinds)) == 16  # shape and color; the color alone repeats
