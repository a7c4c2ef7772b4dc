"""The style sheet and the script of the page, and the colors of figures.

Series colors are those of Okabe and Ito, which readers with any kind of color vision tell apart, lighter on dark paper.
"""

import re
from pathlib import Path

from .elements import Constant


def number(letter: str, colors: str) -> dict[str, str]:
    """Names for several colors: c0, c1, ... of series (0 is the baseline), h0, h1, ... of cells by their share."""
    return {f"{letter}{index}": color for index, color in enumerate(colors.split())}


LIGHT = {
    "paper": "#fbfaf7",
    "card": "#ffffff",
    "ink": "#1c1e21",
    "quiet": "#5b6068",
    "rule": "#e3e0d8",
    "grid": "#ebe8e1",
    "accent": "#0b5c8a",
    "good": "#0a6a4a",
    "bad": "#a63a00",
    "wash": "#f3f1eb",
    **number("c", "#6b7077 #0072b2 #d55e00 #009e73 #b0588f #b27d00 #2a8fc7 #4b3fb0"),
    **number("h", "#f6f5f1 #e2edf4 #bcd8e9 #8bbcdb #2f7bb0 #1d5f92 #0a4a77"),
    "hlow": "#1c1e21",
    "hhigh": "#ffffff",
}
DARK = {
    "paper": "#15171a",
    "card": "#1d2024",
    "ink": "#eceae5",
    "quiet": "#a9aeb6",
    "rule": "#33373d",
    "grid": "#2b2f34",
    "accent": "#7cc4ee",
    "good": "#5fd3a6",
    "bad": "#ff9d6b",
    "wash": "#24282d",
    **number("c", "#a3a8af #56b4e9 #ff9354 #3fcf9f #e59ac8 #f0c04a #9fd3f5 #a79bff"),
    **number("h", "#24282d #1f3a4d #1f4e6c #24668f #4691c0 #6fb2db #a9d6f2"),
    "hlow": "#eceae5",
    "hhigh": "#15171a",
}
SERIES = "".join(
    f".line.c{n},.whisker.c{n}{{stroke:var(--c{n})}}.band.c{n},.dot.c{n},.bar.c{n}{{fill:var(--c{n})}}"
    f".seed.c{n}{{stroke:var(--c{n})}}"
    for n in range(8)
)
CELLS = "".join(
    f".cell.h{n}{{fill:var(--h{n})}}.count.h{n}{{fill:var(--{'hlow' if n < 4 else 'hhigh'})}}" for n in range(7)
)
FIGURES = f"""
.plot text{{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-size:11px;fill:var(--ink)}}
.plot .tick{{fill:var(--quiet);font-variant-numeric:tabular-nums}}
.plot .title{{fill:var(--quiet)}}
.plot .count{{font-size:9.5px}}
.grid{{stroke:var(--grid)}}.axis{{stroke:var(--quiet);opacity:.6}}.zero{{stroke:var(--ink)}}
.guide{{stroke:var(--quiet);stroke-dasharray:3 4;opacity:.7}}
.margin{{fill:var(--quiet);opacity:.1}}
.line{{fill:none;stroke-width:1.8;stroke-linejoin:round}}.line.dashed{{stroke-dasharray:5 3}}
.band{{opacity:.16}}.bar{{opacity:.75}}
.whisker{{stroke-width:2}}.seed{{fill:none;stroke-width:1.2}}
.dot{{stroke:var(--card);stroke-width:1}}
{SERIES}{CELLS}
"""

SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")


def _define(colors: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colors.items())


PAGE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
DARK_SCREEN = f"@media screen and (prefers-color-scheme: dark) {{:root {{{_define(DARK)}}}}}"
STYLE = Constant(f":root {{{_define(LIGHT)}}}\n{DARK_SCREEN}\n{PAGE}{FIGURES}")


def own_style() -> Constant:
    """The style of a figure that stands alone, its colors written out, as drawing programs know no variables."""
    return Constant(re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], FIGURES))
