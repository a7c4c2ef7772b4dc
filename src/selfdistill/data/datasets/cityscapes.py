"""Cityscapes: its folders, and the 19 classes of its masks."""

import os
from collections.abc import Sequence

from .base import evenly_spaced
from .image_folder import folders_in
from .label_map import LabelMap
from .mask_folder import create_mask_file_dataset, open_listed_files
from .splits import DatasetSplits, split_of

CITY_VALUES = {  # what labelIds store; labelTrainIds number the classes in this order
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
CITY_IGNORED = frozenset({*range(34), 255} - CITY_VALUES.keys())
CITY_LABEL_MAPS = {
    "labelTrainIds": LabelMap(dict(enumerate(CITY_VALUES.values())), ignored=frozenset({255})),
    "labelIds": LabelMap(CITY_VALUES, ignored=CITY_IGNORED),
}
PROBED = 10  # masks of a split that are read to see whether it has labels


def open_cityscapes(folder: str) -> DatasetSplits | None:
    """A folder with `leftImg8bit` and `gtFine`, its 19 classes numbered in the usual order; None where it is no such.

    Masks are `*_labelTrainIds.png` where every training image has one, else `*_labelIds.png`. A split whose masks are
    void, as those of the published test images, is left out with a note.
    """
    root = os.path.join(folder, "leftImg8bit")
    if not os.path.isdir(root) or not os.path.isdir(os.path.join(folder, "gtFine")):
        return None
    images = {split: _list_images(folder, split) for split in sorted(os.listdir(root)) if split_of(split)}
    suffix = "labelTrainIds"
    if not all(os.path.isfile(os.path.join(folder, _mask_of(path, suffix))) for path in images.get("train", [])):
        suffix = "labelIds"
    splits, notes = {}, []
    for split, paths in images.items():
        masks = [_mask_of(path, suffix) for path in paths]
        if split != "train" and not _has_labels(folder, masks, CITY_LABEL_MAPS[suffix]):
            notes.append(f"{folder}: the {split} split has no labels and is left out")
        elif paths:
            splits[split_of(split)] = open_listed_files(folder, paths, masks)
    return DatasetSplits(splits, tuple(notes), CITY_LABEL_MAPS[suffix])


def _list_images(folder: str, split: str) -> list[str]:
    root = os.path.join("leftImg8bit", split)
    return [
        os.path.join(root, city, name)
        for city in folders_in(os.path.join(folder, root))
        for name in sorted(os.listdir(os.path.join(folder, root, city)))
        if name.endswith("_leftImg8bit.png") and not name.startswith(".")
    ]


def _mask_of(image: str, suffix: str) -> str:
    _, split, city, name = image.split(os.sep)
    return os.path.join("gtFine", split, city, name.replace("_leftImg8bit.png", f"_gtFine_{suffix}.png"))


def _has_labels(folder: str, masks: Sequence[str], label_map: LabelMap) -> bool:
    """Whether any of a few masks has a pixel that counts."""
    rows = create_mask_file_dataset(folder, masks, masks)
    there = [i for i in evenly_spaced(len(masks), PROBED) if os.path.isfile(rows.masks.source(i))]
    return any(rows.values_in(i) - (label_map.ignored or set()) for i in there)
