"""Images whose answer changed, and where the networks look in them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...errors import count_of
from ..elements import Content, Element, element
from ..evidence import Arm, Evidence
from ..figures.plot import rectangle
from ..pictures import Attention, AttentionPictures, Budget, Gallery
from .answers import (
    Change,
    describe_change,
    describe_label_change,
    find_changes,
    find_label_changes,
    find_mask_changes,
)
from .blocks import note, section, table
from .classes import name_classes

MOST_IMAGES = 12  # of each kind and arm
MOST_MASKS = 3
MASK_SIDE = 300  # pixels
MAP_SIDE = 140


def draw_images(evidence: Evidence, gallery: Gallery | str, budget: Budget) -> Element | None:
    """Images that an arm has right and the baseline wrong, and the other way round.

    `gallery` may be a sentence that says why there are no pictures.
    """
    baseline = evidence.baseline
    pairs = [(arm, shared) for arm in evidence.shown if (shared := _share_seeds(arm, baseline))]
    if baseline is None or not pairs:
        return None
    kind = _find_kind(next(iter(baseline.outcomes.values())))
    content: list[Content] = [note(gallery)] if isinstance(gallery, str) else []
    classes = name_classes(evidence)
    for arm, seeds in pairs:
        for title, chosen, total in _select(kind.find(arm, baseline, seeds), kind.most):
            content.append(element("h3", f"{arm.name} is {title} than {baseline.name}"))
            content.append(element("p", _count(total, len(chosen), kind.better if title == "better" else kind.worse)))
            if kind.describe is None:
                content += [_draw_mask(change, arm, baseline, seeds[0], gallery, budget) for change in chosen]
            else:
                words = [kind.describe(change, arm, baseline, seeds, classes) for change in chosen]
                content.append(_draw_thumbs(chosen, words, gallery, budget))
    if budget.dropped:
        content.append(note(f"{count_of(budget.dropped, 'picture')} left out, so that the page stays below 3 MB."))
    if kind is MASKS and not isinstance(gallery, str):
        content.insert(0, _draw_legend(gallery))
    lead = f"Held-out images on which an arm and the baseline differ most, over the seeds that both have.{kind.lead}"
    return section("images", "Images whose answer changed", lead, content)


class Kind(NamedTuple):
    """How changed images of one kind of labels are found and told."""

    find: Callable[[Arm, Arm, Sequence[int]], list[Change]]
    describe: Callable[[Change, Arm, Arm, Sequence[int], Sequence[str]], list[str]] | None  # None: they are drawn
    most: int  # images of each direction and arm
    better: str  # what is true of them
    worse: str
    lead: str = ""  # a sentence more


CLASSES = Kind(
    find_changes, describe_change, MOST_IMAGES, "on which more seeds are right", "on which fewer seeds are right"
)
SEVERAL = Kind(
    find_label_changes,
    describe_label_change,
    MOST_IMAGES,
    "of which more answers are right",
    "of which fewer answers are right",
    " An answer says of one class whether the image shows it, from the run's threshold on.",
)
MASKS = Kind(find_mask_changes, None, MOST_MASKS, "with a higher IoU", "with a lower IoU")


def _find_kind(outcomes: Any) -> Kind:
    return SEVERAL if hasattr(outcomes, "shown") else MASKS if hasattr(outcomes, "labeled") else CLASSES


def _share_seeds(arm: Arm, baseline: Arm | None) -> list[int]:
    """Seeds of both arms whose outcomes are of the same images; of those with several labels, whose answers are known.

    The thresholds of a student that cannot be read are not known.
    """
    if baseline is None:
        return []
    unknown = {run.seed for which in (arm, baseline) for run in which.runs if run.said is None}
    return [
        seed
        for seed, own in arm.outcomes.items()
        if seed in baseline.outcomes and len(own.nll) == len(baseline.outcomes[seed].nll)
        if not hasattr(own, "shown") or seed not in unknown
    ]


def _select(changes: Sequence[Change], most: int) -> list[tuple[str, list[Change], int]]:
    """The images that are better and those that are worse: the word, the most changed ones, and how many there are."""
    better = sorted((c for c in changes if c.after > c.before), key=lambda c: c.before - c.after)
    worse = sorted((c for c in changes if c.after < c.before), key=lambda c: c.after - c.before)
    return [("better", better[:most], len(better)), ("worse", worse[:most], len(worse))]


def _count(total: int, shown: int, words: str) -> str:
    what = f"{count_of(total, 'image')} {words}"
    return what + ("." if not total else f"; the {shown} with the largest change:" if shown < total else ":")


def _draw_thumbs(
    changes: Sequence[Change], words: Sequence[list[str]], gallery: Gallery | str, budget: Budget
) -> Element | None:
    items = []
    for change, (label, *others) in zip(changes, words, strict=True):
        pictures = {} if isinstance(gallery, str) else gallery.draw(change.index, {})
        shown = [
            budget.show(picture, f"{title}: {gallery.name(change.index)}, labeled {label}")
            for title, picture in pictures.items()
            if not isinstance(gallery, str)
        ]
        said = [element("div", sentence) for sentence in others]
        items.append(element("li", shown, element("b", f"label {label}"), said))
    return element("ul", items, class_="thumbs") if items else None


def _draw_mask(change: Change, arm: Arm, baseline: Arm, seed: int, gallery: Gallery | str, budget: Budget) -> Content:
    """The image, its label, what both students say, and where they err."""
    words = f"mean IoU of the image {change.before:.1%} → {change.after:.1%}"
    if isinstance(gallery, str):
        return element("p", f"Image {change.index}: {words}")
    runs = {which.name: next(run.run.path for run in which.runs if run.seed == seed) for which in (baseline, arm)}
    name = gallery.name(change.index)
    panels = []
    for title, picture in gallery.draw(change.index, runs).items():
        if (shown := budget.show(picture, f"{title} of {name}", side=MASK_SIDE)) is not None:
            panels.append(element("figure", shown, element("figcaption", title)))
    strip = element("div", panels, class_="strip") if panels else None
    return [element("h4", name), element("p", f"{words}; pictures are of seed {seed}."), strip]


def _draw_legend(gallery: Gallery) -> Element | None:
    items = [element("li", _swatch(color), name) for name, color in gallery.legend]
    return element("ul", items, class_="legend") if items else None


def _swatch(color: tuple[int, int, int]) -> Element:
    square = rectangle(0, 0, 10, 10, "swatch")
    square.attributes["fill"] = "#{:02x}{:02x}{:02x}".format(*color)
    return element("svg", square, viewBox="0 0 10 10", aria_hidden="true")


def draw_attention(attention: Sequence[Attention], budget: Budget) -> Element | None:
    """Attention maps of the networks at every level, for the same images."""
    content: list[Content] = []
    for maps in attention:
        content.append(element("h3", maps.arm))
        content += [note(sentence) for sentence in maps.notes]
        if maps.distances is not None:
            levels = maps.levels[-len(maps.distances) :]
            distances = ", ".join(f"{level} {value:.3f}" for level, value in zip(levels, maps.distances, strict=True))
            what = (
                "Squared distance of the student's attention from its self-teacher's (0: the same, 2: nothing shared)"
            )
            content.append(element("p", f"{what}: {distances}."))
        content += [_draw_maps(image, maps.levels, budget) for image in maps.images]
    if not content:
        return None
    lead = "Where the networks look, level by level from shallow to deep. Bright is much, dark is little."
    return section("attention", "What was refined", lead, content)


def _draw_maps(image: AttentionPictures, levels: Sequence[str], budget: Budget) -> Element:
    """A table of maps: a row for each network, a column for each level. Networks of fewer levels share the deepest."""
    rows = []
    for network, pictures in image.rows.items():
        shown = zip(levels[len(levels) - len(pictures) :], pictures, strict=True)
        maps = [
            budget.show(picture, f"attention of the {network} at {level}", side=MAP_SIDE) for level, picture in shown
        ]
        rows.append([network, *[None] * (len(levels) - len(maps)), *maps])
    caption = f"{image.title}. {image.caption}"
    return table(["network", *levels], rows, caption, sortable=False, kind="maps")
