"""What is worth knowing about a data set before a network is trained on it, worst first."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..errors import count_of
from .datasets.base import quote_names, select_evenly
from .datasets.conversion import ALPHA, is_deep
from .datasets.labels import describe_combined, find_combined, find_misspelled, find_similar
from .datasets.multi_label import MultiLabelDataset
from .duplicates import find_alike, find_equal, join_pairs
from .inspection import SIDE, Inspection, Seen

UNEVEN = 10.0  # times as many images of one class as of another, from which on it is a warning
FEW = 10  # images of a class
RARE = 0.001  # share of the labeled pixels
MOSTLY_VOID = 0.5
MOST_COMPARED = 60_000  # images; near duplicates of larger sets are looked for among so many of them
MOST_NAMED = 4  # images of a group of duplicates
STRETCHED = 4.0  # one side of an image over the other
ORDER = ("problem", "warning", "note")

Place = tuple[str, int]  # the split, and the index in it


class Finding(NamedTuple):
    """One thing that was found."""

    level: Literal["problem", "warning", "note"]
    title: str
    sentence: str
    examples: Sequence[str] = ()  # all of them, in words
    places: Sequence[Sequence[Place]] = ()  # the images of each example, where pictures help


class Image(NamedTuple):
    """An image of any split."""

    split: str
    index: int
    name: str
    label: str | None  # None: every pixel has one
    seen: Seen

    @property
    def place(self) -> Place:
        return self.split, self.index


def find_all(inspections: Mapping[str, Inspection]) -> list[Finding]:
    """Everything that was found in the splits, problems first."""
    images = list(list_images(inspections))
    found = [
        *find_unusable(inspections),
        *find_copies(images),
        *find_flat(images),
        *find_uneven(inspections),
        *find_missing(inspections),
        *find_spellings(inspections),
        *find_pixel_shares(inspections),
        *find_unknown(inspections),
        *find_formats(images),
    ]
    return sorted(found, key=lambda finding: ORDER.index(finding.level))


def list_images(inspections: Mapping[str, Inspection]) -> Iterator[Image]:
    for split, inspection in inspections.items():
        dataset = inspection.dataset
        for i, seen in inspection.seen.items():
            yield Image(split, i, dataset.name(i), dataset.describe_label(i), seen)


def find_unusable(inspections: Mapping[str, Inspection]) -> Iterator[Finding]:
    errors = [error for inspection in inspections.values() for error in inspection.errors.values()]
    read = sum(len(inspection.indices) for inspection in inspections.values())
    if errors:
        yield Finding(
            "problem", "Unusable images", f"{len(errors)} of {count_of(read, 'image')} cannot be used.", errors
        )


def find_copies(images: Sequence[Image]) -> Iterator[Finding]:
    """Images that are there several times: in several splits, under several labels, or merely twice."""
    equal = find_equal([image.seen.digest for image in images])
    extra = {position for group in equal for position in group[1:]}
    others = [k for k, image in enumerate(images) if k not in extra and min(image.seen.format.size) >= SIDE]
    compared = [others[k] for k in select_evenly(len(others), MOST_COMPARED)]
    alike = find_alike(np.stack([images[position].seen.thumbnail for position in compared])) if compared else []
    nearly = join_pairs((compared[first], compared[second]) for first, second in alike)
    yield from _describe_copies([[images[p] for p in group] for group in equal], "the same", "Duplicates")
    yield from _describe_copies([[images[p] for p in group] for group in nearly], "nearly the same", "Near duplicates")


def _describe_copies(groups: Sequence[Sequence[Image]], same: str, title: str) -> Iterator[Finding]:
    """A finding for groups across splits, one for those of several labels, and one for the rest."""
    across = [group for group in groups if len({image.split for image in group}) > 1]
    inside = [group for group in groups if len({image.split for image in group}) == 1]
    differ = [group for group in inside if len({image.label for image in group}) > 1]
    plain = [group for group in inside if len({image.label for image in group}) == 1]
    if across:
        held = sum(image.split != "train" for group in across for image in group)
        sentence = (
            f"{count_of(held, 'held-out image')} {_be(held)} {same} as an image of another split, so scores are better "
            "than they would be on new images."
        )
        yield _name_groups("problem", f"{title} across splits", sentence, across)
    if differ:
        sentence = f"{count_of(len(differ), 'picture')} {'has' if len(differ) == 1 else 'have'} several labels."
        yield _name_groups("problem", f"{title} under different labels", sentence, differ)
    if plain:
        extra = sum(len(group) - 1 for group in plain)
        sentence = f"{count_of(extra, 'image')} {_be(extra)} {same} as another of the same split."
        yield _name_groups("warning", title, sentence, plain)


def _name_groups(
    level: Literal["problem", "warning"], title: str, sentence: str, groups: Sequence[Sequence[Image]]
) -> Finding:
    return Finding(
        level,
        title,
        sentence,
        [_name_group(group) for group in groups],
        [[image.place for image in group] for group in groups],
    )


def _name_group(group: Sequence[Image]) -> str:
    named = " = ".join(_name_image(image) for image in group[:MOST_NAMED])
    return named + (f" and {len(group) - MOST_NAMED} more" if len(group) > MOST_NAMED else "")


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _name_image(image: Image) -> str:
    return f"{image.name} ({image.split if image.label is None else f'{image.split}, {image.label}'})"


def find_flat(images: Sequence[Image]) -> Iterator[Finding]:
    flat = [image for image in images if image.seen.is_flat]
    if flat:
        sentence = f"{count_of(len(flat), 'image')} {_be(len(flat))} of hardly more than one color."
        names, places = [image.name for image in flat], [[image.place] for image in flat]
        yield Finding("warning", "Nearly empty images", sentence, names, places)


def count_classes(inspection: Inspection) -> dict[str, int]:
    """The images of each class; those with a pixel of it, where every pixel has a label."""
    dataset, seen = inspection.dataset, inspection.seen.values()
    if any(one.pixels is not None for one in seen):
        counts = sum((one.pixels > 0).astype(int) for one in seen if one.pixels is not None).tolist()
    else:
        counts = dataset.counts().tolist()
    return dict(zip(dataset.classes, counts, strict=True))


def find_uneven(inspections: Mapping[str, Inspection]) -> Iterator[Finding]:
    """How unequal the training classes are, and which are small; not of masks, where images hold several."""
    training = inspections["train"]
    if any(one.pixels is not None for one in training.seen.values()):
        return
    counts = {name: count for name, count in count_classes(training).items() if count}
    if not counts:
        return
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    ratio = counts[most] / counts[least]
    if ratio >= UNEVEN:
        sentence = (
            f"{most!r} has {counts[most]:,} training images and {least!r} {counts[least]:,}, {ratio:.0f} times fewer. "
            "A network may ignore small classes, and accuracy hardly shows it."
        )
        yield Finding("warning", "Unequal classes", sentence)
    small = [name for name, count in counts.items() if count < FEW]
    if small:
        sentence = f"{count_of(len(small), 'class')} with fewer than {FEW} training images."
        yield Finding("warning", "Small classes", sentence, [f"{name}: {counts[name]}" for name in small])


def find_missing(inspections: Mapping[str, Inspection]) -> Iterator[Finding]:
    """Classes that the training images have and another split has not, or the other way round."""
    present = {split: {k for k, n in count_classes(found).items() if n} for split, found in inspections.items()}
    for split, classes in present.items():
        if split == "train":
            continue
        unknown, absent = sorted(classes - present["train"]), sorted(present["train"] - classes)
        if unknown:
            sentence = f"The {split} images have {count_of(len(unknown), 'class')} that no training image has."
            yield Finding("problem", f"Classes of {split} alone", sentence, unknown)
        if absent:
            sentence = f"The {split} images lack {count_of(len(absent), 'class')}, which no score then tells of."
            yield Finding("warning", f"Classes that {split} lacks", sentence, absent)


def find_spellings(inspections: Mapping[str, Inspection]) -> Iterator[Finding]:
    names = list(dict.fromkeys(name for found in inspections.values() for name in found.dataset.classes))
    alike = find_similar(names)
    if alike:
        sentence = f"The classes {quote_names(alike)} differ only in case or spacing; they may be the same."
        yield Finding("warning", "Class names that look alike", sentence, alike)
    combined = find_combined(names) if any(found.dataset.has_one_label for found in inspections.values()) else []
    if combined:
        text = describe_combined(combined)
        sentence = f"{text[0].upper()}{text[1:]}."
        yield Finding("warning", "Class names that look like several", sentence, [name for name, *_ in combined])
    pairs = [pair for pair in find_misspelled(names) if not set(pair) <= set(alike)]
    if pairs:
        sentence = f"{count_of(len(pairs), 'pair')} of class names differ in one letter; one may be a slip."
        yield Finding("note", "Class names one letter apart", sentence, [f"{a} / {b}" for a, b in pairs])


def find_pixel_shares(inspections: Mapping[str, Inspection]) -> Iterator[Finding]:
    """Classes that cover hardly any pixel, and masks that are mostly void."""
    training = inspections["train"]
    counted = [one for one in training.seen.values() if one.pixels is not None]
    if not counted:
        return
    pixels, void = sum(one.pixels for one in counted), sum(one.num_void for one in counted)
    shares = dict(zip(training.dataset.classes, (pixels / max(pixels.sum(), 1)).tolist(), strict=True))
    rare = [f"{name}: {share:.3%} of the labeled pixels" for name, share in shares.items() if share < RARE]
    if rare:
        sentence = f"{count_of(len(rare), 'class')} with less than {RARE:.1%} of the labeled training pixels."
        yield Finding("warning", "Rare classes", sentence, rare)
    share = void / max(void + int(pixels.sum()), 1)
    if share >= MOSTLY_VOID:
        yield Finding("warning", "Mostly void", f"{share:.0%} of the training pixels have no class.")


def find_formats(images: Sequence[Image]) -> Iterator[Finding]:
    """Sizes and modes, where they are not all the same."""
    sizes = Counter(image.seen.format.size for image in images)
    if len(sizes) > 1:
        small, large = (choose(sizes, key=math.prod) for choose in (min, max))
        sentence = (
            f"{count_of(len(sizes), 'size')}, from {small[0]}x{small[1]} to {large[0]}x{large[1]} pixels (width x "
            "height); training shows all at one size."
        )
        yield Finding("note", "Several sizes", sentence)
    long = [image for image in images if max(image.seen.format.size) >= STRETCHED * min(image.seen.format.size)]
    if long:
        sentence = (
            f"{count_of(len(long), 'image')} at least {STRETCHED:g} times as long as wide, or the other way round."
        )
        yield Finding("note", "Very long images", sentence, [i.name for i in long], [[i.place] for i in long])
    modes = Counter(image.seen.format.mode for image in images)
    if len(modes) > 1:
        listed = ", ".join(f"{count:,} {mode}" for mode, count in modes.most_common())
        yield Finding("note", "Several color modes", f"The images are of modes {listed}.")
    if any(is_deep(mode) for mode in modes) and not all(is_deep(mode) for mode in modes):
        sentence = "Some images have more than 8 bits a pixel and others 8; one range of values has to fit both."
        yield Finding("warning", "Several depths", sentence)
    extents = [image.seen.extent for image in images if image.seen.extent is not None]
    if extents:
        low, high = min(low for low, _ in extents), max(high for _, high in extents)
        kinds = ", ".join(mode for mode in modes if is_deep(mode))
        sentence = (
            f"{count_of(len(extents), 'image')} of mode {kinds} {'has' if len(extents) == 1 else 'have'} values from "
            f"{low:g} to {high:g}, which training keeps (data.value_range)."
        )
        yield Finding("note", "More than 8 bits, or other channels", sentence)
    if any(mode in ALPHA for mode in modes):
        yield Finding("note", "Transparency", "Alpha channels are dropped unless data.channels=4.")


def find_unknown(inspections: Mapping[str, Inspection]) -> Iterator[Finding]:
    """Labels that are marked as not known, and classes of which the training labels say yes alone, or no alone."""
    for split, inspection in inspections.items():
        dataset = inspection.dataset
        if not isinstance(dataset, MultiLabelDataset) or not bool((dataset.labels < 0).any()):
            continue
        known, shown = (dataset.labels >= 0).sum(dim=0).tolist(), dataset.counts().tolist()
        share = 1 - sum(known) / dataset.labels.numel()
        shares = [f"{name}: {1 - n / len(dataset):.0%}" for name, n in zip(dataset.classes, known, strict=True)]
        sentence = f"{share:.0%} of the {split} labels are marked as not known; losses and scores leave them out."
        yield Finding("note", f"Labels of {split} that are not known", sentence, shares)
        certain = [
            f"{name}: {n} known, {'all' if yes else 'none'} of them shown"
            for name, n, yes in zip(dataset.classes, known, shown, strict=True)
            if yes in (0, n)
        ]
        if certain and split == "train":
            sentence = f"Of {count_of(len(certain), 'class')} all known labels are alike, so there is nothing to learn."
            yield Finding("warning", "Classes whose known labels are alike", sentence, certain)
