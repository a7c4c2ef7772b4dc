"""What sections are built of: headings, tables, figures with captions."""

import re
from collections.abc import Sequence

from ..elements import Constant, Content, Element, element

NUMBER = re.compile(r"[-+−]?[\d,]*\.?\d+(?:[eE][-+]?\d+)?")


def section(name: str, title: str, lead: Content, *content: Content) -> Element:
    """A section with a heading and a first sentence on what it shows; `name` is its place in links."""
    return element("section", element("h2", title), element("p", lead) if lead else None, *content, id=name)


def table(
    titles: Sequence[Content],
    rows: Sequence[Sequence[Content]],
    caption: str,
    *,
    sortable: bool = True,
    kind: str = "",
    tall: bool = False,
) -> Element:
    """A table in a box that scrolls by itself. The first cell of a row is its header.

    `kind` may be "words", whose cells are sentences, set to the left and wrapped, or "maps" of pictures. `tall`: many
    rows, so that the box has a limit.
    """
    head = element("tr", [element("th", title, scope="col") for title in titles])
    body = [
        element("tr", element("th", row[0], scope="row"), [_draw_cell(cell, kind) for cell in row[1:]]) for row in rows
    ]
    kinds = " ".join(filter(None, ["sortable" if sortable and len(rows) > 1 else "", kind])) or None
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", body), class_=kinds)
    classes = "scroll tall" if tall else "scroll"
    return element("div", whole, class_=classes, tabindex="0", role="region", aria_label=caption)


def _draw_cell(content: Content, kind: str) -> Element:
    return element("td", content, data_value=None if kind or not isinstance(content, str) else find_number(content))


def find_number(text: str) -> str | None:
    """The first number of a cell, by which its column is sorted; None where there is none.

    >>> find_number("94.71 ± 0.48"), find_number("1,024"), find_number("−0.5 %"), find_number("-")
    ('94.71', '1024', '-0.5', None)
    """
    match = NUMBER.match(text.strip())
    return match[0].replace(",", "").replace("−", "-").lstrip("+") if match else None


def captioned(svg: Element, name: str, head: str, caption: Content = None, *, wide: bool = False) -> Element:
    """A figure between its title and its caption; `name` is also that of the file beside the page."""
    return element(
        "figure",
        element("div", head, class_="head", aria_hidden="true"),  # the drawing has it as its name
        svg,
        element("figcaption", caption) if caption else None,
        id=f"figure-{make_id(name)}",
        class_="wide" if wide else None,
    )


def make_id(name: str) -> str:
    """A name as an identifier that is also safe as the name of a file.

    >>> make_id("classes-frskd+beta=0"), make_id("../<b>")
    ('classes-frskd+beta=0', '-b-')
    """
    return re.sub(r"[^\w=+-]+", "-", name, flags=re.ASCII)[:100]


def figures(*content: Content) -> Element:
    return element("div", *content, class_="figures")


def code(lines: Sequence[str]) -> Element:
    """A block of lines to copy."""
    whole = [part for line in lines for part in (Constant("\n"), line)][1:]
    return element("pre", element("code", whole), tabindex="0", role="region", aria_label="command")


def with_code(text: str) -> list[Content]:
    """A sentence in which `names in backticks` are set as code.

    >>> [str(part) for part in with_code("use `mix: none`")]
    ['use ', '<code>mix: none</code>']
    """
    parts = text.replace("\\*", "*").split("`")
    return [element("code", part) if number % 2 else part for number, part in enumerate(parts) if part]


def note(text: Content) -> Element:
    return element("p", text, class_="note")


def join_words(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> join_words(["a"]), join_words(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
