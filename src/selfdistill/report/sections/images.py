"""Images whose answer changed, and where the networks look in them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import count_of
from ..elements import Content, Element, element
from ..evidence import Arm, Evidence
from ..figures.plot import rectangle
from ..pictures import Attention, AttentionPictures, Budget, Gallery
from .blocks import note, section, table
from .classes import name_classes

MOST_IMAGES = 12  # of each kind and arm
MOST_MASKS = 3
MASK_SIDE = 300  # pixels
MAP_SIDE = 140


class Change(NamedTuple):
    """An image whose answer changed: the share of the seeds that were right, or its mean IoU."""

    index: int
    before: float
    after: float


def draw_images(evidence: Evidence, gallery: Gallery | str, budget: Budget) -> Element | None:
    """Images that an arm has right and the baseline wrong, and the other way round.

    `gallery` may be a sentence that says why there are no pictures.
    """
    baseline = evidence.baseline
    pairs = [(arm, shared) for arm in evidence.shown if (shared := _share_seeds(arm, baseline))]
    if baseline is None or not pairs:
        return None
    of_pixels = evidence.task is not None and evidence.task.output == "pixel"
    content: list[Content] = [note(gallery)] if isinstance(gallery, str) else []
    classes = name_classes(evidence)
    for arm, seeds in pairs:
        changes = (find_mask_changes if of_pixels else find_changes)(arm, baseline, seeds)
        for title, chosen, total in _select(changes, MOST_MASKS if of_pixels else MOST_IMAGES):
            content.append(element("h3", f"{arm.name} is {title} than {baseline.name}"))
            content.append(element("p", _count(total, len(chosen), title, of_pixels)))
            if of_pixels:
                content += [_draw_mask(change, arm, baseline, seeds[0], gallery, budget) for change in chosen]
            else:
                words = [describe_change(change, arm, baseline, seeds, classes) for change in chosen]
                content.append(_draw_thumbs(chosen, words, gallery, budget))
    if budget.dropped:
        content.append(note(f"{count_of(budget.dropped, 'picture')} left out, so that the page stays below 3 MB."))
    if of_pixels and not isinstance(gallery, str):
        content.insert(0, _draw_legend(gallery))
    lead = "Held-out images on which an arm and the baseline differ most, over the seeds that both have."
    return section("images", "Images whose answer changed", lead, content)


def _share_seeds(arm: Arm, baseline: Arm | None) -> list[int]:
    """Seeds of both arms whose outcomes are of the same images; none where an image has several answers."""
    if baseline is None or any(hasattr(own, "shown") for own in arm.outcomes.values()):
        return []
    return [
        s for s, own in arm.outcomes.items() if s in baseline.outcomes and len(own.nll) == len(baseline.outcomes[s].nll)
    ]


def _select(changes: Sequence[Change], most: int) -> list[tuple[str, list[Change], int]]:
    """The images that are better and those that are worse: the word, the most changed ones, and how many there are."""
    better = sorted((c for c in changes if c.after > c.before), key=lambda c: c.before - c.after)
    worse = sorted((c for c in changes if c.after < c.before), key=lambda c: c.after - c.before)
    return [("better", better[:most], len(better)), ("worse", worse[:most], len(worse))]


def _count(total: int, shown: int, word: str, of_pixels: bool) -> str:
    if of_pixels:
        what = f"{count_of(total, 'image')} with a {'higher' if word == 'better' else 'lower'} IoU"
    else:
        what = f"{count_of(total, 'image')} on which {'more' if word == 'better' else 'fewer'} seeds are right"
    return what + ("." if not total else f"; the {shown} with the largest change:" if shown < total else ":")


def find_changes(arm: Arm, baseline: Arm, seeds: Sequence[int]) -> list[Change]:
    """Images that more, or fewer, seeds of the arm have right than of the baseline; the surest change first."""
    own, others = ([which.outcomes[seed] for seed in seeds] for which in (arm, baseline))
    after, before = (
        np.mean([(one.predicted == one.label).numpy() for one in group], axis=0) for group in (own, others)
    )
    order = np.argsort(-np.abs(_average_probability(own) - _average_probability(others)), kind="stable")
    return [Change(int(i), float(before[i]), float(after[i])) for i in order if after[i] != before[i]]


def _average_probability(outcomes: Sequence[Any]) -> np.ndarray:
    """The probability of each image's label, mean over seeds."""
    return np.mean([np.exp(-one.nll.numpy()) for one in outcomes], axis=0)


def describe_change(change: Change, arm: Arm, baseline: Arm, seeds: Sequence[int], classes: Sequence[str]) -> list[str]:
    """The label of an image, what both arms say, and the probability of the label before and after."""
    own, others = ([which.outcomes[seed] for seed in seeds] for which in (arm, baseline))
    label = classes[int(own[0].label[change.index])]
    before, after = (_average_probability(group)[change.index] for group in (others, own))
    return [
        label,
        f"{baseline.name}: {_describe_answers(others, change.index, classes)}",
        f"{arm.name}: {_describe_answers(own, change.index, classes)}",
        f"probability of its label: {before:.0%} → {after:.0%}",
    ]


def _describe_answers(outcomes: Sequence[Any], index: int, classes: Sequence[str]) -> str:
    """How many seeds are right, and the most frequent wrong answer with its confidence; of one seed, its answer."""
    answers: dict[int, list[float]] = {}
    for one in outcomes:
        answers.setdefault(int(one.predicted[index]), []).append(float(one.confidence[index]))
    label, seeds = int(outcomes[0].label[index]), len(outcomes)
    wrong = sorted((k for k in answers if k != label), key=lambda k: -len(answers[k]))
    if seeds == 1:
        return ", ".join(f"{classes[k]} ({np.mean(answers[k]):.0%})" for k in answers)
    said = [f"{classes[k]} ({np.mean(answers[k]):.0%})" for k in wrong[:1]]
    said += [f"{len(wrong) - 1} more"] if len(wrong) > 1 else []
    return f"{len(answers.get(label, []))} of {seeds} right" + (f", else {' and '.join(said)}" if said else "")


def find_mask_changes(arm: Arm, baseline: Arm, seeds: Sequence[int]) -> list[Change]:
    """Every image with its mean IoU over the classes in it, before and after, in [0, 1]."""
    after, before = (
        np.mean([_score_images(which.outcomes[seed]) for seed in seeds], axis=0) for which in (arm, baseline)
    )
    return [
        Change(index, float(b), float(a))
        for index, (b, a) in enumerate(zip(before, after, strict=True))
        if np.isfinite(a) and np.isfinite(b)
    ]


def _score_images(outcomes: Any) -> np.ndarray:
    """Mean IoU of each image over the classes that it or its prediction holds; NaN for an image without labels."""
    right, predicted, labeled = (
        values.numpy().astype(np.float64) for values in (outcomes.intersection, outcomes.predicted, outcomes.labeled)
    )
    union = predicted + labeled - right
    held = union > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(held, right / np.maximum(union, 1), 0).sum(1) / held.sum(1)


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
