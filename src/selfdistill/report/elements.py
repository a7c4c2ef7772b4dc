"""Elements of HTML and SVG. Every string is escaped where it is written, so no caller can forget to."""

from collections.abc import Iterable
from html import escape
from typing import Any, NamedTuple

from ..errors import escape_controls

SAFE_LINKS = ("https://", "#", "data:image/png;base64,", "data:image/jpeg;base64,")
EMPTY = frozenset({"meta", "img", "br", "link"})  # HTML elements without an end tag


class Constant(NamedTuple):
    """A style sheet or a script of this package, which is written as it is. Never for text from elsewhere."""

    text: str


class Element(NamedTuple):
    """An element with its attributes and what stands in it."""

    name: str
    attributes: dict[str, str]
    children: tuple["Child", ...]

    def __str__(self) -> str:
        """The element as HTML, which is also XML inside of SVG."""
        attributes = "".join(f' {name}="{_escape(value)}"' for name, value in self.attributes.items())
        if self.name in EMPTY:
            return f"<{self.name}{attributes}>"
        return f"<{self.name}{attributes}>{''.join(map(_write, self.children))}</{self.name}>"


Number = int | float
Child = Element | Constant | str
Content = Any  # a child, a number, None, or several of these


def element(name: str, *content: Content, **attributes: str | Number | bool | None) -> Element:
    """An element; in content and attributes, None and False are left out.

    Attributes are written with _ for -, and class_ for class. Raises `ValueError` for a link that could run code or
    leave the page unasked.

    >>> str(element("a", "R&D ", element("b", "<i>"), None, class_="x", href="https://arxiv.org"))
    '<a class="x" href="https://arxiv.org">R&amp;D <b>&lt;i&gt;</b></a>'
    """
    known = {
        _hyphenate(key): _format(value) for key, value in attributes.items() if value is not None and value is not False
    }
    for key in ("href", "src"):
        if key in known and not known[key].startswith(SAFE_LINKS):
            raise ValueError(f"{key}={known[key]!r} is no link that a page may hold; it begins with https:// or #")
    return Element(name, known, tuple(_flatten(content)))


def _hyphenate(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _format(value: str | Number | bool | None) -> str:
    """An attribute's value; numbers are pixels, to a hundredth."""
    if isinstance(value, bool):
        return ""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _flatten(content: Iterable[Content]) -> Iterable[Child]:
    for item in content:
        if isinstance(item, Element | Constant | str):
            yield item
        elif isinstance(item, int | float):
            yield str(item)
        elif item is not None:
            yield from _flatten(item)


def _write(child: Child) -> str:
    if isinstance(child, Constant):
        return child.text
    return str(child) if isinstance(child, Element) else _escape(child)


def _escape(text: str) -> str:
    return escape(escape_controls(text))
