"""Decides the classes of the masks of a source, from the recipe, the source or the masks."""

from collections.abc import Sequence
from dataclasses import replace

from ...config.recipe import DataPart
from ...errors import count_of
from .base import DECODED, map_blocks, select_evenly
from .label_files import open_palette
from .label_map import BORDER, LabelMap
from .masks import RawMaskDataset
from .splits import DatasetSplits

MOST = 1000  # larger values need a name to count as classes


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
    label_map, void = _choose_label_map(splits, settings, source, classes)
    label_map = label_map.resolve(source, void)
    return splits._replace(splits={name: masks.apply_label_map(label_map) for name, masks in splits.splits.items()})


def _choose_label_map(
    splits: DatasetSplits, settings: DataPart, source: str, classes: Sequence[str] | None
) -> tuple[LabelMap, Sequence[int | str] | None]:
    """The label map, and the setting `data.void` that applies to it."""
    known, is_other = splits.label_map, source != settings.source
    if known is not None and is_other:
        return _adapt_to_other_source(source, known, settings), None
    if known is not None and settings.classes is None:
        return known, settings.void
    if settings.classes is not None:
        return _rename_values(known, settings.classes), settings.void
    if classes is not None:
        are_numbers = all(name.isdecimal() for name in classes)
        return LabelMap({int(name) if are_numbers else k: name for k, name in enumerate(classes)}), settings.void
    return _count_values(source, splits, settings.void), settings.void


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


def _count_values(source: str, splits: DatasetSplits, void: Sequence[int | str] | None) -> LabelMap:
    """Names the values from 0 to the largest one in the training masks by their numbers."""
    ignored = {int(item) for item in void if str(item).isdecimal()} if void is not None else {BORDER}
    masks = splits.splits.get("train", next(iter(splits.splits.values()), None))
    if not masks:
        raise ValueError(f"{source} has no image with a mask")
    values = _collect_values(masks)
    largest = max(values - ignored, default=0)
    examples = f"{masks.mask_name(0)} and others"
    if largest > MOST:
        raise ValueError(f"{examples} hold values up to {largest}; name the classes in data.classes")
    if void is None and values == {0, BORDER}:
        raise ValueError(
            f"{examples} hold the values 0 and 255 only, and 255 is void where it has no name; name both in a palette,"
            " a CSV with the lines name,r,g,b and NAME,0,0,0 and NAME,255,255,255"
        )
    return LabelMap({value: str(value) for value in range(largest + 1)})


def _collect_values(masks: RawMaskDataset) -> set[int]:
    """Collects the values in up to 5,000 masks. Raises `ValueError` for the first mask that cannot be read."""
    blocks = map_blocks(lambda block: [masks.read_values(i) for i in block], select_evenly(len(masks), DECODED))
    return {value for block in blocks for values in block for value in values}
