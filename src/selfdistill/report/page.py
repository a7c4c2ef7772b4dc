"""The report: one self-contained page of HTML, and its figures as files beside it."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from ..runs.files import make_folders, replace_file, write_text
from .document import draw_document, to_html
from .elements import Element, element
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
from .style import SCRIPT, own_style

PAGE, FIGURES = "report.html", "figures"
OWN = b'class="plot"'  # in the first tag of every figure of ours


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
    write_text(folder / PAGE, to_html(whole))
    figures, drawn = make_folders(folder, FIGURES), dict(find_figures(whole))
    remove_other_figures(figures, drawn)
    for name, svg in drawn.items():
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
    return draw_document(
        title,
        element("a", "Skip to the results", href="#arms", class_="skip"),
        element("header", element("h1", title), draw_verdict(evidence), _draw_links(present)),
        element("main", present),
        element("footer", "Written by selfdistill. This page is one file: it asks no server for anything."),
        script=SCRIPT,
    )


def describe_title(evidence: Evidence) -> str:
    """What was trained on which images."""
    sources = dict.fromkeys(str(run.settings["data.source"]) for run in evidence.runs)
    return f"{', '.join(arm.name for arm in evidence.arms)} on {' and '.join(Path(name).name for name in sources)}"


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


def remove_other_figures(folder: Path, names: Container[str]) -> None:
    """Removes the figures of an earlier page that this one has no more; other files stay."""
    for file in folder.glob("*.svg"):
        if file.stem not in names and OWN in file.read_bytes()[:1000]:
            for one in (file, file.with_suffix(".png")):
                one.unlink(missing_ok=True)


def stand_alone(svg: Element) -> Element:
    """A figure as a file of its own, with its style, on white."""
    paper = element("rect", width="100%", height="100%", fill="#ffffff")
    return svg._replace(children=(element("style", own_style()), paper, *svg.children))
