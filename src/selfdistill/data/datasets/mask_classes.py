"""Decides the classes of the masks of a source, from the recipe, the source or the masks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ...config.recipe import DataPart
from ...errors import count_of
from .base import DECODED
from .label_files import open_palette
from .label_map import LabelMap
from .mask_values import BORDER, say_palette
from .masks import RawMaskDataset
from .splits import DatasetSplits
from .threads import map_blocks

MOST = 1000  # larger values need a name to count as classes
MOST_IN_8_BITS = 200  # a largest value between this and 255 means gray levels rather than classes without names


def read_masks(
    splits: DatasetSplits, settings: DataPart, source: str, classes: Sequence[str] | None = None
) -> DatasetSplits:
    """Makes each `RawMaskDataset` of the splits a `MaskDataset`, all with one label map.

    For the recipe's own source, `data.classes` names the values 0, 1, ...; without it the source names them. Another
    source uses its own names. Without names it is read like the recipe's source, else its values are indices of
    `classes`. If nobody names the values, the classes are "0" up to the largest value in the training masks.
    """
    if settings.palette is not None and (source == settings.source or splits.label_map is None):
        splits = splits._replace(label_map=open_palette(settings.palette))
    choice = _choose_label_map(splits, settings, source, classes)
    label_map = choice.label_map.resolve(source, choice.void)
    return splits._replace(
        splits={name: masks.apply_label_map(label_map) for name, masks in splits.splits.items()},
        notes=(*splits.notes, *choice.notes),
    )


class Choice(NamedTuple):
    """The label map of a source, the setting `data.void` that applies to it, and notes for the user."""

    label_map: LabelMap
    void: Sequence[int | str] | None
    notes: tuple[str, ...] = ()


def _choose_label_map(splits: DatasetSplits, settings: DataPart, source: str, classes: Sequence[str] | None) -> Choice:
    known, is_other = splits.label_map, source != settings.source
    if known is not None and is_other:
        return Choice(_adapt_to_other_source(source, known, settings), None)
    if known is not None and settings.classes is None:
        return Choice(known, settings.void)
    if settings.classes is not None:
        notes = _say_same_meaning(source, settings.classes) if is_other else ()
        return Choice(_rename_values(known, settings.classes), settings.void, notes)
    if classes is not None:
        by_number = all(name.isdecimal() for name in classes)
        names = {int(name) if by_number else k: name for k, name in enumerate(classes)}
        return Choice(LabelMap(names), settings.void, _say_same_meaning(source, classes))
    label_map, values = _count_values(source, splits, settings.void)
    takes_border = settings.void is None and BORDER in values
    border = f"{source}: the mask value {BORDER}, which nothing names, is taken for void; data.void says what is"
    return Choice(label_map, settings.void, (border,) * takes_border)


def _say_same_meaning(source: str, classes: Sequence[str]) -> tuple[str, ...]:
    if all(name.isdecimal() for name in classes):
        return ()
    named = ", ".join(f"{value} is {name!r}" for value, name in enumerate(classes[:2]))
    return (f"{source} does not name the values of its masks; they are read as in training: {named} and so on",)


def _adapt_to_other_source(source: str, label_map: LabelMap, settings: DataPart) -> LabelMap:
    """The map of a source with its own values; ignores its classes that `data.void` names."""
    known = settings.classes or []
    void = {
        str(known[item] if isinstance(item, int) and 0 <= item < len(known) else item) for item in settings.void or []
    }
    void_values = {value for value, name in label_map.names.items() if name in void}
    return replace(label_map, ignored=frozenset(label_map.find_ignored(source, None) | void_values))


def _rename_values(label_map: LabelMap | None, classes: Sequence[str]) -> LabelMap:
    if label_map is None:
        return LabelMap(dict(enumerate(classes)))
    if label_map.palette and len(label_map.palette) != len(classes):
        names, colors = count_of(len(classes), "name"), count_of(len(label_map.palette), "color")
        raise ValueError(f"data.classes has {names}, and the palette {colors}")
    return replace(label_map, names=dict(enumerate(classes)))


def _count_values(source: str, splits: DatasetSplits, void: Sequence[int | str] | None) -> tuple[LabelMap, set[int]]:
    """Names the values from 0 to the largest one in the training masks by their numbers; also returns the values.

    Raises `ValueError` for what are gray levels rather than numbers of classes: where most of these have no pixel, and
    where they fill the range of 8 bits, as in maps of probabilities.
    """
    ignored = {int(item) for item in void if str(item).isdecimal()} if void is not None else {BORDER}
    masks = splits.splits.get("train", next(iter(splits.splits.values()), None))
    if not masks:
        raise ValueError(f"{source} has no image with a mask")
    values = _collect_values(masks)
    examples = f"{masks.mask_name(0)} and others"
    if values <= ignored:
        raise ValueError(f"{examples} hold no class, only void ({', '.join(map(str, sorted(values)))})")
    largest = max(values - ignored)
    if largest > MOST:
        raise ValueError(f"{examples} hold values up to {largest}; name the classes in data.classes")
    covered = sum(value in values or value in ignored for value in range(largest + 1))
    if 2 * covered <= largest or (void is None and values == {0, BORDER}):
        every = sorted(values)
        listed = f"values {', '.join(map(str, every[:8]))} and so on"
        if len(every) == 1:
            listed = f"value {every[0]}"
        elif len(every) <= 8:
            listed = f"values {', '.join(map(str, every[:-1]))} and {every[-1]}"
        colors = {number: color for number, (color, _) in masks.known_colors.items()}
        raise ValueError(
            f"{examples} hold the {listed} only, which do not look like numbers of classes from 0 on"
            f" ({BORDER} is void where it has no name); {say_palette(every, colors)}"
        )
    if MOST_IN_8_BITS < largest <= BORDER:
        raise ValueError(
            f"{examples} hold {len(values)} of the values from 0 to {BORDER}, which look like gray levels, such as"
            f" probabilities, and not like classes; name all {largest + 1} in data.classes if they are,"
            f" or the few levels that are in data.palette"
        )
    return LabelMap({value: str(value) for value in range(largest + 1)}), values


def _collect_values(masks: RawMaskDataset) -> set[int]:
    """Collects the values in up to 5,000 masks. Raises `ValueError` for the first mask that cannot be read."""
    blocks = map_blocks(lambda block: [masks.read_values(i) for i in block], masks.sample(DECODED))
    return {value for block in blocks for values in block for value in values}
