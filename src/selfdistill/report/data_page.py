"""The page of a data set that was checked: what was found, its classes, and pictures of what may be wrong."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image

from ..errors import count_of
from .document import draw_document
from .elements import Element, element
from .pictures import Budget
from .sections.blocks import code, note, section, table
from .sections.summary import Fact, draw_card, format_seconds

MOST_EXAMPLES = 200  # of a finding, in words
MOST_PICTURES = 24  # examples of a finding that are shown
PICTURE = 128  # pixels
BADGES = {"problem": "bad", "warning": "plain", "note": "plain"}


class Suggestion(NamedTuple):
    """Settings that suit a data set."""

    words: Sequence[str]  # of the command line
    reasons: Sequence[str]
    seconds: float | None  # of plain training on this machine; None where it was not measured

    def describe_time(self) -> str | None:
        """How long training takes, for people."""
        if self.seconds is None:
            return None
        return (
            f"plain training with it takes about {format_seconds(self.seconds)} on this machine, judged by one step on "
            "a few images; frskd takes up to about twice as long"
        )


@runtime_checkable
class Finding(Protocol):
    """One thing that was found, as `data.findings` makes them."""

    level: str
    title: str
    sentence: str
    examples: Sequence[str]
    places: Sequence[Sequence[tuple[str, int]]]  # the split and the index of each image of an example


class DataPage(NamedTuple):
    """What the page shows."""

    source: str
    images: Mapping[str, int]  # how many each split has
    counts: Mapping[str, Mapping[str, int]]  # by split and class
    findings: Sequence[Finding]
    notes: Sequence[str]
    suggestion: Suggestion
    samples: Mapping[str, Sequence[int]]  # training images of each class
    draw: Callable[[str, int], tuple[Image.Image, str] | None]  # an image of a split and its name, if it can be read


def draw_data_page(page: DataPage) -> Element:
    """The page as an element."""
    budget = Budget()
    return draw_document(
        f"Check of {page.source}",
        element("header", element("h1", f"Check of {page.source}"), _draw_summary(page)),
        element(
            "main",
            [_draw_finding(number, finding, page, budget) for number, finding in enumerate(page.findings, 1)],
            _draw_classes(page),
            _draw_samples(page, budget),
            _draw_suggestion(page.suggestion),
            [note(text) for text in page.notes],
        ),
        element("footer", "Written by selfdistill. This page is one file: it asks no server for anything."),
    )


def _draw_summary(page: DataPage) -> Element:
    problems = sum(finding.level == "problem" for finding in page.findings)
    warnings = sum(finding.level == "warning" for finding in page.findings)
    if problems:
        badge, said = ("mend this first", "bad"), f"{count_of(problems, 'problem')} to mend before training."
    elif warnings:
        badge, said = ("look at this", "plain"), f"No problem, and {count_of(warnings, 'warning')}."
    else:
        badge, said = ("ready", "good"), "Nothing speaks against training on these images."
    facts = [Fact(f"{count:,}", f"{split} images") for split, count in page.images.items()]
    facts.append(Fact(f"{len(page.counts['train']):,}", "classes"))
    return draw_card(element("span", badge[0], class_=f"badge {badge[1]}"), said, None, facts)


def _draw_finding(number: int, finding: Finding, page: DataPage, budget: Budget) -> Element:
    lead = [element("span", finding.level, class_=f"badge {BADGES[finding.level]}"), " ", finding.sentence]
    shown = [_draw_group(group, finding.examples[k], page, budget) for k, group in enumerate(finding.places)]
    pictures = [one for one in shown[:MOST_PICTURES] if one is not None]
    words = [element("li", example) for example in finding.examples[:MOST_EXAMPLES]]
    left = len(finding.examples) - MOST_EXAMPLES
    listed = element(
        "details",
        element("summary", f"{count_of(len(finding.examples), 'example')} in words"),
        element("ul", words),
        note(f"{left:,} more are left out; --json has them") if left > 0 else None,
    )
    return section(
        f"finding-{number}",
        finding.title,
        lead,
        element("ul", pictures, class_="thumbs") if pictures else None,
        listed if words else None,
    )


def _draw_group(group: Sequence[tuple[str, int]], words: str, page: DataPage, budget: Budget) -> Element | None:
    """The images of an example beside each other."""
    drawn = [_draw_image(split, index, page, budget) for split, index in group[:4]]
    pictures = [one for one in drawn if one is not None]
    return element("li", pictures, element("span", words)) if pictures else None


def _draw_image(split: str, index: int, page: DataPage, budget: Budget) -> Element | None:
    drawn = page.draw(split, index)
    return None if drawn is None else budget.show(*drawn, side=PICTURE)


def _draw_classes(page: DataPage) -> Element:
    names = list(dict.fromkeys(name for each in page.counts.values() for name in each))
    rows = [[name, *(f"{each.get(name, 0):,}" for each in page.counts.values())] for name in names]
    titles = ["class", *(f"{split} images" for split in page.counts)]
    whole = table(titles, rows, "Images of each class", tall=len(rows) > 20)
    return section("classes", "Classes", "How many images each class has in each split.", whole)


def _draw_samples(page: DataPage, budget: Budget) -> Element | None:
    """The first images of each class, as far as there is room."""
    rows = []
    for name, members in page.samples.items():
        drawn = [_draw_image("train", index, page, budget) for index in members]
        pictures = [element("li", one) for one in drawn if one is not None]
        if pictures:
            rows.append(element("div", element("h3", name), element("ul", pictures, class_="thumbs")))
    return section("samples", "Images", "The first training images of each class.", rows) if rows else None


def _draw_suggestion(suggestion: Suggestion) -> Element | None:
    if not suggestion.words:
        return None
    sentence = suggestion.describe_time()
    time = None if sentence is None else element("p", f"{sentence[0].upper()}{sentence[1:]}.")
    return section(
        "suggestion",
        "Suggested settings",
        "A start, not a rule.",
        code([shlex.join(["selfdistill", "train", *suggestion.words])]),
        element("ul", [element("li", reason) for reason in suggestion.reasons]),
        time,
    )
