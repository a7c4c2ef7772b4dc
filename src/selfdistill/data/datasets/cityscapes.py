"""Cityscapes: its folders, and the 19 classes of its masks."""

import os
from collections.abc import Sequence

from .base import select_evenly
from .image_folder import list_folders
from .label_map import LabelMap
from .mask_folder import create_mask_file_dataset, open_listed_files
from .palettes import CITYSCAPES
from .splits import DatasetSplits, parse_split

CITY_NUMBERS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# the values in labelIds; labelTrainIds number the classes in this order
CITY_VALUES = dict(zip(CITY_NUMBERS, CITYSCAPES, strict=True))
CITY_IGNORED = frozenset({*range(34), 255} - CITY_VALUES.keys())
CITY_LABEL_MAPS = {
    "labelTrainIds": LabelMap(dict(enumerate(CITY_VALUES.values())), ignored=frozenset({255})),
    "labelIds": LabelMap(CITY_VALUES, ignored=CITY_IGNORED),
}
PROBED = 10  # masks of a split that are read to see whether it has labels


def open_cityscapes(folder: str) -> DatasetSplits | None:
    """Opens a folder with `leftImg8bit` and `gtFine`; None for any other folder.

    The 19 classes have their usual order. Masks are `*_labelTrainIds.png` if every training image has one, else
    `*_labelIds.png`. A split with only void masks, such as the published test split, is left out with a note.
    """
    root = os.path.join(folder, "leftImg8bit")
    if not os.path.isdir(root) or not os.path.isdir(os.path.join(folder, "gtFine")):
        return None
    images = {split: _list_images(folder, split) for split in sorted(os.listdir(root)) if parse_split(split)}
    suffix = "labelTrainIds"
    if not all(
        os.path.isfile(os.path.join(folder, _build_mask_path(path, suffix))) for path in images.get("train", [])
    ):
        suffix = "labelIds"
    splits, notes = {}, []
    for split, paths in images.items():
        masks = [_build_mask_path(path, suffix) for path in paths]
        if split != "train" and not _has_labels(folder, masks, CITY_LABEL_MAPS[suffix]):
            notes.append(f"{folder}: the {split} split has no labels and is left out")
        elif paths:
            splits[parse_split(split)] = open_listed_files(folder, paths, masks)
    return DatasetSplits(splits, tuple(notes), CITY_LABEL_MAPS[suffix])


def _list_images(folder: str, split: str) -> list[str]:
    root = os.path.join("leftImg8bit", split)
    return [
        os.path.join(root, city, name)
        for city in list_folders(os.path.join(folder, root))
        for name in sorted(os.listdir(os.path.join(folder, root, city)))
        if name.endswith("_leftImg8bit.png") and not name.startswith(".")
    ]


def _build_mask_path(image: str, suffix: str) -> str:
    _, split, city, name = image.split(os.sep)
    return os.path.join("gtFine", split, city, name.replace("_leftImg8bit.png", f"_gtFine_{suffix}.png"))


def _has_labels(folder: str, masks: Sequence[str], label_map: LabelMap) -> bool:
    """Whether any of a few masks has a pixel that is not ignored."""
    dataset = create_mask_file_dataset(folder, masks, masks)
    existing = [i for i in select_evenly(len(masks), PROBED) if os.path.isfile(dataset.masks.source(i))]
    return any(dataset.read_values(i) - (label_map.ignored or set()) for i in existing)
