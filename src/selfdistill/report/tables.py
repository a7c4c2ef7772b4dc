"""Tables as text: CSV and LaTeX; and on a rich console."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from ..errors import escape_controls


def draw_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Any:
    """A table to print on a rich console; the first column may be folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, title in enumerate(titles):
        if number:
            table.add_column(title, justify="right", no_wrap=True)
        else:
            table.add_column(title, overflow="fold", min_width=9)
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def write_csv(lines: Sequence[Sequence[Any]]) -> str:
    """Lines of values, the first of them the titles; None is empty."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def write_latex(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table with the rules of the package booktabs."""
    head, *body = (" & ".join(map(escape_latex, cells)) + r" \\" for cells in (titles, *lines))
    layout = "l" + "r" * (len(titles) - 1)
    rows = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(rows) + "\n"


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


def escape_latex(text: str) -> str:
    """Text in which nothing is a command.

    >>> print(escape_latex("a_b & 50 %"))
    a\\_b \\& 50 \\%
    """
    text = escape_controls(text)
    return re.sub(r"[\\{}$&#%_~^±]", lambda match: LATEX.get(match[0], "\\" + match[0]), text)
