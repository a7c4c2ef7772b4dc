"""The report: one self-contained page of HTML, and its figures as files beside it."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..runs.files import make_folders, replace_file, write_text
from .elements import Constant, Element, element
from .evidence import Evidence
from .figures.raster import rasterize
from .pictures import Attention, Budget, Gallery
from .sections.calibration import draw_calibration
from .sections.classes import draw_classes, draw_confusions
from .sections.cost import draw_costs
from .sections.images import draw_attention, draw_images
from .sections.origin import MethodCard, draw_environment, draw_methods, draw_settings
from .sections.summary import draw_arms, draw_verdict
from .sections.training import draw_training
from .style import SCRIPT, STYLE, own_style

PAGE, FIGURES = "report.html", "figures"


def write_page(
    evidence: Evidence,
    folder: Path,
    *,
    command: str,
    gallery: Gallery | str,
    cards: Sequence[MethodCard] = (),
    attention: Sequence[Attention] = (),
) -> Path:
    """Writes report.html, and figures/NAME.svg and .png, into a folder, and gives the page's path.

    `command` makes the page again. `gallery` draws held-out images, or says in a sentence why nothing can.
    """
    whole = draw_page(evidence, command=command, gallery=gallery, cards=cards, attention=attention)
    make_folders(folder, ".")
    write_text(folder / PAGE, f"<!doctype html>\n{whole}\n")
    figures = make_folders(folder, FIGURES)
    for name, svg in find_figures(whole):
        write_text(figures / f"{name}.svg", f"{stand_alone(svg)}\n")
        with replace_file(figures / f"{name}.png", durable=False) as temporary:
            rasterize(svg).save(temporary, "PNG")
    return folder / PAGE


def draw_page(
    evidence: Evidence,
    *,
    command: str,
    gallery: Gallery | str,
    cards: Sequence[MethodCard] = (),
    attention: Sequence[Attention] = (),
    progress: Element | None = None,
) -> Element:
    """The page as an element; `progress` is a section on runs that are still going on, and comes first."""
    budget = Budget()
    sections = [
        progress,
        draw_arms(evidence),
        draw_training(evidence),
        draw_costs(evidence),
        draw_classes(evidence),
        draw_confusions(evidence),
        draw_calibration(evidence),
        draw_images(evidence, gallery, budget),
        draw_attention(attention, budget),
        draw_settings(evidence),
        draw_methods(cards),
        draw_environment(evidence, command),
    ]
    present = [part for part in sections if part is not None]
    title = describe_title(evidence)
    body = element(
        "body",
        element("a", "Skip to the results", href="#arms", class_="skip"),
        element("header", element("h1", title), draw_verdict(evidence), _draw_links(present)),
        element("main", present),
        element("footer", "Written by selfdistill. This page is one file: it asks no server for anything."),
        element("script", Constant(SCRIPT)),
    )
    return element("html", _draw_head(title), body, lang="en")


def describe_title(evidence: Evidence) -> str:
    """What was trained on which images."""
    sources = dict.fromkeys(str(run.settings["data.source"]) for run in evidence.runs)
    return f"{', '.join(arm.name for arm in evidence.arms)} on {' and '.join(Path(name).name for name in sources)}"


def _draw_head(title: str) -> Element:
    """Declarations; the policy allows this page's own style and script by their hashes, and nothing from elsewhere."""
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(STYLE.text)}'; script-src '{_hash(SCRIPT)}'; "
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


def _draw_links(sections: Sequence[Element]) -> Element:
    items = [
        element("li", element("a", part.children[0].children, href=f"#{part.attributes['id']}")) for part in sections
    ]
    return element("nav", element("ul", items), aria_label="Sections")


def find_figures(whole: Element) -> Iterator[tuple[str, Element]]:
    """The drawn figures and their names, which are safe as file names."""
    for child in whole.children:
        if not isinstance(child, Element):
            continue
        if child.name == "figure" and "id" in child.attributes:
            drawn = (part for part in child.children if isinstance(part, Element) and part.name == "svg")
            yield child.attributes["id"].removeprefix("figure-"), next(drawn)
        else:
            yield from find_figures(child)


def stand_alone(svg: Element) -> Element:
    """A figure as a file of its own, with its style, on white."""
    paper = element("rect", width="100%", height="100%", fill="#ffffff")
    return svg._replace(children=(element("style", own_style()), paper, *svg.children))
