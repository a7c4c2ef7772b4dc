"""A page of HTML that asks no server for anything, and the policy that browsers hold it to."""

import base64
import hashlib

from .elements import Constant, Content, Element, element
from .style import STYLE


def draw_document(title: str, *content: Content, script: str = "") -> Element:
    """The whole page with what its body holds; `script` is one of this package, and no other can run."""
    body = element("body", *content, element("script", Constant(script)) if script else None)
    return element("html", _draw_head(title, script), body, lang="en")


def to_html(document: Element) -> str:
    return f"<!doctype html>\n{document}\n"


def _draw_head(title: str, script: str) -> Element:
    """Declarations; the policy allows the page's own style and script by their hashes, and nothing from elsewhere."""
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(STYLE.text)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} – selfdistill"),
        element("style", STYLE),
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
