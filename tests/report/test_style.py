"""Colors: everything that is used is defined, in light and dark, and can be read."""

import re

import pytest

from selfdistill.report.style import DARK, FIGURES, LIGHT, STYLE, own_style


def luminance(color):
    """Relative luminance of #rrggbb; source: WCAG 2.2."""
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_a_contrast_of_4_5_and_series_one_of_3(colors):
    for paper in ("paper", "card", "wash"):
        for ink in ("ink", "quiet", "accent", "good", "bad"):
            assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)
    for number in range(8):
        assert contrast(colors[f"c{number}"], colors["paper"]) >= 3, number
    for number in range(7):
        ink = colors["hlow" if number < 4 else "hhigh"]
        assert contrast(ink, colors[f"h{number}"]) >= 4.5, number


def test_every_color_that_is_used_has_a_value_in_both():
    used = set(re.findall(r"var\(--(\w+)\)", STYLE.text))
    assert used <= LIGHT.keys() and LIGHT.keys() == DARK.keys()


def test_a_figure_of_its_own_needs_no_variables_and_nothing_from_elsewhere():
    assert "var(" in FIGURES and "var(" not in own_style().text
    assert not re.search(r"url\(|@import|https?:", STYLE.text)
    assert "</" not in STYLE.text
